"""Options and reasons of `blocked_phrases`; the step is `pipelines/steps/blocked_phrases.py`."""

from typing import Annotated, Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class BlockedPhrasesOptions(StepOptions):
    """Rejects a record that contains one of `phrases` as whole words, in any case. Code and URLs are not searched."""

    reasons = ("blocked_phrase",)

    phrases: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=MAX_LISTED)
    roles: tuple[Literal["system", "user", "assistant"], ...] = ("assistant",)
