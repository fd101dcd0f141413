"""Options and reasons of `deduplicate`; the step is `pipelines/steps/deduplicate.py`."""

from typing import Literal

from pydantic import Field, model_validator

from services.jobs.steps import StepOptions


class DeduplicateOptions(StepOptions):
    """Keeps the first of several records that are alike, in the order of the input, and rejects the others."""

    reasons = ("duplicate", "duplicate_id", "near_duplicate")
    barrier = True

    exact: bool = Field(
        True,
        description="Reject a record with the same turns as an earlier one. "
        "Line ends and white space at the end of lines do not count.",
    )
    ids: Literal["keep", "reject"] = Field("reject", description="Keep or reject a second record with the same id.")
    near: bool = Field(
        True,
        description="Reject a record with nearly the same words as an earlier one, if its numbers, operators, emoji "
        "and short last answer are the same, too, and its answers alone are half as alike. "
        "Punctuation and capitals do not count.",
    )
    threshold: float = Field(
        0.8,
        gt=0.3,
        le=1,
        description="For near: the Jaccard similarity of 5-word shingles from which two records are alike.",
    )

    @model_validator(mode="after")
    def _something(self) -> "DeduplicateOptions":
        if not (self.exact or self.near or self.ids == "reject"):
            raise ValueError("the step has nothing to look for: switch on exact, near or ids: reject")
        return self
