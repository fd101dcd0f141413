"""Options and reasons of `roles`; the step is `pipelines/steps/roles.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class RolesOptions(StepOptions):
    """A conversation is: a system turn or none, then user and assistant in turns, ending with the assistant."""

    reasons = (
        *("unknown_role", "system_not_first", "no_pair", "not_alternating", "empty", "too_few_turns", "too_short"),
        *("system", "leading_assistant", "trailing_user", "max_turns"),  # only turns are cut
    )

    system: Literal["keep", "cut"] = "keep"
    same_role: Literal["merge", "reject"] = Field("reject", description="Two turns of one role in a row.")
    min_turns: int = Field(2, ge=2, description="User and assistant turns.")
    min_chars: int = Field(16, ge=0, description="Of user and assistant turns together.")
    max_turns: int = Field(0, ge=0, description="Later ones are cut, in pairs; 0: no bound.")
