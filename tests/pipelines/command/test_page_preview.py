"""The bounds of a preview for the page: of large data it reads the beginning, and says so."""

import json
from pathlib import Path

from pipelines.command.page_preview import preview_of
from services.jobs.training import read_training
from services.jobs.training_jobs import Place, training_spec

GOOD = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}]}


def test_of_a_large_file_the_beginning_is_read_and_the_steps_are_those_of_all(tmp_path: Path) -> None:
    line = json.dumps(GOOD)
    data = tmp_path / "data.jsonl"
    data.write_text(f"{line}\n" * 4_000)
    spec = training_spec(read_training("smollm2-135m", {"epochs": 1}), [str(data)], str(tmp_path / "out"), Place())
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = preview_of(spec, tmp_path / "a")
    part = preview_of(spec, tmp_path / "b", most_bytes=1_000 * (len(line) + 1) + 7)
    assert "4,000 conversations" in "".join(whole.lines) and not any("Only the first" in each for each in whole.lines)
    assert part.lines[0] == "Only the first 25% of the data was read here: the counts are of that part."
    assert "1,000 conversations" in "".join(part.lines)
    assert part.lines[-1] == whole.lines[-1] and part.lines[-1].startswith("About ")
    assert part.problem == "" and part.examples == whole.examples


def test_two_large_files_of_one_name_are_read_each(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        names.append(tmp_path / folder / "data.jsonl")
        names[-1].write_text(f"{json.dumps(GOOD)}\n" * 100)
    (tmp_path / "beginnings").mkdir()
    spec = training_spec(read_training("smollm2-135m"), [str(name) for name in names], str(tmp_path / "out"), Place())
    result = preview_of(spec, tmp_path / "beginnings", most_bytes=100 * (len(json.dumps(GOOD)) + 1))
    assert "100 conversations" in "".join(result.lines)
