"""Options and reasons of `repair_unicode`; the step is `pipelines/steps/repair_unicode.py`."""

from typing import Literal

from services.jobs.steps import StepOptions


class RepairUnicodeOptions(StepOptions):
    """Repair mojibake, broken surrogates and terminal escapes with ftfy; quotes and widths stay as typed."""

    normalization: Literal["none", "NFC"] = "none"
