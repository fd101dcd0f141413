"""Has the model of a finished training exported to GGUF, if the order or the machine asks for it.

`train` and `__main__` call it, once the model is whole. `export.py` is the program that it starts.
"""

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.training.export import TOLD_EXIT, not_exported, tidy
from pipelines.training.reporting import Reporter
from services.jobs.training import TrainingConfig
from services.machine.processes import end_tied, start_tied
from services.models.exported import PRECISIONS, find_exported
from services.models.model_folder import MODEL

PROGRAM = "pipelines.training.export"
_ENDS_WITHIN_S = 10.0


def export_result(
    folder: Path, config: TrainingConfig, report: Reporter, *, stopped: Callable[[], bool] = lambda: False
) -> None:
    """The training stays finished: where this fails, or SIGTERM ends it, torch serves the model."""
    precision = _wanted(folder, config)
    if not precision or _is_done(folder, config):
        return
    report.say(f"Exporting the model to GGUF ({precision}), for engines on a CPU.")
    code, told = _exported([sys.executable, "-m", PROGRAM, str(folder), "--precision", precision], stopped)
    for line in told:
        report.say(line)
    if code in (0, TOLD_EXIT):
        return
    tidy(folder)
    why = f"the export ended with the code {code}: {told[-1] if told else 'it said nothing'}"
    if code is None:
        why = "the export was stopped"
    report.say(not_exported(folder, f"{why}; `chatserver models export` tries again"))


def _exported(command: list[str], stopped: Callable[[], bool]) -> tuple[int | None, list[str]]:
    """How it ended, and its lines. None: it was stopped."""
    with tempfile.TemporaryFile() as output:
        child = start_tied(command, output=output)
        try:
            while child.poll() is None and not stopped():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
            code = child.poll()
        finally:
            end_tied(child, signal.SIGTERM, _ENDS_WITHIN_S)
        output.seek(0)
        return code, output.read().decode(errors="replace").splitlines()


def _is_done(folder: Path, config: TrainingConfig) -> bool:
    """What was exported or refused before stays, unless a precision is asked for by its name."""
    found = find_exported(folder)
    if found is None or not found.settled:
        return False
    return config.export == "auto" or (found.file is not None and found.precision == config.export)


def _wanted(folder: Path, config: TrainingConfig) -> str:
    """The precision; empty where no GGUF is wanted."""
    if config.export != "auto":
        return "" if config.export == "none" else config.export
    return "" if folder.name != MODEL or _cuda() else PRECISIONS[0]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
