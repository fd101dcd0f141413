"""Checks this machine: Python, the packages that ChatServer needs, open files, the state folder and its disk."""

import errno
import importlib.metadata
import platform
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from services.doctor.findings import Finding, note, ok, warning, wrong
from services.machine.disk import FEW_BYTES, free_bytes, full_words, fullness, nearest, sizes
from services.places import REQUIREMENTS

FEW_FILES = 4096
FULL = (errno.ENOSPC, errno.EDQUOT)
MUCH_BYTES = 4 * 2**30  # of a state folder
SHOWN_BYTES, SHOWN_FOLDERS = 2**30 // 20, 5
LITTLE_BYTES, TOO_LITTLE_BYTES = 5 * 2**30, 2**30
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^;\s]+)\s*(;.*)?")


def required_packages() -> list[str]:
    """The lines `name==version` of this installation: from the checkout, else from the installed package."""
    if REQUIREMENTS.is_file():
        return REQUIREMENTS.read_text("utf-8").splitlines()
    return importlib.metadata.requires("chatserver") or []


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages(
    read_required: Callable[[], Iterable[str]] = required_packages,
    version_of: Callable[[str], str | None] = installed_version,
) -> Iterator[Finding]:
    """Packages with another version than the tested one. Images install only some packages, on purpose."""
    try:
        pins = [pin for line in read_required() if (pin := _PIN.fullmatch(line.strip())) and not pin[3]]
    except importlib.metadata.PackageNotFoundError:
        yield note(
            "ChatServer is not installed as a package, so the doctor does not know its requirements", "pip install -e ."
        )
        return
    found = {pin[1]: (version_of(pin[1]), pin[2]) for pin in pins}
    others = [f"{name} {has} (not {pin})" for name, (has, pin) in found.items() if has and has.partition("+")[0] != pin]
    missing = [name for name, (has, _) in found.items() if has is None]
    if others:
        yield warning(
            f"packages with another version than the tested one: {', '.join(others)}", "pip install -r requirements.txt"
        )
    if missing:
        yield note(f"not installed: {', '.join(missing)}; fine where nothing that uses them runs")
    if not others:
        yield ok(f"Python {platform.python_version()}, {len(found) - len(missing)} packages as pinned")


def check_open_files(limit: int) -> Iterator[Finding]:
    """Whether a web process may open enough files: it needs one for each browser tab."""
    if 0 <= limit < FEW_FILES:  # -1: unlimited
        yield warning(
            f"`ulimit -n` is {limit}: a web process has a file open for each browser tab, and refuses more",
            "`ulimit -n 65536` before the start, LimitNOFILE= of systemd, or --ulimit of Docker",
        )
    else:
        yield ok(f"`ulimit -n` is {limit if limit >= 0 else 'unlimited'}")


def check_state_folder(folder: Path) -> Iterator[Finding]:
    """Whether the state folder can be written: for caches, logs, checkpoints and the embedded server's data."""
    above = nearest(folder)
    remedy = "set CHATSERVER_STATE_DIR to a folder that this user can write, or change the owner of this one"
    if not above.is_dir():
        yield wrong(f"{above} is a file, so the state folder {folder} cannot be made", remedy)
        return
    try:
        with tempfile.TemporaryFile(dir=above) as file:  # a read-only disk says no only now, and so to root
            file.write(b"doctor")
    except OSError as error:
        if error.errno in FULL:
            yield wrong(fullness(above, few_bytes=free_bytes(above) + 1), "make room there")
            return
        yield wrong(f"the state folder {folder} cannot be written: {error.strerror}", remedy)
    else:
        yield ok(
            f"{folder.resolve()} can be written" + ("" if above == folder.resolve() else "; ChatServer will make it")
        )


def check_state_size(folder: Path) -> Iterator[Finding]:
    """What holds the room that ChatServer takes. Results are people's: nothing deletes them by age."""
    if not folder.is_dir():
        return
    found = {name: size for name, size in sizes(folder).items() if size >= SHOWN_BYTES}
    parts = ", ".join(f"{name} {size / 2**30:.1f} GiB" for name, size in list(found.items())[:SHOWN_FOLDERS])
    total = sum(found.values())
    if total >= MUCH_BYTES:
        yield note(
            f"the state folder {folder.resolve()} holds {total / 2**30:.1f} GiB: {parts}",
            "`chatserver jobs remove ID` deletes a job's uploads, results and checkpoints; `jobs list` shows the jobs",
        )
    elif parts:
        yield ok(f"the state folder holds {parts}")


def check_disk(folder: Path, measure: Callable[[Path], int] = free_bytes) -> Iterator[Finding]:
    above = nearest(folder)
    free = measure(above)
    said = f"{free / 2**30:.1f} GiB are free at {above}"
    remedy = "make room, or set CHATSERVER_STATE_DIR to a folder on a larger disk"
    if free < FEW_BYTES:
        full = full_words(folder.resolve(), free)
        yield wrong(f"{full}. The embedded Redis takes no new question, and ends when nothing is left", remedy)
    elif free < TOO_LITTLE_BYTES:
        yield wrong(f"{said}: uploads and cleaning refuse, and an embedded Redis soon stops writing", remedy)
    elif free < LITTLE_BYTES:
        yield warning(said, remedy)
    else:
        yield ok(said)
