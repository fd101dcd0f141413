"""Options and reasons of `roles`; the step is `pipelines/steps/roles.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class RolesOptions(StepOptions):
    """Keep conversations of one form: a system message or none, then user and assistant by turns, assistant last."""

    reasons = (
        *("unknown_role", "system_not_first", "no_pair", "not_alternating", "empty", "too_few_turns", "too_short"),
        *("system", "leading_assistant", "trailing_user", "max_turns"),  # only turns are cut
    )

    system: Literal["keep", "cut"] = "keep"
    same_role: Literal["merge", "reject"] = Field(
        "reject", description="What to do with two messages of one role in a row."
    )
    min_turns: int = Field(2, ge=2, description="Fewest user and assistant messages.")
    min_chars: int = Field(16, ge=0, description="Fewest characters of user and assistant messages together.")
    max_turns: int = Field(0, ge=0, description="Most messages; the step cuts later ones, in pairs; 0: no limit.")
