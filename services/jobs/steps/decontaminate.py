"""Options and reasons of `decontaminate`; the step is `pipelines/steps/decontaminate.py`."""

from pydantic import Field

from services.jobs.steps import StepOptions


class DecontaminateOptions(StepOptions):
    """Drop records that share a run of words with an evaluation set."""

    reasons = ("contaminated",)
    files = "against"

    against: tuple[str, ...] = Field(
        min_length=1, description="Files of the evaluation sets, in any format that a cleaning reads."
    )
    ngram: int = Field(
        13, ge=5, le=50, description="Number of words in a row; a shorter evaluation text must match as a whole."
    )
