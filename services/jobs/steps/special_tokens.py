"""Options and reasons of `special_tokens`; the step is `pipelines/steps/special_tokens.py`."""

from typing import Annotated

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class SpecialTokensOptions(StepOptions):
    """Break up text that spells a special token of the tokenizer, or a usual one, so that it stays text."""

    asks_tokenizer = True

    tokens: tuple[Annotated[str, Field(min_length=2)], ...] = Field(
        (), max_length=MAX_LISTED, description="More texts to break up."
    )
