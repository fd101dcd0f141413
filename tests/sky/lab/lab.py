"""The whole lab: a folder, the node, the API server."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.sky.lab.api_server import ApiServer
from tests.sky.lab.interpreter import base_python, make_python
from tests.sky.lab.slurm import SlurmNode, missing, run


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
    """Everything is in `root`: SKY_LAB_ROOT, or a new folder of /var/tmp."""

    def __init__(self) -> None:
        self.root = _new_root()
        self.home = self.root / "home"
        self.home.mkdir()
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.root, ignore_errors=True)
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


def _new_root() -> Path:
    if given := os.environ.get("SKY_LAB_ROOT"):
        root = Path(given)
        root.mkdir(parents=True)
    else:
        root = Path(tempfile.mkdtemp(prefix="sky-lab-", dir="/var/tmp"))
    root.chmod(0o755)
    return root
