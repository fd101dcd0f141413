"""Options and reasons of `split_validation`; the step is `pipelines/steps/split_validation.py`."""

from services.jobs.steps import Fraction, StepOptions


class SplitValidationOptions(StepOptions):
    """Sets a share of the conversations aside for validation, chosen by the id of the input record.

    All pieces of one input record are on the same side.
    """

    view = "record"

    fraction: Fraction = 0.01
    seed: int = 0
