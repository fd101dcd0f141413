"""Options and reasons of `select`; the step is `pipelines/steps/select.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class SelectOptions(StepOptions):
    """Keep records by what they say of themselves."""

    reasons = ("plugins", "unknown_model", "other_model")

    models: tuple[str, ...] = Field(
        (), max_length=MAX_LISTED, description="Keep only answers of these models; empty: of all."
    )
    unknown_model: Literal["keep", "reject"] = Field("keep", description="A record that does not name its model.")
    plugins: Literal["keep", "reject"] = Field("reject", description="A record made with plugins (ShareGPT).")
