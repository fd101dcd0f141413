"""Has the model of a finished training exported to GGUF, if the order or the machine asks for it.

`train` and `__main__` call it, once the model is whole. `export.py` is the program that it starts.
"""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pipelines.training.reporting import Reporter, Stopped
from services.jobs.training import TrainingConfig
from services.machine.processes import end_tied, start_tied
from services.models.exported import PRECISIONS, find_exported
from services.models.model_folder import MODEL

PROGRAM = "pipelines.training.export"
_ENDS_WITHIN_S = 10.0
_STANDARD_OUTPUT = 1


def export_result(
    folder: Path, config: TrainingConfig, report: Reporter, *, stopped: Callable[[], bool] = lambda: False
) -> None:
    """A failure leaves the training finished: torch serves its model. Raises Stopped when SIGTERM came."""
    precision = _wanted(folder, config)
    found = find_exported(folder) if precision else None
    if not precision or (found and found.file and found.precision == precision):
        return
    report.say(f"Exporting the model to GGUF ({precision}), for engines on a CPU.")
    command = [sys.executable, "-m", PROGRAM, str(folder), "--precision", precision]
    child = start_tied(command, output=_STANDARD_OUTPUT)
    try:
        while not stopped():
            try:
                code = child.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            if code not in (0, 1):  # it has told of those itself
                report.say(
                    f"No GGUF, so torch serves it on a CPU too: the export ended with the code {code}. "
                    f"`chatserver models export` tries again."
                )
            return
    finally:
        end_tied(child, signal.SIGTERM, _ENDS_WITHIN_S)
    raise Stopped("stopped while the model was exported; the model is whole, start it again for the GGUF")


def _wanted(folder: Path, config: TrainingConfig) -> str:
    """The precision; empty where no GGUF is wanted."""
    if config.export != "auto":
        return "" if config.export == "none" else config.export
    return "" if folder.name != MODEL or _cuda() else PRECISIONS[0]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
