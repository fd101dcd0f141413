"""Options and reasons of `select`; the step is `pipelines/steps/select.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class SelectOptions(StepOptions):
    """Keeps or rejects a record by the model and the plugins that the record names."""

    reasons = ("plugins", "unknown_model", "other_model")
    view = "record"

    models: tuple[str, ...] = Field(
        (), max_length=MAX_LISTED, description="Keep only records that one of these models answered. Empty: keep all."
    )
    unknown_model: Literal["keep", "reject"] = Field(
        "keep", description="Keep or reject a record that does not name its model."
    )
    plugins: Literal["keep", "reject"] = Field(
        "reject", description="Keep or reject a record that was made with plugins (ShareGPT)."
    )
