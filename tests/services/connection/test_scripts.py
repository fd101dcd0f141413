"""Lua scripts: what Python spells comes to them through the loader, and one SHA-1 names a script everywhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from services.chat.scripts import script
from services.connection.scripts import Script
from services.places import ROOT
from services.wire.keys import GROUP, HANDBACK, VERSION
from services.wire.messages import TERMINAL

SCRIPTS = sorted((ROOT / "services").rglob("*.lua"))
# `handback` is also a field of a request's state, so only the queue's scripts are asked for the consumer of that name.
OF_A_REQUEST = "-- include _request.lua"


def spelled(text: str) -> set[str]:
    """The constants of the wire that the code of a script spells by hand."""
    code = re.sub(r"--.*", "", text)
    found = {"VERSION"} if re.search(rf"\bv = '?{VERSION}\b|:waiting:", code) else set()
    found |= {"GROUP"} if f"'{GROUP}'" in code else set()
    found |= {"HANDBACK"} if f"'{HANDBACK}'" in code and OF_A_REQUEST not in text and "STATE" not in code else set()
    tables = re.findall(r"\{[^{}]*\}", code)
    return found | {"TERMINAL" for table in tables if sum(bool(re.search(rf"\b{k}\b", table)) for k in TERMINAL) > 1}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_a_script_spells_nothing_that_python_spells(path: Path) -> None:
    assert not spelled(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("line", "constant"),
    [
        ("local marker = cjson.encode({ v = 1, kind = 'begin' })", "VERSION"),
        ("redis.call('XCLAIM', REQUESTS, 'workers', wid, 0, id)", "GROUP"),
        ("local GROUP, HANDBACK = GROUP, 'handback'", "HANDBACK"),
        ("local ENDED = { finished = true, failed = true, cancelled = true }", "TERMINAL"),
        ("local ENDED = { 'finished', 'failed' }", "TERMINAL"),
    ],
)
def test_a_constant_spelled_by_hand_is_noticed(line: str, constant: str) -> None:
    assert spelled(f"#!lua\n-- include _queue.lua\n{line}\n") == {constant}
    assert not spelled(f"#!lua\n-- {line}\n")


def test_a_script_is_told_its_constants(redis_client: redis.Redis) -> None:
    told = Script("chat/head", NUMBER=7, TEXT="a b", LIST=["x", "y"], SET=frozenset({"b", "a"}))
    shebang, constants, _ = told.text.split("\n", 2)
    body = "return { NUMBER, TEXT, LIST, SET.a and SET.b and not SET.c }"
    assert redis_client.eval(f"{shebang}\n{constants}\n{body}", 0) == [7, b"a b", [b"x", b"y"], 1]


def test_every_process_knows_a_script_by_the_same_name() -> None:
    """The order of a set differs from process to process."""
    program = "from services.chat.scripts import script; print(script('begin').sha)"
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {script("begin").sha}
