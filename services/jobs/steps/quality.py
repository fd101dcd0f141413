"""Options and reasons of `quality`; the step is `pipelines/steps/quality.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class QualityOptions(StepOptions):
    """Rejects a record that repeats itself or shows other signs that a model learns nothing from it.

    0 switches a rule off. Code is not judged. `max_digit_run` looks at every turn, the other rules at assistant turns.
    """

    reasons = ("short_answer", "digit_run", "repeated_lines", "repeated_words", "list_numbering")

    max_digit_run: int = Field(
        0, ge=0, description="Reject a record whose prose repeats one digit more often than this in a row."
    )
    max_line_repeats: int = Field(
        20,
        ge=0,
        description="Reject a record whose answer repeats one line more often than this in a row. "
        "Blank lines do not count.",
    )
    max_repeated_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Reject a record with an answer in which more than this share of the words lies in 10-grams "
        "that occur 8 times or more.",
    )
    min_answer_chars: int = Field(
        1,
        ge=0,
        description="Reject a record with an answer of fewer characters than this. Reasoning, and words before a call, "
        "are none.",
    )
    list_numbering: Literal["keep", "reject"] = Field(
        "keep", description="Keep or reject a record with a numbered list in which every item has the number 1."
    )
