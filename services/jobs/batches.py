"""Batches of questions from a file: jobs of kind `batch`, their specs and how far they are.

    job = Batches(jobs, files, settings.state_dir / "jobs").submit(user, file_id, "/v1/chat/completions")

`webapp/api/batches.py` and `chatserver batch` submit and show them; `pipelines/celery/batch_tasks.py` does the work.
The job's folder has its own link to the input, so the file may be deleted meanwhile. When the batch ends, its folder
gives back the input and what it wrote: otherwise a user's deleted files would fill the disk.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from services.errors import InvalidRequest, UserLimit, shown
from services.jobs.job_folders import Apart, at_once, removed_unless_made
from services.jobs.jobs import Job, Jobs
from services.jobs.owned_jobs import OwnedJobs
from services.jobs.stored_files import StoredFile, StoredFiles
from services.settings import variable_of

KIND = "batch"
UNIT = "batch"  # the name of its one unit
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
MAX_LINES = 50_000
ID_PREFIX = "batch_"  # of the ids of all batches
WINDOW_S = 86_400  # from the submit to the end, whatever is answered by then
ADMIT_AFTER_S = 60.0  # batches take minutes to hours
INPUT = "input.jsonl"


@dataclass(frozen=True)
class BatchProgress:
    """The note of a batch's unit. Times are seconds, 0 while they have not come."""

    state: str = "running"  # of the unit, as `Jobs.note` has it
    records: int = 0  # lines that are over
    of: int = 0  # lines; 0 until the input was checked
    answered: int = 0  # of `records`
    failed: int = 0
    checked_s: int = 0  # since then it asks
    finalizing_s: int = 0
    expired: bool = False
    output_file: str = ""  # its id
    error_file: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)  # of the input: {code, line, message, param}

    @property
    def totals(self) -> str:
        """For people; empty until the input was checked."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.answered:,} of {self.of:,} lines answered{failed}" if self.of else ""

    def as_note(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_note(cls, note: Mapping[str, Any]) -> "BatchProgress":
        """The progress in a note; of another version's note, the known fields."""
        return cls(**{each.name: note[each.name] for each in fields(cls) if note.get(each.name) is not None})


class Batches:
    """Submits and finds the batches of one installation. `folder`: where jobs have theirs; `apart` touches it."""

    def __init__(self, jobs: Jobs, files: StoredFiles, folder: Path, apart: Apart = at_once) -> None:
        self._jobs = jobs
        self._files = files
        self._folder = folder.resolve()
        self._apart = apart
        self._owned = OwnedJobs(jobs, "batch", KIND)

    def submit(self, user: str, file_id: str, endpoint: str) -> Job:
        """Make the job of a new batch. Raises InvalidRequest or NotFound."""
        jid = f"{ID_PREFIX}{secrets.token_hex(16)}"
        with removed_unless_made(self._jobs, jid, self.folder_of(jid), self._apart):
            return self._jobs.submit(jid, KIND, *self.prepare(jid, user, file_id, endpoint))

    def prepare(
        self, jid: str, user: str, file_id: str, endpoint: str, metadata: Mapping[str, str] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The name and spec of a batch, whose folder has the input. It needs the disk and not Redis.

        Raises InvalidRequest or NotFound.
        """
        if endpoint not in ENDPOINTS:
            raise InvalidRequest(f"endpoint={shown(endpoint)} is not {', '.join(ENDPOINTS)}", field="endpoint")
        stored = self._files.get_for("batch", file_id, user, field="input_file_id")
        return stored.filename, {
            "user": user,
            "file": file_id,
            "endpoint": endpoint,
            "metadata": dict(metadata or {}),
            "out": str(self._linked(stored, self.folder_of(jid))),
        }

    def get(self, batch_id: str, user: str) -> Job:
        """Raises NotFound."""
        return self._owned.get(batch_id, user)

    def find(self, batch_id: str, user: str) -> Job | None:
        """The same; None where there is none."""
        return self._owned.find(batch_id, user)

    def list(self, user: str, *, newest_first: bool = True, after: str = "") -> Iterator[Job]:
        """The user's batches, beginning behind the id `after`. Raises InvalidRequest for an id of none of them."""
        return self._owned.list(user, newest_first=newest_first, after=after)

    @contextlib.contextmanager
    def admitted(self, jid: str, user: str, max_unfinished: int) -> Iterator[None]:
        """Make a batch inside. Raises UserLimit where the user has so many that have not ended, or are being made."""

        def check(num_unfinished: int) -> None:
            if num_unfinished >= max_unfinished:
                raise UserLimit(
                    f"{num_unfinished:,} of your batches have not ended; a user may have {max_unfinished:,} "
                    f"({variable_of('max_user_batches')}): wait for the end of one, or cancel one",
                    retry_after_s=ADMIT_AFTER_S,
                )

        folder = self.folder_of(jid)
        with self._owned.admitted(jid, user, check), removed_unless_made(self._jobs, jid, folder, self._apart):
            yield

    def let_go(self, job: Job) -> None:
        """Give back the input of a batch that has ended. The pipelines do it, too, and never see one not begun."""
        if job.ended:
            folder = self.folder_of(job.id)
            (folder / INPUT).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it was begun: how far it came stays
                folder.rmdir()

    def folder_of(self, jid: str) -> Path:
        return self._folder / jid

    def progress(self, job: Job) -> BatchProgress:
        return BatchProgress.from_note(self._jobs.units(job.id).get(UNIT, {}))

    def _linked(self, stored: StoredFile, folder: Path) -> Path:
        self._files.link(stored, folder / INPUT)
        return folder
