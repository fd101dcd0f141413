"""What an older build left, unpacked as if its machine had lost power a moment ago.

Its calendar moves with ours: whatever it told Redis as a time in milliseconds, of keys that expire and of requests that
have deadlines, is as far from now as it was from the power failure. So the fixtures never grow old.
"""

import json
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.upgrades.append_only import Command, changed, read_commands

FIXTURES = Path(__file__).parent / "build_2026_11_29"
WITH_PATHS = (".json", ".jsonl", ".yaml", ".html")  # files that name others by absolute paths,
SEALED = ("checkpoints", "model")  # and folders in which a digest covers each
NEAR_MS = 60 * 86_400_000  # what is no further from the power failure is a time; kept longest is a job, 30 days
DIGITS = 13  # of a time in milliseconds, until the year 2286


@dataclass(frozen=True)
class OldBuild:
    """`folder` holds `state`, the state folder; `about` says what was asked; `commands` are all that Redis was told."""

    folder: Path
    about: dict[str, Any]
    commands: Sequence[Command]

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def cookie(self, user: str = "asker") -> str:
        return str(self.about["users"][user]["cookie"])

    def question(self, rid: str) -> str:
        return str(self.about["questions"][rid])

    def job(self, name: str) -> str:
        return str(self.about["jobs"][name])

    def told(self, name: bytes, key: str) -> Iterator[Command]:
        """The commands of one name over one key, the oldest first."""
        return (words for words in self.commands if words[0] == name and words[1] == key.encode())

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """What was sent to a queue of Celery."""
        return [json.loads(words[2]) for words in self.told(b"LPUSH", f"chatserver.celery.{queue}")]


def unpack(folder: Path) -> OldBuild:
    """Into a folder that has room for nothing else."""
    about = json.loads((FIXTURES / "about.json").read_text("utf-8"))
    with tarfile.open(FIXTURES / "root.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    (folder / "venv").symlink_to(sys.prefix)  # a half-done training names the interpreter that ran it
    before, after = str(about["root"]).encode(), str(folder).encode()
    for path in filter(_may_name_others, folder.rglob("*")):
        if before in (content := path.read_bytes()):  # of the others a run knows the time, too
            path.write_bytes(content.replace(before, after))
    (journal,) = folder.glob("state/redis/appendonlydir/*.incr.aof")
    shift_ms = int(time.time() * 1000) - about["written_ms"]

    def here_and_now(word: bytes) -> bytes:
        return _moved(word, about["written_ms"], shift_ms).replace(before, after)

    data = changed(journal.read_bytes(), here_and_now)
    journal.write_bytes(data)
    return OldBuild(folder, about, list(read_commands(data)))


def _may_name_others(path: Path) -> bool:
    return path.suffix in WITH_PATHS and not any(folder.name in SEALED for folder in path.parents)


def _moved(word: bytes, written_ms: int, shift_ms: int) -> bytes:
    """A time in milliseconds, moved; any other word as it is."""
    if len(word) == DIGITS and word.isdigit() and abs(int(word) - written_ms) < NEAR_MS:
        return b"%d" % (int(word) + shift_ms)
    return word
