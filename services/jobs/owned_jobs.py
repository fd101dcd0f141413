"""The jobs of one kind that programs ordered through `/v1`: each is its user's alone.

    owned = OwnedJobs(jobs, "batch", "batch_", lambda job: job.spec["user"])
    owned.get(batch_id, user)
    owned.list(user, after=batch_id)

`batches.py` and `fine_tunings.py` call it. The list reads as many jobs as its page needs, however many there are.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from services.errors import Gone, InvalidRequest, NotFound, shown
from services.jobs.jobs import Job, Jobs


class OwnedJobs:
    """Finds the jobs of a user. `what`: the word for one; `prefix`: of the ids of all of them."""

    def __init__(self, jobs: Jobs, what: str, prefix: str, user_of: Callable[[Job], str | None]) -> None:
        """`user_of(job)` is None for a job of another kind."""
        self._jobs = jobs
        self._what = what
        self._prefix = prefix
        self._user_of = user_of

    def get(self, job_id: str, user: str) -> Job:
        """Raises NotFound."""
        with contextlib.suppress(Gone, InvalidRequest):
            job = self._jobs.get(job_id)
            if self._user_of(job) == user:
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
        ids = self._jobs.ids(self._prefix)
        ids = ids[::-1] if newest_first else ids
        if after and not (after in ids and any(self._existing([after], user))):
            raise InvalidRequest(f"after={shown(after)} is the id of no {self._what} of yours", field="after")
        return self._existing(ids[ids.index(after) + 1 :] if after else ids, user)

    def _existing(self, ids: Iterable[str], user: str) -> Iterator[Job]:
        for _, job in self._jobs.read(ids):
            if job is not None and self._user_of(job) == user:
                yield job
