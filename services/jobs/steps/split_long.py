"""Options and reasons of `split_long`; the step is `pipelines/steps/split_long.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class SplitLongOptions(StepOptions):
    """Splits a record that is longer than `max_tokens` between its pairs.

    The step counts tokens with the tokenizer, the chat template and the system turn.
    """

    reasons = ("over_long", "over_long_question", "unanswered", "template_refused", "continued")
    asks_tokenizer = True
    view = "rounds"

    max_tokens: int = Field(2048, ge=16)
    over_long: Literal["reject", "truncate"] = Field(
        "reject", description="Reject a single pair that does not fit, or truncate its answer."
    )
    continued: Literal["cut", "keep"] = Field(
        "cut",
        description="Cut or keep pairs at the head of a later piece that go on with the answer before them: "
        "'continue', or the second half of a code block. Kept ones are counted.",
    )
    marker: str = Field(" […]", description="Put this text at the end of a truncated answer.")
