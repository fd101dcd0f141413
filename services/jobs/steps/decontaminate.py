"""Options and reasons of `decontaminate`; the step is `pipelines/steps/decontaminate.py`."""

from pydantic import Field

from services.jobs.steps import StepOptions


class DecontaminateOptions(StepOptions):
    """Records that share a run of words with an evaluation set end here."""

    reasons = ("contaminated",)
    files = "against"

    against: tuple[str, ...] = Field(min_length=1, description="Files of any readable format.")
    ngram: int = Field(13, ge=5, le=50, description="Words in a row; shorter evaluation texts are searched as a whole.")
