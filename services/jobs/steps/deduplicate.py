"""Options and reasons of `deduplicate`; the step is `pipelines/steps/deduplicate.py`."""

from typing import Literal

from pydantic import Field, model_validator

from services.jobs.steps import StepOptions


class DeduplicateOptions(StepOptions):
    """Keep the first of several equal records, in the order of the input, over all shards."""

    reasons = ("duplicate", "duplicate_id", "near_duplicate")
    barrier = True

    exact: bool = Field(True, description="Equal messages, apart from line ends and white space at the end of lines.")
    ids: Literal["keep", "reject"] = Field("reject", description="What to do with a second record of the same id.")
    near: bool = Field(
        True,
        description="Much the same words, and the same numbers, operators, emoji and short last answer. "
        "Punctuation and capitals don't count.",
    )
    threshold: float = Field(0.8, gt=0.3, le=1, description="For `near`: Jaccard similarity of 5-word shingles.")

    @model_validator(mode="after")
    def _something(self) -> "DeduplicateOptions":
        if not (self.exact or self.near or self.ids == "reject"):
            raise ValueError("the step has nothing to look for: switch on exact, near or ids: reject")
        return self
