"""Options and reasons of `languages`; the step is `pipelines/steps/languages.py`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from services.jobs.steps import StepOptions

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]  # ISO 639-1


class LanguagesOptions(StepOptions):
    """Keeps or rejects a conversation by its language, which is detected offline from its prose."""

    reasons = ("language", "unknown_language")
    view = "answers"

    keep: tuple[Language, ...] = ()
    skip: tuple[Language, ...] = ()
    unknown: Literal["keep", "reject"] = Field(
        "keep", description="Keep or reject a conversation with too little prose, or without a likely language."
    )
    sides: Literal["together", "apart"] = Field(
        "together",
        description="Detect one language for the whole conversation, or one for the answers and one for the questions; "
        "apart, both must be wanted, and a side of unknown language follows the other.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "LanguagesOptions":
        if bool(self.keep) == bool(self.skip):
            raise ValueError("give either keep or skip, with at least one language such as en")
        return self
