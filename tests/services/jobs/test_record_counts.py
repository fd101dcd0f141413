"""Records are counted in the same words wherever a cleaning is shown."""

from services.jobs.jobs import JobStep
from services.jobs.record_counts import totals, totals_of


def test_what_was_added_follows_from_the_rest() -> None:
    assert totals(1_000, 120, 910) == "1,000 records read, 120 rejected, 30 added by splitting, 910 written"
    assert totals(2, 1, 1) == "2 records read, 1 rejected, 1 written"


def test_the_steps_of_a_job_say_the_same_as_its_report() -> None:
    steps = (JobStep("read", 1_000, 990, {"bad_json": 10}), JobStep("split_long", 990, 910, {"too_short": 110}))
    assert totals_of(steps) == totals(1_000, 120, 910) and totals_of(()) == ""
