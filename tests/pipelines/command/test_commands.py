"""`chatserver clean run, inspect, stats, diff`: what they print, and how they end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.command.records import before_and_after

RECIPE = """
steps:
  - repair_unicode
  - roles: {min_chars: %d}
  - split_validation: {fraction: 0.4}
"""


def clean(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.command", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


def run(folder: Path, name: str, min_chars: int) -> Path:
    (folder / f"{name}.yaml").write_text(RECIPE % min_chars)
    answer = clean(
        "run", folder / f"{name}.yaml", "--in", folder / "in.jsonl", "--out", folder / name, "--processes", 1
    )
    assert answer.returncode == 0, answer.stderr
    assert "20 records read" in " ".join(answer.stderr.split())
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs over the same 20 records; the second drops the short ones."""
    folder = tmp_path_factory.mktemp("runs")
    with (folder / "in.jsonl").open("w") as file:
        for number in range(20):
            turns = [
                {"from": "human", "value": f"Question {number}?"},
                {"from": "gpt", "value": "word " * (number + 1)},
            ]
            file.write(json.dumps({"id": f"r{number}", "conversations": turns}) + "\n")
    return run(folder, "one", 0), run(folder, "other", 60)


def test_each_record_stands_beside_the_one_it_came_from_in_every_dataset(runs: tuple[Path, Path]) -> None:
    """The validation set begins again at the beginning of the input: its records had no counterpart."""
    pairs = list(before_and_after(runs[0]))
    assert len((runs[0] / "validation.jsonl").read_text().splitlines()) > 3
    assert len(pairs) == 20
    assert all(before is not None and before.id == after.id for before, after in pairs)


def test_inspect_shows_all_in_a_pipe_one_by_id_and_the_rejects(runs: tuple[Path, Path]) -> None:
    shown = clean("inspect", runs[0]).stdout
    assert all(f"Question {number}?" in shown for number in range(20))
    one = clean("inspect", runs[0], "--id", "r7").stdout
    assert one.count("Question 7?") == 2 and "Question 8?" not in one
    rejects = clean("inspect", runs[1], "--rejects").stdout
    assert "roles: too_short" in rejects and "Question 0?" in rejects and "Question 19?" not in rejects


def test_stats_counts_a_run_and_a_file_alike(runs: tuple[Path, Path]) -> None:
    counted = json.loads(clean("stats", runs[0], "--json").stdout)
    assert counted["records"] == 20 and counted["turns_of_record"] == {"2": 20}
    source = json.loads(clean("stats", runs[0].parent / "in.jsonl", "--json").stdout)
    assert source["turns"] == counted["turns"] == 40
    assert "20 records" in clean("stats", runs[0]).stdout


def test_diff_tells_what_only_one_of_two_runs_kept(runs: tuple[Path, Path]) -> None:
    found = json.loads(clean("diff", *runs, "--json").stdout)
    assert found["same"] + len(found["only_one"]) == 20 and "r0" in found["only_one"] and found["only_other"] == []
    assert found["rejects"] == {"one": {}, "other": {"roles: too_short": len(found["only_one"])}}


def test_diff_shows_how_a_record_differs(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for folder, text in ((tmp_path / "a", "one line\nkept"), (tmp_path / "b", "another line\nkept")):
        folder.mkdir()
        turns = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": text}]
        (folder / "data.jsonl").write_text(json.dumps({"id": "x", "conversations": turns}) + "\n")
        for name in ("report.json", "rejects.jsonl"):
            (folder / name).write_bytes((runs[0] / name).read_bytes())
    answer = clean("diff", tmp_path / "a", tmp_path / "b").stdout
    assert "-one line" in answer and "+another line" in answer and "1 differ" in answer


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stats", "nowhere.jsonl"), "no such file"),
        (("inspect", "."), "not the folder of a finished run"),
        (("diff", ".", "."), "not the folder of a"),
        (("run", "nowhere.yaml", "--in", "x", "--out", "y"), "nowhere.yaml"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(arguments: tuple[str, ...], words: str) -> None:
    answer = clean(*arguments)
    assert answer.returncode == 2 and words in answer.stderr and "Traceback" not in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
