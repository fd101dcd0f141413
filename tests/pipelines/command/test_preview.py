"""`chatserver train preview`: what of the data would be learnt, before anything runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.jobs.training import read_training
from services.jobs.training_jobs import Place, training_spec
from services.places import ROOT

GOOD = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}]}


def preview(folder: Path, lines: list[str], **fields: Any) -> "subprocess.CompletedProcess[str]":
    data = folder / "data.jsonl"
    data.write_text("\n".join(lines) + "\n")
    config = read_training("smollm2-135m", fields)
    spec = training_spec(config, [str(data)], str(folder / "out"), Place())
    command = [sys.executable, "-m", "pipelines.command.preview", json.dumps(spec)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_it_counts_estimates_and_shows_what_is_learnt(tmp_path: Path) -> None:
    answer = preview(tmp_path, [json.dumps(GOOD)] * 3 + ["{"], max_refused=0.5)
    assert answer.returncode == 0, answer.stderr
    assert "3 conversations" in answer.stdout
    assert "1 of 4 records were refused: " in answer.stdout
    assert "About 3 steps of 1,024 tokens" in answer.stdout
    assert "⟦Hi there.<|im_end|>⟧" in answer.stdout
    assert "⟦Hello" not in answer.stdout
    assert not (tmp_path / "out").exists()


def test_rated_answers_are_counted_by_their_label_and_shown_as_what_they_are(tmp_path: Path) -> None:
    rated = [
        {"prompt": f"Question {index}", "completion": f"Answer {index}", "label": index % 3 > 0} for index in range(6)
    ]
    answer = preview(tmp_path, [json.dumps(record) for record in rated], objective="kto")
    assert answer.returncode == 0, answer.stderr
    assert "6 rated answers" in answer.stdout
    assert "4 good and 2 bad answers to 6 prompts" in answer.stdout
    assert "set undesirable_weight between 1.5 and 2." in answer.stdout
    assert "About 9 steps of 1,024 tokens" in answer.stdout
    assert "not: Answer 0<|im_end|>" in answer.stdout
    assert "⟦Answer 1<|im_end|>⟧" in answer.stdout


@pytest.mark.parametrize(
    ("lines", "fields", "said"),
    [
        (["{"], {}, "1 of 1 records (100.0%) cannot be trained on"),
        ([json.dumps({**GOOD, "label": True})], {"objective": "kto"}, "all 1 answers to train on are good"),
        ([json.dumps(GOOD)], {"seq_len": 9000, "tokens_per_step": 9000}, "more than the 8192 positions"),
        ([json.dumps({**GOOD, "messages": GOOD["messages"][1:]})], {}, "the first message is assistant"),
    ],
)
def test_where_the_training_would_end_it_ends_with_the_same_words(
    tmp_path: Path, lines: list[str], fields: dict[str, Any], said: str
) -> None:
    answer = preview(tmp_path, lines, **fields)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
