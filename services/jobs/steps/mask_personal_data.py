"""Options and reasons of `mask_personal_data`; the step is `pipelines/steps/mask_personal_data.py`."""

from typing import Literal

from services.jobs.steps import StepOptions


class MaskPersonalDataOptions(StepOptions):
    """Mask personal data by patterns with checksums: best effort. Counts by kind."""

    kinds: tuple[Literal["email", "phone", "card", "iban", "ip", "key"], ...] = (
        "email", "phone", "card", "iban", "ip", "key",
    )  # fmt: skip
