"""`chatserver arena` and `chatserver export` as an operator uses them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.places import ROOT
from tests.services.arena.database import made
from tests.services.judgements.people import People


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHATSERVER_STATE_DIR": str(folder), "DATABASE_URL": f"sqlite:///{folder}/chat.db"}
    line = [sys.executable, "-m", "services.command", *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(made(tmp_path))


def test_the_leaderboard_is_a_table_and_says_what_few_votes_mean(people: People, tmp_path: Path) -> None:
    assert "nobody has voted yet" in command(tmp_path, "arena", "leaderboard").stdout
    for number in range(3):
        people.battle(f"b{number}", "Why?", "good", "bad", "left")
    shown = command(tmp_path, "arena", "leaderboard").stdout
    assert "few votes" in shown and "open" in shown and "3 votes" in shown, shown
    board = json.loads(command(tmp_path, "arena", "leaderboard", "--json").stdout)
    assert [each["name"] for each in board["standings"]] == ["one", "two"]


def test_votes_ratings_and_pairs_are_files(people: People, tmp_path: Path) -> None:
    battle = people.battle("b1", "Why?", "good", "bad", "left")
    people.judge(battle.rounds[0].left.id, "up")
    for arguments, said, num in (
        (("arena", "export"), "1 votes in", 1),
        (("export", "--rated", "up"), "1 rated answers in", 1),
        (("export", "--rated", "down"), "0 rated answers in", 0),
        (("export", "--pairs"), "1 pairs in", 1),
    ):
        out = tmp_path / "out.jsonl"
        done = command(tmp_path, *arguments, str(out))
        assert done.returncode == 0 and said in done.stdout, done.stdout + done.stderr
        assert len(out.read_text().splitlines()) == num
    assert "say what to export" in command(tmp_path, "export", str(tmp_path / "none")).stderr
