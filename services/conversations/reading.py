"""Reads a file of conversations: ours, ChatGPT's, or a ZIP of them. A program with an end in time and memory.

    python -m services.conversations.reading FILE RESULT    # RESULT: a line of JSON for each conversation

Whoever uploads a file chooses what it costs to read: 9 MB of empty lists take 340 MiB, and nearly two seconds in which
no other thread of the process runs. So the web process starts this program (`read_apart`), and what it reads itself is
checked and bounded. `read` is the same in this process, for tests and for the program.
"""

import logging
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from services.conversations.chatgpt import is_chatgpt, parse_chatgpt
from services.conversations.drafts import Draft, DraftMessage, check_size, cut_title, parse_ours
from services.conversations.exports import FORMAT, VERSION
from services.errors import InvalidRequest, TooLarge, shown
from services.machine.processes import end_tied, start_tied

log = logging.getLogger("chatserver.import")

MAX_UNPACKED_BYTES = 32 << 20
MAX_MEMORY_BYTES = 1 << 30
MAX_RESULT_BYTES = 512 << 20
MAX_CPU_S = 60
MAX_S = 120.0
ZIP = b"PK\x03\x04"
IN_PARTS = "import its conversations in parts, of 32 MiB each at most"
TOO_MUCH = f"the file took too much time or memory to read; {IN_PARTS}"
UNREADABLE = (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Skipped:
    """A conversation that was not taken."""

    title: str
    reason: str


Found = Draft | Skipped


def read(file: IO[bytes]) -> Iterator[Found]:
    """The conversations of a file. Raises InvalidRequest or TooLarge for a file that holds none."""
    for raw in _records(file):
        try:
            yield drafted(lambda raw=raw: _draft(raw))  # type: ignore[misc]
        except InvalidRequest as error:
            yield Skipped(cut_title(raw.get("title")) if isinstance(raw, Mapping) else "", error.message)


def drafted(parse: Callable[[], Draft]) -> Draft:
    """What `parse` makes of another program's data. Raises InvalidRequest, whatever is wrong with them."""
    try:
        draft = parse()
        check_size(draft)
    except UNREADABLE as error:
        why = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
        raise InvalidRequest(f"it is not built as a conversation is ({why:.200})") from None
    return draft


def read_apart(file: Path) -> Iterator[Found]:
    """As `read`, in a process of its own, which ends before this returns. Raises InvalidRequest, TooLarge.

    `file` stands alone in its folder.
    """
    result = file.with_name("result")
    with file.with_name("output").open("w+b") as output:
        process = start_tied([sys.executable, "-m", __name__, str(file), str(result)], output=output)
        try:
            process.wait(MAX_S)
        except subprocess.TimeoutExpired:
            raise TooLarge(TOO_MUCH) from None
        finally:
            end_tied(process, signal.SIGKILL, 1.0)
        output.seek(0)
        said = output.read(10_000).decode(errors="replace")
    if process.returncode:
        log.warning("the reading of an import ended with %d: %s", process.returncode, said[-2_000:])
        raise TooLarge(TOO_MUCH)
    return _lines(result)


def main(file: str, result: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_RESULT_BYTES, MAX_RESULT_BYTES))
    with Path(file).open("rb") as opened, Path(result).open("wb") as lines:
        try:
            for found in read(opened):
                lines.write(orjson.dumps(_line(found)) + b"\n")
        except InvalidRequest as error:
            lines.truncate(0)
            lines.seek(0)
            lines.write(orjson.dumps({"refused": error.message, "large": isinstance(error, TooLarge)}))


def _line(found: Found) -> dict[str, Any]:
    if isinstance(found, Skipped):
        return {"skipped": [found.title, found.reason]}
    return {"draft": {**vars(found), "messages": [vars(message) for message in found.messages]}}


def _lines(result: Path) -> Iterator[Found]:
    with result.open("rb") as lines:
        for line in lines:
            yield _found(orjson.loads(line))


def _found(line: Mapping[str, Any]) -> Found:
    if "refused" in line:
        raise (TooLarge if line["large"] else InvalidRequest)(line["refused"])
    if "skipped" in line:
        return Skipped(*line["skipped"])
    messages = tuple(DraftMessage(**message) for message in line["draft"]["messages"])
    return Draft(**{**line["draft"], "messages": messages})


def _records(file: IO[bytes]) -> Iterator[Any]:
    """The conversations of a file, undecided."""
    begin = file.read(4)
    file.seek(0)
    if begin == ZIP:
        for data in _unpacked(file):
            yield from _listed(data)
    else:
        yield from _listed(file.read())


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            chosen = [info for info in archive.infolist() if _is_conversations(info.filename)]
            if sum(info.file_size for info in chosen) > MAX_UNPACKED_BYTES:
                raise TooLarge(f"the archive unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; {IN_PARTS}")
            if not chosen:
                raise InvalidRequest("the archive has no conversations.json")
            for info in sorted(chosen, key=lambda each: each.filename):
                with archive.open(info) as opened:
                    yield opened.read(MAX_UNPACKED_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise InvalidRequest(f"the archive cannot be unpacked: {error}") from None


def _is_conversations(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.startswith("conversations") and base.endswith(".json")


def _listed(data: bytes) -> Iterable[Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the file is no JSON: {error}"[:300]) from None
    if isinstance(found, dict) and found.get("format") == FORMAT:
        if found.get("version") != VERSION:
            raise InvalidRequest(f"version {shown(found.get('version'))} of our export is unknown to this build")
        found = found.get("conversations")
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise InvalidRequest("the file holds no conversations; import our export, or ChatGPT's conversations.json")
    return found


def _draft(raw: object) -> Draft:
    if not isinstance(raw, Mapping):
        raise InvalidRequest("it is no conversation")
    return parse_chatgpt(raw) if is_chatgpt(raw) else parse_ours(raw)


if __name__ == "__main__":
    main(*sys.argv[1:3])
