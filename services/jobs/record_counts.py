"""How many records a cleaning read, rejected and wrote: the one line of page, command, log and `clean run`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # brings Redis' client, and `clean run` needs none
    from services.jobs.jobs import JobStep


def totals(records_read: int, records_rejected: int, records_written: int) -> str:
    """`1,000 records read, 120 rejected, 30 added by splitting, 910 written`; what was added follows from the rest."""
    added = records_written + records_rejected - records_read
    parts = [f"{records_read:,} records read", f"{records_rejected:,} rejected"]
    parts += [f"{added:,} added by splitting"] if added else []
    return ", ".join([*parts, f"{records_written:,} written"])


def totals_of(steps: "Sequence[JobStep]") -> str:
    """Of a finished cleaning's steps, the first of which reads; empty while nothing is known of them."""
    if not steps:
        return ""
    rejected = sum(number for step in steps for number in step.rejected.values())
    return totals(steps[0].records_in, rejected, steps[-1].records_out)
