"""Options and reasons of `error_messages`; the step is `pipelines/steps/error_messages.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class ErrorMessagesOptions(StepOptions):
    """Drop assistant messages that are errors of the service, such as `Too many requests in 1 hour`."""

    reasons = ("error_message",)

    starts: tuple[str, ...] = Field(
        (), max_length=MAX_LISTED, description="More texts with which such a message begins."
    )
    then: Literal["cut", "reject"] = Field(
        "cut", description="What to drop: cut takes this pair and all after it; reject takes the record."
    )
