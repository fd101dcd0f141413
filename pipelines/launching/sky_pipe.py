"""Our side of the pipe to SkyPilot, which runs in a process and an environment of its own; see `sky_process.py`.

    pipe = SkyPipe(Environment("sky").python)
    pipe.ask("clusters", names=None)            # {"train-x": "UP"}
    for chunk in pipe.lines("job_log", job=1): ...

`pipelines/launching/sky.py` uses it. The first call starts the process, whose start costs two seconds and 150 MB; it
serves until this process ends or `close`. After a fork, the child starts a process of its own.
"""

import os
import subprocess
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import orjson

from services.errors import Unavailable

PROGRAM = Path(__file__).with_name("sky_process.py")


class SkyError(Exception):
    """What SkyPilot raised, in its own words. `kinds` are the names of its class and of the bases of that."""

    def __init__(self, kinds: list[str], message: str) -> None:
        super().__init__(message)
        self.kinds = kinds
        self.words = message


class SkyPipe:
    """One call at a time; a thread waits for the call of another. `python` gives SkyPilot's interpreter."""

    def __init__(self, python: Callable[[], Path], program: Path = PROGRAM) -> None:
        self._python = python
        self._program = program
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = 0

    def ask(self, call: str, **arguments: Any) -> Any:
        """The call's result. Raises SkyError for what SkyPilot raised, Unavailable if its process died."""
        lines = self.lines(call, **arguments)
        while True:
            try:
                next(lines)
            except StopIteration as end:
                return end.value

    def lines(self, call: str, **arguments: Any) -> Generator[str, None, Any]:
        """What the call streams. Whoever stops early ends SkyPilot's process: the rest would be the next answer."""
        with self._lock:
            process = self._running()
            try:
                reply = self._sent(process, call, arguments)
                while "line" in reply:
                    yield reply["line"]
                    reply = self._reply(process, call)
            except BaseException:
                self.close()
                raise
        if "error" in reply:
            raise SkyError(**reply["error"])
        return reply["result"]

    def close(self) -> None:
        """End the process, whatever it is doing. The next call starts another one."""
        process, self._process = self._process, None
        if process is None or self._starter != os.getpid():
            return
        process.kill()
        process.communicate()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._starter != os.getpid() or self._process.poll() is not None:
            command = [str(self._python()), "-P", str(self._program)]
            # In a session of its own: Ctrl-C ends whoever asks, and by that the process.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            self._starter = os.getpid()
        return self._process

    def _sent(self, process: subprocess.Popen[bytes], call: str, arguments: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        try:
            process.stdin.write(orjson.dumps({"call": call, "arguments": arguments}) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise _death(process, call) from None
        return self._reply(process, call)

    def _reply(self, process: subprocess.Popen[bytes], call: str) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.endswith(b"\n"):
            raise _death(process, call)
        reply: dict[str, Any] = orjson.loads(line)
        return reply


def _death(process: subprocess.Popen[bytes], call: str) -> Unavailable:
    code = process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with {code}"
    return Unavailable(
        f"SkyPilot's process {how} while it worked on `{call}`",
        remedy="what SkyPilot printed before that stands above; the next try starts another process",
    )
