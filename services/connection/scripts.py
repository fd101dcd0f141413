"""How Lua scripts are loaded and called. Each room keeps its own in `scripts/`.

Each script touches keys of one hash tag only, and all start with `#!lua`. A file whose name begins with `_` is no
script: its text is put behind the first line of each script of its room that opens with `-- include`.
"""

import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float


class Script:
    """One Lua file, named `<room>/<name>`. Called by its SHA-1; sent whole only when the server does not know it
    yet."""

    def __init__(self, place: str) -> None:
        room, name = place.split("/")
        folder = files("services").joinpath(room, "scripts")
        text = folder.joinpath(f"{name}.lua").read_text("utf-8")
        shebang, body = text.split("\n", 1)
        if included := re.match(r"-- include (\w+\.lua)", body):
            body = folder.joinpath(included[1]).read_text("utf-8") + body
        self.name = name
        self.text = f"{shebang}\n{body}"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Any, ...]:
        """The EVALSHA command, for a pipeline. Its caller answers NoScriptError by `load`."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def load(self, redis: "Redis") -> None:
        redis.execute_command("SCRIPT LOAD", self.text)

    def __call__(self, redis: "Redis", keys: Sequence[str], *arguments: Argument) -> Any:
        try:
            return redis.execute_command(*self.command(keys, arguments))
        except NoScriptError:
            return redis.execute_command("EVAL", self.text, len(keys), *keys, *arguments)
