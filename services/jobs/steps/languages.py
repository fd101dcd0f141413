"""Options and reasons of `languages`; the step is `pipelines/steps/languages.py`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.jobs.steps import StepOptions

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]  # ISO 639-1


class LanguagesOptions(StepOptions):
    """Keep or skip a conversation by its language, which the step detects offline from the prose."""

    reasons = ("language", "unknown_language")

    keep: tuple[Language, ...] = ()
    skip: tuple[Language, ...] = ()
    unknown: Literal["keep", "reject"] = Field(
        "keep", description="What to do when the prose is too short or no language is likely."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "LanguagesOptions":
        if bool(self.keep) == bool(self.skip):
            raise ValueError("give either keep or skip, with at least one language such as en")
        return self
