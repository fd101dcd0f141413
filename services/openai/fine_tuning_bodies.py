"""The body of `POST /v1/fine_tuning/jobs` as pydantic models. `services/jobs/fine_tunings.py` makes a job of it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.openai.response_bodies import MetadataName, MetadataValue

Auto = Literal["auto"]


class Hyperparameters(BaseModel):
    """`auto`, or nothing, leaves a number to the preset. Further fields are those of our configuration."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    n_epochs: Auto | Annotated[int, Field(ge=1, le=1000)] | None = None
    batch_size: Auto | Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Sequences (of `dpo`: pairs) of one optimizer step."
    )
    learning_rate_multiplier: Auto | Annotated[float, Field(gt=0, le=1000)] | None = Field(
        None, description="Times the preset's learning rate."
    )
    beta: Auto | Annotated[float, Field(gt=0, le=10)] | None = Field(None, description="Of `dpo`.")
    preset: str | None = Field(None, description="Where several presets, or none, train the model.")

    def number(self, name: str) -> Any:
        """The value of a field; None where it is left to the preset."""
        value = getattr(self, name)
        return None if value == "auto" else value


class MethodOptions(BaseModel):
    hyperparameters: Hyperparameters | None = None


class Method(BaseModel):
    type: Literal["supervised", "dpo"]
    supervised: MethodOptions | None = None
    dpo: MethodOptions | None = None


class FineTuningBody(BaseModel):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: str = Field(description="A packaged or trained model, a preset, or the model of a preset.")
    training_file: str = Field(description="A file with the purpose `fine-tune`.")
    validation_file: str | None = Field(None, description="Another one, which is evaluated and never trained on.")
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(None, description="Those of `method`, as older clients send them.")
    suffix: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,40}$")] | None = Field(
        None, description="The end of the new model's name."
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    metadata: Annotated[dict[MetadataName, MetadataValue], Field(max_length=16)] | None = None

    @property
    def options(self) -> Hyperparameters:
        """The hyperparameters, wherever they stand."""
        if self.method is not None:
            told = self.method.supervised if self.method.type == "supervised" else self.method.dpo
            if told is not None and told.hyperparameters is not None:
                return told.hyperparameters
        return self.hyperparameters or Hyperparameters.model_validate({})
