"""Options and reasons of `error_messages`; the step is `pipelines/steps/error_messages.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class ErrorMessagesOptions(StepOptions):
    """Assistant turns that are messages of the service, such as `Too many requests in 1 hour`."""

    reasons = ("error_message",)

    starts: tuple[str, ...] = Field((), max_length=MAX_LISTED, description="Further beginnings of such messages.")
    then: Literal["cut", "reject"] = Field("cut", description="cut: this pair and what follows; or the whole record.")
