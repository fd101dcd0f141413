"""Previews of fine-tunings on Celery: the page's web process has no tokenizer, so a trainings worker reads the data.

    preview(pid)     the task: read the data in a process of its own, and keep what it found for the page

It is a look and no job: nothing sends it again when a message is lost, and the page asks anew. The process
(`pipelines/command/page_preview.py`) limits its own memory and processor time; here it gets a deadline. It ends with
this worker, whichever way that ends.
"""

import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
from celery import Celery

from pipelines.celery.admission import Admission
from services.errors import ConfigurationError, Gone
from services.jobs.dispatch import calmly
from services.jobs.previews import Preview, PreviewResult, Previews
from services.jobs.training_jobs import check_unchanged
from services.machine.processes import end_tied, start_tied
from services.wire.keys import PREVIEW_TASK

log = logging.getLogger("chatserver.pipelines")

MOST_S = 180.0
HUNG_AFTER_S = MOST_S + 30.0
PROGRAM = (sys.executable, "-m", "pipelines.command.page_preview")
RESULT = "result.json"  # in the folder that the program gets
TOO_MUCH = (
    "the preview ended before it had read the data: it took too much time or memory; `chatserver train preview` reads "
    "them without these limits"
)


class PreviewTasks:
    """The work of the task. `masked` removes what nobody shall read; tests give another program."""

    def __init__(
        self,
        app: Celery,
        previews: Previews,
        admission: Admission,
        masked: Callable[[str], str],
        program: Sequence[str] = PROGRAM,
        most_s: float = MOST_S,
    ) -> None:
        self._app = app
        self._previews = previews
        self._admission = admission
        self._masked = masked
        self._program = program
        self._most_s = most_s

    def register(self) -> None:
        self._app.task(name=PREVIEW_TASK, shared=False, time_limit=HUNG_AFTER_S)(calmly(self.preview))

    def preview(self, pid: str) -> None:
        """Idempotent: what has ended stays."""
        try:
            preview = self._previews.get(pid)
        except Gone:
            return
        if preview.state == "ended":
            return
        self._previews.begin(preview)
        self._previews.end(preview, self._result(preview))

    def _result(self, preview: Preview) -> PreviewResult:
        try:
            self._admission.check_preview(self._previews, preview)
            check_unchanged(preview.spec)
        except ConfigurationError as error:
            return PreviewResult(problem=str(error))
        with tempfile.TemporaryDirectory(prefix="chatserver-preview-") as folder:
            return self._read(preview, Path(folder))

    def _read(self, preview: Preview, folder: Path) -> PreviewResult:
        spec = orjson.dumps(preview.spec).decode()
        with (folder / "output").open("w+b") as output:
            process = start_tied([*self._program, spec, str(folder)], output=output)
            try:
                process.wait(self._most_s)
            except subprocess.TimeoutExpired:
                return PreviewResult(problem=TOO_MUCH)
            finally:
                end_tied(process, signal.SIGKILL, 1.0)
            output.seek(0)
            said = self._masked(output.read().decode(errors="replace")).strip()
        if process.returncode:
            log.warning("a preview ended with %d: %s", process.returncode, said[-2_000:])
            return PreviewResult(problem=_why(process.returncode, said))
        return PreviewResult.of(orjson.loads(self._masked((folder / RESULT).read_text("utf-8"))))


def _why(code: int, said: str) -> str:
    """A signal is that of a limit, or of the kernel when memory is short."""
    return TOO_MUCH if code < 0 or code > 128 else f"the preview failed: {said.rpartition(chr(10))[2]}"
