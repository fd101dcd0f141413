"""The jobs of one kind that programs ordered through `/v1`: each is its user's alone.

    owned = OwnedJobs(jobs, "batch", KIND)
    with owned.admitted(jid, user, check):
        jobs.submit(jid, …)
    owned.list(user, after=jid)

`batches.py` and `fine_tunings.py` call it. A list reads the user's own ids, and as many jobs as its page needs.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from services.errors import Gone, InvalidRequest, NotFound, shown
from services.jobs.job_folders import undone_unless_made
from services.jobs.jobs import Job, Jobs
from services.wire.messages import TERMINAL

MADE_WITHIN_S = 60.0  # of being listed; what is not there by then never was made, or has expired


class OwnedJobs:
    """Finds the jobs of a user. `what`: the word for one."""

    def __init__(self, jobs: Jobs, what: str, kind: str) -> None:
        self._jobs = jobs
        self._what = what
        self._kind = kind

    def get(self, job_id: str, user: str) -> Job:
        """Raises NotFound."""
        with contextlib.suppress(Gone, InvalidRequest):
            job = self._jobs.get(job_id)
            if self._is_of(job, user):
                self._jobs.list_for_owner(job)  # an older build did not
                return job
        raise NotFound(f"no {self._what} has the id {shown(job_id)}; it was removed, or has expired")

    def find(self, job_id: str, user: str) -> Job | None:
        """As `get`; None where there is none."""
        try:
            return self.get(job_id, user)
        except NotFound:
            return None

    def list(self, user: str, *, newest_first: bool = True, after: str = "") -> Iterator[Job]:
        """The user's jobs, beginning behind the id `after`. Raises InvalidRequest for an id of none of them."""
        times = self._jobs.owners.times(user, self._kind)
        ids = list(times)[:: -1 if newest_first else 1]
        if after and not (after in times and self.find(after, user)):
            raise InvalidRequest(f"after={shown(after)} is the id of no {self._what} of yours", field="after")
        return self._existing(user, times, ids[ids.index(after) + 1 :] if after else ids)

    def _existing(self, user: str, times: Mapping[str, float], ids: Iterable[str]) -> Iterator[Job]:
        """Those that are there. What has expired or was removed is taken off the list."""
        for jid, job in self._jobs.read(ids):
            if job is None:
                self._jobs.owners.drop(user, self._kind, {jid: times[jid]}, older_than_s=MADE_WITHIN_S)
            elif self._is_of(job, user):
                yield job

    @contextlib.contextmanager
    def admitted(self, jid: str, user: str, check: Callable[[int], None]) -> Iterator[None]:
        """Make a job inside. `check` raises for the number of the user's other jobs that have not ended.

        A job counts from here on, before it is made: of orders that come at the same moment none passes a bound.
        """
        others = self._jobs.owners.place(user, self._kind, jid)
        now_s = others.pop(jid)
        with undone_unless_made(self._jobs, jid, lambda: self._jobs.owners.drop(user, self._kind, {jid: now_s})):
            check(self._num_unfinished(user, others, now_s))
            yield

    def _num_unfinished(self, user: str, times: Mapping[str, float], now_s: float) -> int:
        """Those that are being made count. What is not there any more is taken off the list."""
        states = self._jobs.states(times)
        absent = {jid for jid, state in states.items() if not state}
        being_made = {jid for jid in absent if times[jid] > now_s - MADE_WITHIN_S}
        self._jobs.owners.drop(user, self._kind, {jid: times[jid] for jid in absent - being_made})
        return len(being_made) + sum(state not in TERMINAL for state in states.values() if state)

    def _is_of(self, job: Job, user: str) -> bool:
        return job.kind == self._kind and job.owner == user
