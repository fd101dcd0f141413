"""The checkpoints of one run: folders `checkpoint-N`, each whole or ignored. Needs no torch.

Every process writes its part into a fresh folder, and the first process seals the folder when all are done. Only then
it removes older checkpoints. A start continues from the whole checkpoint with the highest number, and only if that is
of a run with the same data and settings.
"""

import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.training.identity import Identity
from pipelines.training.reporting import Reporter
from services.errors import ConfigurationError
from services.machine.files import fault_of, read_marker, seal
from services.models.model_folder import CHECKPOINT_MARKER as MARKER

VISIBLE_S = 900.0  # what one machine wrote is seen by the others, at the latest
_LOOK_S = 0.2
_NAME = re.compile(r"checkpoint-(\d+)")


class Checkpoints:
    """Reads and writes checkpoints. Only the first process calls it, except for `folder`."""

    def __init__(
        self,
        root: Path,
        keep: int,
        report: Reporter,
        *,
        identity: Identity | None = None,
        visible_s: float = VISIBLE_S,
    ) -> None:
        self.best: int | None = None  # the step of a checkpoint that is kept however many follow
        self._identity = identity
        self._root = root
        self._keep = keep
        self._report = report
        self._visible_s = visible_s
        self._began_s = time.monotonic()

    def folder(self, step: int) -> Path:
        return self._root / f"checkpoint-{step}"

    def begin(self, step: int) -> None:
        """An empty folder for this step: what an earlier start left there unfinished is removed."""
        self._began_s = time.monotonic()
        self._remove(step)
        self.folder(step).mkdir(parents=True)

    def complete(self, step: int, parts: Mapping[str, int]) -> None:
        """All processes have written: from here on this checkpoint counts, and older ones may go.

        `parts`: the least size of every file that they wrote, in bytes. A mounted bucket shows those of other machines
        only after a while; sealed before that, they would be missing without anybody noticing. Raises
        ConfigurationError when they do not come.
        """
        self._wait_for(self.folder(step), parts)
        about = {"step": step} if self._identity is None else {"step": step, "run": self._identity.note()}
        num_bytes = seal(self.folder(step), MARKER, about)
        self._report.event("checkpoint", step=step, bytes=num_bytes, seconds=round(time.monotonic() - self._began_s, 1))
        self._rotate(step)

    def _wait_for(self, folder: Path, parts: Mapping[str, int]) -> None:
        deadline = time.monotonic() + self._visible_s
        while missing := [name for name, size in parts.items() if _size(folder / name) < size]:
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{folder}: {len(missing)} of {len(parts)} files that other processes wrote are not seen here "
                    f"after {self._visible_s:g} s, such as {missing[0]}: all machines of a run must share its --out"
                )
            time.sleep(_LOOK_S)

    def newest(self) -> int | None:
        """The step of the highest whole checkpoint. Names those above it that are not whole, and removes them.

        Raises ConfigurationError if it is of other data or settings.
        """
        for step in sorted(self._steps(), reverse=True):
            fault = fault_of(self.folder(step), MARKER)
            if not fault:
                self._check_run(step)
                return step
            self._report.say(f"Checkpoint {self.folder(step).name} is not used and removed: {fault}.")
            self._remove(step)
        return None

    def _check_run(self, step: int) -> None:
        if self._identity is None:
            return
        noted = read_marker(self.folder(step) / MARKER).get("run")
        if noted is None:
            self._report.say(f"An older build wrote {self.folder(step).name}: nobody can tell whether its data differ.")
        elif difference := self._identity.difference(noted):
            raise ConfigurationError(
                f"{self._root} holds checkpoints of another training: {difference}. Give another --out, or remove "
                "that folder to train anew"
            )

    def _rotate(self, newest: int) -> None:
        """Keep the newest ones that have their marker. What has none is half-written: from before this one."""
        older = sorted((step for step in self._steps() if step < newest), reverse=True)
        whole = [step for step in older if (self.folder(step) / MARKER).is_file()]
        for step in set(older) - set(whole[: self._keep - 1]) - {self.best}:
            self._remove(step)

    def _remove(self, step: int) -> None:
        """Its marker first: a removal that is cut short leaves nothing that counts."""
        (self.folder(step) / MARKER).unlink(missing_ok=True)
        if self.folder(step).exists():
            shutil.rmtree(self.folder(step))

    def _steps(self) -> list[int]:
        found = (_NAME.fullmatch(path.name) for path in self._root.glob("checkpoint-*"))
        return [int(match.group(1)) for match in found if match]


def _size(path: Path) -> int:
    """-1 for a file that is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
