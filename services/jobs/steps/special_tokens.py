"""Options and reasons of `special_tokens`; the step is `pipelines/steps/special_tokens.py`."""

from typing import Annotated

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class SpecialTokensOptions(StepOptions):
    """Text that spells a special token of the tokenizer, or one of the usual ones, is broken up so that it is text."""

    asks_tokenizer = True

    tokens: tuple[Annotated[str, Field(min_length=2)], ...] = Field(
        (), max_length=MAX_LISTED, description="Further ones."
    )
