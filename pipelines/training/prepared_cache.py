"""Prepared data of large inputs, kept on this machine by the digest of all that decides them.

A run that goes on after its process ended, and a second run with the same data, need not tokenize again. `train` uses
it. The folder is this user's alone; a few entries are kept.
"""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from pipelines.training.data import Counts, Prepared
from services.errors import ConfigurationError
from services.machine.files import draft, private, publish, write_json
from services.places import ROOT
from services.tokens.tokenization import ChatTokenizer

KEPT = 4
SPARED_S = 3600.0  # an entry that was used so recently may be in use
_CODE = ("services/tokens", "pipelines/training", "pipelines/formats")  # what decides the tokens
_COUNTS = "counts.json"


class PreparedCache:
    """Entries in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str, make: Callable[[Path], Prepared]) -> Prepared:
        """The entry, made in a folder of its own if there is none yet."""
        folder = self._root / key
        private(self._root)
        if not _is_ours(self._root):  # a name that everybody knows, in a folder where everybody may write
            raise ConfigurationError(
                f"{self._root} is another user's, or a link: whoever made it could change what is trained; "
                "remove it, or set TMPDIR to a folder of your own"
            )
        if not (folder / _COUNTS).is_file():
            self._forget_old()
            with draft(self._root, "making-") as made:
                prepared = make(made)
                write_json(made / _COUNTS, {"counts": vars(prepared.counts), "sequences": prepared.num_sequences})
                with contextlib.suppress(OSError):  # another process was faster with the same
                    publish(made, folder)
        folder.touch()
        found = orjson.loads((folder / _COUNTS).read_bytes())
        return Prepared(folder, Counts(**found["counts"]), found["sequences"])

    def _forget_old(self) -> None:
        entries = sorted((path for path in self._root.iterdir() if path.is_dir()), key=_used_s, reverse=True)
        for entry in entries[KEPT - 1 :]:
            if _used_s(entry) < time.time() - SPARED_S:
                shutil.rmtree(entry, ignore_errors=True)


def _is_ours(root: Path) -> bool:
    found = root.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def key_of(tokenizer: ChatTokenizer, facts: Mapping[str, Any]) -> str:
    """The digest of the tokenizer, of our own code, and of `facts`."""
    digest = sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))
    digest.update(tokenizer.decoder().to_str().encode())
    digest.update(orjson.dumps([tokenizer.chat_template, tokenizer.named_tokens(), tokenizer.stop_token_ids]))
    for name in _CODE:
        for path in sorted((ROOT / name).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _used_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
