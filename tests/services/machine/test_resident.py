"""The memory of a process with its children, as the system tells it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.machine.resident import resident_bytes

HOLD = "import sys; held = b'x' * 50_000_000; print('holds', flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}])"

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system has no /proc")


def test_the_memory_of_a_process_includes_what_its_children_hold() -> None:
    """A worker's model is in the process of its engine."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdin is not None
        assert parent.stdout.readline() == b"holds\n"
        own = int(Path(f"/proc/{parent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert own < 50_000_000 <= resident_bytes(parent.pid) - own
        parent.stdin.close()


def test_a_process_that_has_ended_holds_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert resident_bytes(ended.pid) == 0
