"""Fine-tuning reads what a cleaning keeps, in every format in which a cleaning writes it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.formats.read import values
from pipelines.formats.records import Parsed
from pipelines.formats.write import SUFFIXES, Writer, suffix
from pipelines.records.conversation import Conversation
from pipelines.text.messages import messages_of
from pipelines.training.preferences import Pair, read_pair
from pipelines.training.ratings import Rated, read_ratings
from pipelines.training.records import Record, read_records
from tests.pipelines.formats.kept import CALLING, CALLS_PREFERRED, PAIR, RATED, RATED_TWICE


def written(folder: Path, kind: str, conversation: Conversation) -> Path:
    path = folder / f"out{suffix(kind)}"
    with Writer(path, kind, full=True) as writer:
        writer.write(conversation)
    return path


def records(path: Path) -> list[object]:
    return [found.value for found in values(str(path)) if isinstance(found, Parsed)]


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("given", [PAIR, CALLS_PREFERRED], ids=lambda given: given.id)
def test_a_pair_is_one_to_dpo(tmp_path: Path, kind: str, given: Conversation) -> None:
    *prompt, chosen = messages_of(given.turns)
    assert given.rejected is not None
    [rejected] = messages_of([given.rejected])
    [record] = records(written(tmp_path, kind, given))
    assert read_pair(record) == Pair(tuple(prompt), chosen, rejected, given.tools)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_each_label_is_a_rating_to_kto(tmp_path: Path, kind: str) -> None:
    ask, bad, again, good = messages_of(RATED_TWICE.turns)
    found = [rated for record in records(written(tmp_path, kind, RATED_TWICE)) for rated in read_ratings(record)]
    assert found == [Rated((ask,), bad, False), Rated((ask, bad, again), good, True)]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_label_stands_beside_what_else_a_turn_had(tmp_path: Path, kind: str) -> None:
    """The reader found keys in the turns and in `turn_keys`, and refused what the cleaning had written."""
    flagged = replace(RATED, extra={"turn_keys": [{"toxic": False}, {"toxic": True}]})
    [record] = records(written(tmp_path, kind, flagged))
    assert [rated.good for rated in read_ratings(record)] == [False]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_calls_and_reasoning_are_learnt(tmp_path: Path, kind: str) -> None:
    [found] = read_records(written(tmp_path, kind, CALLING), Counter())
    assert isinstance(found, Record), found
    assert (found.messages, found.learnt) == (tuple(messages_of(CALLING.turns)), (True, True))
    assert (found.tools, found.identity) == (CALLING.tools, "calling")


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_bad_answer_is_not_learnt(tmp_path: Path, kind: str) -> None:
    [found] = read_records(written(tmp_path, kind, RATED), Counter())
    assert not isinstance(found, Record) and found.reason == "negative_example"
