"""Options and reasons of `quality`; the step is `pipelines/steps/quality.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class QualityOptions(StepOptions):
    """Repetition and other signs that a text teaches nothing. 0 switches a rule off. Code is not judged.

    Digits are looked for in every turn, the rest in answers.
    """

    reasons = ("short_answer", "digit_run", "repeated_lines", "repeated_words", "list_numbering")

    max_digit_run: int = Field(0, ge=0, description="More of one digit in a row, in prose, end the record.")
    max_line_repeats: int = Field(20, ge=0, description="More of one line in a row, blank lines aside.")
    max_repeated_share: float = Field(
        0.5, ge=0, le=1, description="Share of words in 10-grams that occur 8 times or more."
    )
    min_answer_chars: int = Field(1, ge=0, description="Of every assistant turn.")
    list_numbering: Literal["keep", "reject"] = Field("keep", description="A numbered list with each item numbered 1.")
