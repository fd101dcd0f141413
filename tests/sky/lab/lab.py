"""The whole lab: a folder, the node, the API server."""

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import IO

from tests.sky.lab.api_server import ApiServer
from tests.sky.lab.interpreter import base_python, make_python
from tests.sky.lab.slurm import SlurmNode, end_user, missing, run

PARENT = Path("/var/tmp")
PREFIX = "sky-lab-"


def unmet() -> str | None:
    """Why there can be no lab here; None if there can."""
    if os.geteuid() != 0:
        return "the lab starts daemons and makes a unix user: run it as root"
    if absent := missing():
        return f"the lab needs {', '.join(absent)}: `make test-sky` installs them where there is apt-get"
    if base_python() is None:
        return "the lab needs a Python of this version that all users may run, such as /usr/bin/python3"
    return None


class Lab:
    """Everything is in `root`: SKY_LAB_ROOT, or a new folder of /var/tmp. What a killed lab left there goes first."""

    def __init__(self) -> None:
        tidy_leftovers()
        self.root = _new_root()
        self._lock = _locked(self.root)
        assert self._lock is not None
        self.home = self.root / "home"
        self.home.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(tidy, self.root)
            base = base_python()
            assert base is not None, unmet()
            self.slurm = SlurmNode(self.root, self.home, base)
            stack.callback(self.slurm.stop)
            self.python = make_python(self.root / "python", base, self.slurm.user)
            self.shared = self.root / "shared"  # what the machines of a real cluster would mount
            self.shared.mkdir()
            run("chown", self.slurm.user, self.shared)
            self.server = ApiServer(self.home)
            stack.callback(self.server.stop)
            self._stack = stack.pop_all()

    def stop(self) -> None:
        self._stack.close()
        if self._lock is not None:
            self._lock.close()


def tidy_leftovers() -> None:
    for root in PARENT.glob(f"{PREFIX}*"):
        if lock := _locked(root):
            tidy(root)
            lock.close()


def tidy(root: Path) -> None:
    """Whatever still runs with the lab in its environment (what SkyPilot starts outlives it), the user, the folder."""
    mark = f"={root}/".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        pid = int(path.parent.name)
        with contextlib.suppress(OSError):
            if mark in path.read_bytes() and pid != os.getpid():
                os.kill(pid, signal.SIGKILL)
    for home in root.glob("node-home"):
        with contextlib.suppress(KeyError):
            end_user(home.owner())
    for number in root.glob("home/user-id"):  # in which SkyPilot keeps the sockets of its ssh connections
        shutil.rmtree(f"/tmp/sky_ssh_{number.read_text()}", ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)


def _new_root() -> Path:
    if given := os.environ.get("SKY_LAB_ROOT"):
        root = Path(given)
        root.mkdir(parents=True)
    else:
        root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PARENT))
    root.chmod(0o755)
    return root


def _locked(root: Path) -> IO[bytes] | None:
    """The lab's lock, held while its process lives; None if another process has it."""
    file = (root / "lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
