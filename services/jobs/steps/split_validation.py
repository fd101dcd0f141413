"""Options and reasons of `split_validation`; the step is `pipelines/steps/split_validation.py`."""

from services.jobs.steps import Fraction, StepOptions


class SplitValidationOptions(StepOptions):
    """Set a share of the conversations aside, by the id of the input record: pieces of a record stay together."""

    fraction: Fraction = 0.01
    seed: int = 0
