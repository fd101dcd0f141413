"""A Python that the node's user can run and that has our packages, for the training inside the lab.

On a real cluster the task's `setup` installs them; here that would be gigabytes for each launch. The user of the node
may enter neither our virtual environment nor the Python under it, if they are in somebody's home.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def base_python(user: str = "nobody") -> str | None:
    """A Python of our version that any user can run; None if there is none."""
    found = [
        str(Path(sys.executable).resolve()),
        *(f"{folder}/python{VERSION}" for folder in ("/usr/bin", "/usr/local/bin")),
    ]
    return next((python for python in found if _runs(user, python, "import ssl, ctypes, venv")), None)


def make_python(folder: Path, base: str, user: str) -> str:
    """An environment in `folder` over `base`, with the packages of the running one."""
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib"))
    python = str(folder / "bin/python")
    _see(folder, packages)
    if not _runs(user, python, "import yaml"):  # a folder above them is closed; hard links have another path
        linked = folder / "packages"
        subprocess.run(["cp", "-a", *_links(packages, folder), str(packages), str(linked)], check=True)
        _see(folder, linked)
    return python


def _see(folder: Path, packages: Path) -> None:
    (folder / f"lib/python{VERSION}/site-packages/packages.pth").write_text(f"{packages}\n")


def _links(one: Path, other: Path) -> list[str]:
    return ["-l"] if one.stat().st_dev == other.stat().st_dev else []


def _runs(user: str, python: str, program: str) -> bool:
    command = ["runuser", "-u", user, "--", python, "-c", program]
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0
