"""Loads and calls Lua scripts. Each room keeps its scripts in `scripts/`.

Each script touches keys of one hash tag only, and starts with `#!lua`. A file whose name begins with `_` is not a
script: a script includes the text of such files with lines `-- include`. Between the first line and the included texts,
`Script` declares the room's constants as Lua locals, so a constant is spelled once, in Python.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence, Set
from importlib.resources import files
from typing import Any

from redis import Redis
from redis.exceptions import NoScriptError

Argument = str | bytes | int | float
Constant = str | int | Sequence[str] | Set[str]


class Script:
    """One Lua file, named `<room>/<name>`, and its constants.

    A call sends the SHA-1. It sends the whole text only when the server does not know the script yet.
    """

    def __init__(self, place: str, **constants: Constant) -> None:
        room, name = place.split("/")
        folder = files("services").joinpath(room, "scripts")
        text = folder.joinpath(f"{name}.lua").read_text("utf-8")
        shebang, body = text.split("\n", 1)
        included = re.match(r"(-- include \w+\.lua\n)*", body)
        assert included is not None, "it matches the empty text"
        shared = [folder.joinpath(name).read_text("utf-8") for name in re.findall(r"\w+\.lua", included[0])]
        body = "".join([*shared, body])
        self.name = name
        self.text = f"{shebang}\n{_locals(constants)}{body}"
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: Sequence[str], arguments: Sequence[Argument]) -> tuple[Any, ...]:
        """The EVALSHA command, for a pipeline. On NoScriptError the caller calls `load`."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def load(self, redis: "Redis") -> None:
        redis.execute_command("SCRIPT LOAD", self.text)

    def __call__(self, redis: "Redis", keys: Sequence[str], *arguments: Argument) -> Any:
        try:
            return redis.execute_command(*self.command(keys, arguments))
        except NoScriptError:
            return redis.execute_command("EVAL", self.text, len(keys), *keys, *arguments)


def _locals(constants: Mapping[str, Constant]) -> str:
    """The line that declares the constants. It is the same in every process, so a script has one SHA-1 everywhere."""
    if not constants:
        return ""
    return f"local {', '.join(constants)} = {', '.join(map(_lua, constants.values()))}\n"


def _lua(value: Constant) -> str:
    """A text, a number or a list in Lua. A set becomes a table that is true at its members."""
    if isinstance(value, Set):
        return f"{{ {', '.join(f'{name} = true' for name in sorted(value))} }}"
    if isinstance(value, str):
        return f"'{value}'"
    return str(value) if isinstance(value, int) else f"{{ {', '.join(map(_lua, value))} }}"
