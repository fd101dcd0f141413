"""How FastChat's programs are run and timed; the programs themselves where their environment has been made."""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.corpus import conversations
from bench.corpus.__main__ import write
from bench.forerunner import Forerunner, measured, save_tokenizer
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer

CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def forerunner() -> Forerunner:
    forerunner = Forerunner()
    if not forerunner.installed:
        pytest.skip("no environment of the forerunner; `python -m bench.forerunner FILE` makes it")
    return forerunner


def test_a_program_is_pinned_and_its_memory_and_time_are_told() -> None:
    program = "import os; block = b'x' * 200_000_000; print('cores', os.sched_getaffinity(0))"
    run = measured([sys.executable, "-c", program], [CORE])
    assert f"cores {{{CORE}}}" in run.words
    assert 200_000_000 < run.peak_rss_bytes < 400_000_000
    assert 0 < run.cpu_s < run.wall_s + 0.1


def test_our_own_memory_is_not_counted_as_the_programs() -> None:
    """The kernel starts a child's peak at the size of the process that forked it."""
    ours = b"x" * 300_000_000
    assert measured([sys.executable, "-c", "pass"], [CORE]).peak_rss_bytes < len(ours) / 3


def test_the_time_of_child_processes_counts() -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass"
    run = measured(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"], [CORE]
    )
    assert run.cpu_s > 0.3


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match="ended with 3: no such corpus"):
        measured([sys.executable, "-c", "print('no such corpus'); raise SystemExit(3)"], [CORE])


@pytest.mark.model
def test_the_saved_tokenizer_counts_as_ours_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    saved = AutoTokenizer.from_pretrained(save_tokenizer("smollm2-135m", tmp_path / "tokenizer"))
    ours = load_tokenizer(resolve("smollm2-135m")).decoder()
    for text in ("Two  spaces,\n\ttabs and 12345", "größer", "因为新鲜的食材味道更好"):
        assert saved(text).input_ids == ours.encode(text).ids


@pytest.mark.model
def test_the_three_programs_run_one_after_the_other(forerunner: Forerunner, tmp_path: Path) -> None:
    raw, cleaned, kept, pieces = (tmp_path / name for name in ("raw.json", "cleaned.json", "kept.json", "pieces.json"))
    write(raw, conversations(1), "json", 200_000)
    assert "cnt_blocked_words" in forerunner.clean(raw, cleaned, [CORE]).words
    forerunner.optional_clean(cleaned, kept, [CORE])
    forerunner.split(kept, pieces, [CORE], save_tokenizer("smollm2-135m", tmp_path / "tokenizer"))
    assert all(len(piece["conversations"]) % 2 == 0 for piece in json.loads(pieces.read_text()))
