"""The supervisor of one run on this machine: `python -m pipelines.launching.local_run FOLDER LOCK_DESCRIPTOR`.

`LocalTarget` starts the supervisor. It detaches from its parent, starts the program of `FOLDER/run.json`, waits, and
writes `exit.json`. It inherits a lock and passes it on to the program; the lock is free once both have ended. On
SIGTERM it tells the program to save and end. If the supervisor dies, the program ends too.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import orjson

from pipelines.launching.local_target import TERM_GRACE_S, Record, processes, signal_all
from services.jobs.training import STOPPED_EXIT
from services.machine import files
from services.machine.processes import end_tied, start_tied


class Supervisor:
    """Supervises the run of one folder, and holds the folder's lock."""

    def __init__(self, folder: Path, lock: int) -> None:
        record = Record.read(folder / "run.json")
        assert record is not None, "it is written before a supervisor is started"
        self._folder = folder
        self._lock = lock
        self._record = record
        self._stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def run(self) -> None:
        """Until the program has ended, with everything that it started."""
        log = self._folder / "train.log"
        _end_line(log)
        with log.open("ab") as output:
            program = start_tied(self._record.command, output=output, descriptors=(self._lock,))
        while program.poll() is None and not self._stopping:
            _wait_a_while(program)
        end_tied(program, signal.SIGTERM, TERM_GRACE_S)
        signal_all(processes(self._record.name), signal.SIGKILL)
        _end_line(log)
        code = program.returncode
        self._tell(STOPPED_EXIT if code and self._stopping else code)  # ended before it could save: nothing was done

    def _tell(self, code: int) -> None:
        told = {"attempt": self._record.attempt, "code": code, "ended_s": time.time()}
        files.write(self._folder / "exit.json", orjson.dumps(told), mode=0o600)


def _wait_a_while(program: "subprocess.Popen[bytes]") -> None:
    try:
        program.wait(0.2)
    except subprocess.TimeoutExpired:
        return


def _end_line(log: Path) -> None:
    """What a killed program left half-written stays a line of its own."""
    with log.open("a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")


def main() -> int:
    folder, lock = Path(sys.argv[1]), int(sys.argv[2])
    supervisor = Supervisor(folder, lock)
    signal.signal(signal.SIGTERM, supervisor.stop)
    if os.fork():
        return 0
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
