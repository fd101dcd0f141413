"""Options and reasons of `select`; the step is `pipelines/steps/select.py`."""

from typing import Literal

from pydantic import Field

from services.jobs.steps import MAX_LISTED, StepOptions


class SelectOptions(StepOptions):
    """Keep records by their own fields."""

    reasons = ("plugins", "unknown_model", "other_model")

    models: tuple[str, ...] = Field(
        (), max_length=MAX_LISTED, description="Keep only answers of these models; empty: of all models."
    )
    unknown_model: Literal["keep", "reject"] = Field(
        "keep", description="What to do with a record that does not name its model."
    )
    plugins: Literal["keep", "reject"] = Field(
        "reject", description="What to do with a record made with plugins (ShareGPT)."
    )
