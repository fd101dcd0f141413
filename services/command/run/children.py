"""Starts, restarts (with backoff) and ends the child processes of `chatserver up`, and prefixes their output."""

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import IO

from services.machine.processes import end_tied, start_tied

QUICK_S = 10.0  # lives shorter than this in a row make the pauses between them longer
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0
FINISH_TIMEOUT_S = 5.0
COLOURS = ("36", "33", "35", "32", "34")


class Log:
    """One stream for all processes. Each line has the name of its process. Thread-safe."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stdout
        self._coloured = self._stream.isatty()
        self._lock = threading.Lock()
        self._colours: dict[str, str] = {}

    def line(self, name: str, text: str) -> None:
        with self._lock:
            colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{name:<8} |\x1b[0m" if self._coloured else f"{name:<8} |"
            try:
                self._stream.write(f"{prefix} {text}\n")
                self._stream.flush()
            except (OSError, ValueError):
                return  # the terminal is gone: the processes go on, and so does their ending


class Child:
    """One process that should be running until it is ended."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Log) -> None:
        self.name = name
        self.num_deaths = 0
        self.last_lines: deque[str] = deque(maxlen=15)
        self._command = command
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None
        self._quick_deaths = 0  # in a row
        self._started_at = 0.0
        self._start_at = 0.0

    @property
    def pid(self) -> int:
        """The id of the running process; 0 when none runs."""
        return self._process.pid if self._process else 0

    def tend(self) -> None:
        """Start the process. If it has died, start it again after a pause. The caller calls this often."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._start_at:
                self._start()
        elif (code := self._process.poll()) is not None:
            self.finish()
            self.num_deaths += 1
            self._quick_deaths = self._quick_deaths + 1 if now - self._started_at < QUICK_S else 0
            pause_s = min(FIRST_PAUSE_S * 2 ** max(self._quick_deaths - 1, 0), LONGEST_PAUSE_S)
            self._start_at = now + pause_s
            self._log.line("up", f"{self.name} ended with {reason(code)}; starting it again in {pause_s:g} s")

    def _start(self) -> None:
        self._process = start_tied(self._command, output=subprocess.PIPE, environment=self._environment)
        self._started_at = time.monotonic()
        assert self._process.stdout is not None
        self._pump = threading.Thread(target=self._read, args=(self._process.stdout,), name=f"log-{self.name}")
        self._pump.start()

    def _read(self, output: IO[bytes]) -> None:
        for raw in output:
            line = raw.decode(errors="replace").rstrip()
            self.last_lines.append(line)
            self._log.line(self.name, line)

    def terminate(self) -> None:
        """Ask the process to end. `gone` says when it has ended; the caller must then call `finish`."""
        if self._process is not None:
            self._process.terminate()

    def gone(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def finish(self) -> None:
        """Kill the process if it still runs, and all processes that it started."""
        process, self._process = self._process, None
        if process is None or self._pump is None:
            return
        end_tied(process, signal.SIGKILL, FINISH_TIMEOUT_S)
        self._pump.join(FINISH_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()


def reason(code: int) -> str:
    """An exit code in words."""
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
