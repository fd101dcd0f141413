"""Options and reasons of `split_long`; the step is `pipelines/steps/split_long.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class SplitLongOptions(StepOptions):
    """Cut long records between pairs so that each fits the context, with its template and system message."""

    reasons = ("over_long", "over_long_question", "unanswered", "template_refused")
    asks_tokenizer = True

    max_tokens: int = Field(2048, ge=16)
    over_long: Literal["reject", "truncate"] = Field(
        "reject", description="What to do with a single pair that does not fit."
    )
    marker: str = Field(" […]", description="Text at the end of a truncated answer.")
