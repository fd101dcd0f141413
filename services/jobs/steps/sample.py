"""Options and reasons of `sample`; the step is `pipelines/steps/sample.py`."""

from pydantic import Field, model_validator

from services.jobs.steps import Fraction, StepOptions


class SampleOptions(StepOptions):
    """Keeps a random part of the records in the order of the input. The same seed and input give the same part."""

    reasons = ("not_sampled",)
    barrier = True
    view = "record"

    fraction: Fraction | None = None
    count: int | None = Field(None, ge=1)
    seed: int = 42

    @model_validator(mode="after")
    def _one_of_both(self) -> "SampleOptions":
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give either fraction or count")
        return self
