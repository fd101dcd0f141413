"""Options and reasons of `quality`; the step is `pipelines/steps/quality.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class QualityOptions(StepOptions):
    """Drop texts with repetition and other signs that they teach nothing. 0 switches a rule off; code does not count.

    The rule about digits judges every message, the others judge answers.
    """

    reasons = ("short_answer", "digit_run", "repeated_lines", "repeated_words", "list_numbering")

    max_digit_run: int = Field(0, ge=0, description="Most equal digits in a row, in prose.")
    max_line_repeats: int = Field(20, ge=0, description="Most equal lines in a row, without blank lines.")
    max_repeated_share: float = Field(
        0.5, ge=0, le=1, description="Largest share of words in 10-grams that occur 8 times or more."
    )
    min_answer_chars: int = Field(1, ge=0, description="Fewest characters of every assistant message.")
    list_numbering: Literal["keep", "reject"] = Field(
        "keep", description="What to do with a list whose items all have the number 1."
    )
