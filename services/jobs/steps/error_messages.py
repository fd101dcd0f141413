"""Options and reasons of `error_messages`; the step is `pipelines/steps/error_messages.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class ErrorMessagesOptions(StepOptions):
    """Finds assistant turns that are error messages of a service, such as `Too many requests in 1 hour`."""

    reasons = ("error_message",)
    view = "rounds"

    starts: tuple[str, ...] = Field(
        (), max_length=MAX_LISTED, description="More texts with which an error message begins."
    )
    then: Literal["cut", "reject"] = Field(
        "cut", description="cut: drop the pair with the message and all later pairs. reject: drop the whole record."
    )
