"""Judgements as training data: what somebody said becomes a record, and what nobody said does not."""

from typing import Any

import orjson
import pytest

from services.conversations.conversations import Conversations
from services.database.database import Database
from services.judgements import records
from services.judgements.records import Export
from tests.services.arena.database import finish
from tests.services.judgements.people import People


@pytest.fixture
def people(database: Database) -> People:
    return People(database)


def pairs(database: Database) -> Export:
    with database.read() as session:
        return records.pairs(session)


def rated(database: Database, rating: str) -> list[list[dict[str, Any]]]:
    with database.read() as session:
        return [record["messages"] for record in records.rated(session, rating).records]


def short(export: Export) -> list[tuple[str, str, str]]:
    return [(one["source"], one["chosen"][0]["content"], one["rejected"][0]["content"]) for one in export.records]


def two_rounds(people: People) -> None:
    people.said("c", "q1", "user", "Why?")
    people.said("c", "a1", "assistant", "So.", "q1")
    people.said("c", "q2", "user", "And how?", "a1")
    people.said("c", "a2", "assistant", "Thus.", "q2", reasoning="Hm.")


# -- rated answers ---------------------------------------------------------------------------------------------------


def test_only_the_rated_answer_of_a_conversation_has_a_label(people: People, database: Database) -> None:
    two_rounds(people)
    people.judge("a2", "up")
    assert rated(database, "up") == [
        [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So."},
            {"role": "user", "content": "And how?"},
            {"role": "assistant", "content": "Thus.", "reasoning": "Hm.", "label": True},
        ]
    ]


def test_ups_and_downs_are_told_apart_and_what_was_taken_back_is_neither(people: People, database: Database) -> None:
    two_rounds(people)
    people.judge("a1", "up")
    people.judge("a1", "down")
    people.judge("a2", "up")
    people.judge("a2", "none")
    assert rated(database, "up") == []
    assert [messages[-1]["label"] for messages in rated(database, "any")] == [False]
    assert rated(database, "down") == rated(database, "any")


@pytest.mark.parametrize("fields", [{"state": "cancelled"}, {"state": "failed"}, {"code": "length"}, {"content": ""}])
def test_an_answer_that_did_not_end_by_itself_teaches_nothing(
    people: People, database: Database, fields: dict[str, str]
) -> None:
    two_rounds(people)
    people.judge("a2", "up")
    people.change("a2", **fields)
    with database.read() as session:
        export = records.rated(session, "up")
    assert export.records == [] and "did not end by itself" in export.said()


def test_the_system_prompt_is_part_of_what_was_read(people: People, database: Database) -> None:
    two_rounds(people)
    Conversations(database).edit("ada", "c", {"system": "Be brief."})
    people.judge("a1", "up")
    assert rated(database, "up")[0][0] == {"role": "system", "content": "Be brief."}


def test_a_deleted_conversation_teaches_nothing(people: People, database: Database) -> None:
    two_rounds(people)
    people.judge("a1", "correction", better="Since it is so.")
    Conversations(database).delete("ada", "c")
    assert pairs(database).records == [] and rated(database, "any") == []


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_a_vote_is_a_pair_and_a_tie_is_none(people: People, database: Database) -> None:
    people.battle("b1", "Why?", "good", "bad", "left")
    people.battle("b2", "How?", "bad", "good", "right")
    for number, vote in enumerate(("tie", "both_bad", None)):
        people.battle(f"n{number}", "What?", "x", "y", vote)
    export = pairs(database)
    assert short(export) == [("vote", "good", "bad"), ("vote", "good", "bad")]
    assert export.records[0]["prompt"] == [{"role": "user", "content": "Why?"}]
    assert not export.left_out


def test_a_vote_for_answers_to_several_questions_is_no_pair(people: People, database: Database) -> None:
    people.battle("b1", "Why?", "x", "y", None)
    battle = people.battles.ask("ada", "b1", 1, "And?")
    for answer in (battle.rounds[1].left, battle.rounds[1].right):
        finish(database, answer.id, answer.id)
    people.battles.vote("ada", "b1", "left")
    export = pairs(database)
    assert export.records == [] and "several questions" in export.said()


def test_a_typed_correction_goes_before_the_answer_that_it_corrects(people: People, database: Database) -> None:
    two_rounds(people)
    people.judge("a2", "correction", better="By itself.")
    people.judge("a1", "flag", reason="rude", better="Because.")
    assert short(pairs(database)) == [("correction", "Because.", "So."), ("correction", "By itself.", "Thus.")]


def versions(people: People) -> None:
    people.said("c", "q", "user", "Why?")
    for name in ("first", "second"):
        people.said("c", name, "assistant", f"The {name}.", "q")


def test_asking_once_more_alone_judges_nothing(people: People, database: Database) -> None:
    versions(people)
    people.said("c", "next", "user", "And?", "second")
    people.judge("second", "up")
    assert pairs(database).records == []


@pytest.mark.parametrize("kept", ["rated up", "gone on with"])
def test_the_kept_version_goes_before_the_one_that_was_rated_down(
    people: People, database: Database, kept: str
) -> None:
    versions(people)
    people.judge("first", "down")
    assert pairs(database).records == [], "nobody has said anything for the second"
    if kept == "rated up":
        people.judge("second", "up")
    else:
        people.said("c", "next", "user", "And?", "second")
    assert short(pairs(database)) == [("versions", "The second.", "The first.")]


@pytest.mark.parametrize("verdict", ["down", "flag"])
def test_a_version_that_was_found_bad_too_is_preferred_to_none(
    people: People, database: Database, verdict: str
) -> None:
    versions(people)
    people.judge("first", "down")
    people.judge("second", verdict)
    people.said("c", "next", "user", "And?", "second")
    assert pairs(database).records == []


def test_a_pair_stands_once_and_two_that_contradict_each_other_not_at_all(people: People, database: Database) -> None:
    people.battle("b1", "Why?", "good", "bad", "left")
    people.battle("b2", "Why?", "bad", "good", "right")
    assert short(pairs(database)) == [("vote", "good", "bad")]
    people.battle("b3", "Why?", "bad", "good", "left")
    export = pairs(database)
    assert export.records == [] and "judged both ways" in export.said()
    people.battle("b4", "Why?", "same", " same", "left")
    assert "two equal answers" in pairs(database).said()


def test_every_pair_and_rating_is_read_by_the_fine_tuning(people: People, database: Database) -> None:
    """The training program's own readers say what the records mean."""
    from pipelines.training.preferences import read_pair
    from pipelines.training.ratings import read_ratings

    two_rounds(people)
    people.judge("a2", "down", better="By itself.")
    people.battle("b1", "Why?", "good", "bad", "left")
    read = [read_pair(orjson.loads(line)) for line in pairs(database).lines()]
    assert [(pair.chosen.text, pair.rejected.text, len(pair.prompt)) for pair in read] == [
        ("By itself.", "Thus.", 3),
        ("good", "bad", 1),
    ]
    with database.read() as session:
        rows = list(records.rated(session, "any").lines())
    (found,) = [rating for line in rows for rating in read_ratings(orjson.loads(line))]
    assert (found.answer.text, found.good, len(found.prompt)) == ("Hm.Thus.", False, 3)
