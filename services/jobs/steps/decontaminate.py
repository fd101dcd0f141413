"""Options and reasons of `decontaminate`; the step is `pipelines/steps/decontaminate.py`."""

from pydantic import Field

from services.jobs.steps import StepOptions


class DecontaminateOptions(StepOptions):
    """Rejects a record that shares `ngram` words in a row with an evaluation set."""

    reasons = ("contaminated",)
    files = "against"

    against: tuple[str, ...] = Field(min_length=1, description="The files of the evaluation sets, in any input format.")
    ngram: int = Field(
        13,
        ge=5,
        le=50,
        description="Reject a record that shares this many words in a row with an evaluation text. "
        "A shorter evaluation text must occur as a whole.",
    )
