"""Starts child processes that end with their parent, however it ends, and that Ctrl-C in its terminal does not reach.

The embedded server and `chatserver up` use it. A child gets its own session and process group. A watcher in the same
group reads a pipe whose other end the parent holds, so the watcher sees the parent's death, even by SIGKILL.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

# `exec` gives the child the process id that we know, and a group with a member keeps that id from being reused.
_LAUNCH = """
exec 9<&0
(
  read -r _ <&9
  kill -TERM $$
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.5; kill -0 $$ || exit; done
  kill -KILL $$
) >/dev/null 2>&1 &
exec "$@" </dev/null 9<&-
"""


def start_tied(
    command: Sequence[str],
    *,
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child whose stdout and stderr go to `output`. The caller must end it with `end_tied`.

    `descriptors` are inherited by the child and by its watcher; each must be at least 10.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", _LAUNCH, "chatserver", *command],
        stdin=subprocess.PIPE,  # our end of the watcher's pipe; nothing is ever written
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=descriptors,
        start_new_session=True,
    )


def end_tied(process: subprocess.Popen[bytes], how: signal.Signals, timeout_s: float) -> None:
    """Signal a child, wait, and kill the rest of its group. The child may have ended already."""
    process.send_signal(how)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the watcher, and children that the child forgot
    if process.stdin is not None:
        process.stdin.close()


def is_alive(pid: int) -> bool:
    """Whether a process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
