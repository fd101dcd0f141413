"""Options and reasons of `roles`; the step is `pipelines/steps/roles.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import StepOptions


class RolesOptions(StepOptions):
    """Makes each record a conversation: at most one system turn, then user and assistant turns alternately.

    The assistant has the last turn.
    """

    reasons = (
        *("unknown_role", "system_not_first", "no_pair", "not_alternating", "empty", "no_answer"),
        *("too_few_turns", "too_short"),
        *("system", "leading_assistant", "trailing_user", "max_turns"),  # only turns are cut
    )
    view = "rounds"

    system: Literal["keep", "cut"] = "keep"
    same_role: Literal["merge", "reject"] = Field(
        "reject", description="Merge two turns of one role in a row, or reject the record."
    )
    min_turns: int = Field(
        2, ge=2, description="Reject a record with fewer user and assistant turns together than this."
    )
    min_chars: int = Field(
        16, ge=0, description="Reject a record whose user and assistant turns together have fewer characters than this."
    )
    max_turns: int = Field(
        0, ge=0, description="Cut the user and assistant turns after this many, in pairs. 0: keep them all."
    )
