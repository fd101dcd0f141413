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


def cleaned(folder: Path, name: str, min_chars: int) -> subprocess.CompletedProcess[str]:
    (folder / f"{name}.yaml").write_text(RECIPE % min_chars)
    return clean("run", folder / f"{name}.yaml", "--in", folder / "in.jsonl", "--out", folder / name, "--processes", 1)


def run(folder: Path, name: str, min_chars: int, num_records: int = 20) -> Path:
    answer = cleaned(folder, name, min_chars)
    assert answer.returncode == 0, answer.stderr
    assert f"{num_records} records read" in " ".join(answer.stderr.split())
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


def test_records_on_one_line_stand_beside_their_own_originals(tmp_path: Path) -> None:
    """All records of an array on one line have line 1: each was shown beside the first."""
    records = [{"id": name, "conversations": said(f"Question {name}?")} for name in ("alpha", "beta")]
    (tmp_path / "in.jsonl").write_text(json.dumps(records))
    pairs = list(before_and_after(run(tmp_path, "one", 0, num_records=2)))
    assert {after.id: before.id for before, after in pairs if before} == {"alpha": "alpha", "beta": "beta"}


def test_pieces_that_are_cleaned_again_stand_beside_themselves(tmp_path: Path) -> None:
    about = {"source": {"file": "f", "line": 1}, "origin": "a"}
    records = [{"id": f"a_{n}", "conversations": said(f"Question {n}?"), **about} for n in (2, 20, 4)]
    (tmp_path / "in.jsonl").write_text(json.dumps(records))
    pairs = list(before_and_after(run(tmp_path, "one", 0, num_records=3)))
    assert [before.id for before, _ in pairs if before] == [after.id for _, after in pairs]


def said(question: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "An answer."}]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("instruction;input\nName three;please\nName four;please\n", "no record was written"),
        ("", "no record was written"),
        (json.dumps([{"conversations": said("One?")}] * 2)[:-20], "an input is cut or damaged"),
    ],
)
def test_a_run_that_kept_nothing_or_read_a_part_says_why_and_ends_with_1(tmp_path: Path, text: str, told: str) -> None:
    """The status was 0, and the reasons stood in the rejects alone."""
    (tmp_path / "in.jsonl").write_text(text)
    answer = cleaned(tmp_path, "one", 0)
    assert answer.returncode == 1
    assert told in " ".join(answer.stderr.split())
    rejects = [json.loads(line) for line in (tmp_path / "one" / "rejects.jsonl").read_text().splitlines()]
    assert all(f"× read/{line['reason']}" in answer.stderr for line in rejects)


def test_a_run_whose_input_is_not_there_leaves_its_folder_to_the_next(tmp_path: Path) -> None:
    """A typing error in a name claimed the folder: the right name was refused as that of another run."""
    assert cleaned(tmp_path, "one", 0).returncode == 2
    (tmp_path / "in.jsonl").write_text(json.dumps({"conversations": said("One?")}))
    run(tmp_path, "one", 0, num_records=1)
    (tmp_path / "in.jsonl").write_text(json.dumps({"conversations": said("Two, then?")}))
    assert "holds a run with other inputs" in " ".join(cleaned(tmp_path, "one", 0).stderr.split())


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
