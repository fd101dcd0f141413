"""Options and reasons of `repair_unicode`; the step is `pipelines/steps/repair_unicode.py`."""

from typing import Literal

from services.jobs.steps import StepOptions


class RepairUnicodeOptions(StepOptions):
    """Mojibake, broken surrogates and terminal escapes are repaired by ftfy; quotes and widths stay as typed."""

    normalization: Literal["none", "NFC"] = "none"
