"""The training program in one process per device of this machine, with the exit codes of a single one:

    python -m pipelines.training.launch --nproc-per-node 8 -- --config FILE --data FILE --out DIR

What stands before `--` are torchrun's own options (`--nnodes`, `--node-rank`, `--master-addr` for several machines).
torchrun ends with 1 whatever the processes ended with, and kills them 30 s after a SIGTERM, saved or not: this gives
them the time that a large checkpoint takes, and passes on how they ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

EXIT_FILE = "TRAINING_EXIT_FILE"  # where the first process of this machine writes its exit code
_SAVING_S = "1800"


def leave_exit_code(code: int) -> None:
    """Called by the program at its end, in every process."""
    path = os.environ.get(EXIT_FILE)
    if path and os.environ.get("LOCAL_RANK") == "0":
        Path(path).write_text(str(code))


def main(arguments: list[str]) -> int:
    border = arguments.index("--") if "--" in arguments else 0
    options, program = arguments[:border], arguments[border:]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "pipelines.training", *program[1:]]
    with tempfile.TemporaryDirectory(prefix="chatserver-launch-") as folder:
        path = Path(folder) / "exit"
        environment = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": _SAVING_S, **os.environ, EXIT_FILE: str(path)}
        process = subprocess.Popen(command, env=environment)
        signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))
        code = process.wait()
        return int(path.read_text()) if path.exists() else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
