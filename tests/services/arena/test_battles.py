"""Battles: blind until the vote, one vote, nothing lost or repeated by asking twice."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import func, select, update

from services.arena import battles as battle_module
from services.arena import votes
from services.arena.battles import Battle, Battles
from services.arena.blind import is_blind
from services.arena.contestants import Contestant
from services.arena.tables import BattleRow
from services.conversations.prompt import PromptLimits
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound
from tests.services.arena.database import finish

SIDES = (Contestant("secret-one", {"sampling": {"temperature": 0.3}}), Contestant("secret-two"))


@pytest.fixture
def battles(database: Database) -> Battles:
    return Battles(database, PromptLimits(1_000, 100_000))


def begun(battles: Battles, database: Database, battle_id: str = "b1", user: str = "ada") -> Battle:
    battle = battles.start(user, battle_id, "Why is the sky blue?", SIDES)
    battles.sent(user, battle_id)
    for answer in (battle.rounds[0].left, battle.rounds[0].right):
        finish(database, answer.id, f"because ({answer.id})")
    return battles.get(user, battle_id)


def test_both_answers_are_messages_of_one_conversation_under_one_question(battles: Battles, database: Database) -> None:
    battle = battles.start("ada", "b1", "Why?", SIDES)
    battles.sent("ada", "b1")
    with database.read() as session:
        rows = session.scalars(select(MessageRow).order_by(MessageRow.role.desc(), MessageRow.id)).all()
    assert [(row.role, row.parent_id, row.state, row.model) for row in rows] == [
        ("user", None, "finished", ""),
        ("assistant", rows[0].id, "open", "secret-one"),
        ("assistant", rows[0].id, "open", "secret-two"),
    ]
    assert rows[1].parameters == SIDES[0].parameters
    assert {row.asked_by for row in rows[1:]} == {"ada"}, "the archivist closes rows whose request is their asker's"
    assert is_blind(battle.rounds[0].left.id) and not is_blind("0" * 32)


def test_nothing_tells_the_models_before_the_vote(battles: Battles, database: Database) -> None:
    battle = begun(battles, database)
    before = json.dumps(battle.shown())
    assert "secret" not in before and "temperature" not in before and "because" in before
    after = battles.vote("ada", "b1", "right").shown()
    assert (after["left"]["model"], after["right"]["name"]) == ("secret-one", "secret-two")
    assert after["left"]["name"] == "secret-one (temperature 0.3)"


def test_the_conversation_is_the_users_after_the_vote_and_nobodys_before(battles: Battles, database: Database) -> None:
    battle = begun(battles, database)

    def owners() -> list[str]:
        with database.read() as session:
            return list(session.scalars(select(ConversationRow.owner)))

    assert owners() == ["arena:ada"]
    battles.vote("ada", "b1", "right")
    assert owners() == ["ada"]
    with database.read() as session:
        assert session.scalars(select(ConversationRow.current_id)).all() == [battle.rounds[0].right.id]


def test_a_vote_is_given_once_and_the_same_again_changes_nothing(battles: Battles, database: Database) -> None:
    begun(battles, database)
    assert battles.vote("ada", "b1", "tie").vote == "tie"
    assert battles.vote("ada", "b1", "tie").vote == "tie"
    with pytest.raises(Conflict, match="has the vote tie"):
        battles.vote("ada", "b1", "left")
    with pytest.raises(InvalidRequest, match="both_bad"):
        battles.vote("ada", "b1", "neither")


def test_nobody_votes_on_half_an_answer_or_on_anothers_battle(battles: Battles, database: Database) -> None:
    battle = battles.start("ada", "b1", "Why?", SIDES)
    finish(database, battle.rounds[0].left.id, "because")
    with pytest.raises(Conflict, match="not whole"):
        battles.vote("ada", "b1", "left")
    with pytest.raises(NotFound):
        battles.vote("eve", "b1", "left")
    with pytest.raises(NotFound):
        battles.get("eve", "b1")


def test_a_battle_that_is_sent_again_keeps_its_sides(battles: Battles) -> None:
    first = battles.start("ada", "b1", "Why?", SIDES)
    assert battles.start("ada", "b1", "Why?", (SIDES[1], SIDES[0])) == first
    with pytest.raises(Conflict, match="another one"):
        battles.start("ada", "b1", "How?", SIDES)
    with pytest.raises(NotFound):
        battles.start("eve", "b1", "Why?", SIDES)


def test_the_id_of_a_conversation_is_no_battles(battles: Battles, database: Database) -> None:
    with database.write() as session:
        session.add(ConversationRow(id="b1", owner="ada", title="t", created_ms=1, updated_ms=1))
    with pytest.raises(Conflict, match="is in use"):
        battles.start("ada", "b1", "Why?", SIDES)


def test_a_second_question_follows_each_sides_answer(battles: Battles, database: Database) -> None:
    begun(battles, database)
    battle = battles.ask("ada", "b1", 1, "And at night?")
    first = battle.rounds[0]
    assert battles.ask("ada", "b1", 1, "And at night?") == battle
    assert [each.question for each in battle.rounds] == ["Why is the sky blue?", "And at night?"]
    assert battle.rounds[0].left.content.startswith("because")
    with pytest.raises(Conflict, match="not whole"):
        battles.vote("ada", "b1", "left")
    with pytest.raises(Conflict, match="number 2"):
        battles.ask("ada", "b1", 3, "And?")
    with pytest.raises(Conflict, match="not whole"):
        battles.ask("ada", "b1", 2, "And?")
    left, right = battles.requests("ada", "b1")
    assert [message.content for message in right.messages] == [
        "Why is the sky blue?", f"because ({first.right.id})", "And at night?"
    ]  # fmt: skip
    assert (left.rid, left.user, left.model, left.sampling.temperature) == (
        battle.rounds[1].left.id,
        "ada",
        "secret-one",
        0.3,
    )
    with database.read() as session:
        parents = session.scalars(select(MessageRow.parent_id).where(MessageRow.content == "And at night?"))
        assert sorted(map(str, parents)) == [first.left.id, first.right.id]


def test_what_the_queue_refused_leaves_no_trace(battles: Battles, database: Database) -> None:
    before = begun(battles, database)
    battles.withdraw(battles.ask("ada", "b1", 1, "And at night?"))
    assert battles.get("ada", "b1") == before
    battles.withdraw(before)
    with database.read() as session:
        for table in (BattleRow, ConversationRow, MessageRow):
            assert session.scalar(select(func.count()).select_from(table)) == 0


def test_the_same_refusal_twice_takes_one_question_back(battles: Battles, database: Database) -> None:
    """Two pages asked the same at once; the second refusal took back what had been answered."""
    before = begun(battles, database)
    refused = battles.ask("ada", "b1", 1, "And at night?")
    battles.withdraw(refused)
    battles.withdraw(refused)
    assert battles.get("ada", "b1") == before


def test_a_question_asked_again_after_a_refusal_has_ids_that_redis_does_not_know(battles: Battles) -> None:
    first = battles.start("ada", "b1", "Why?", SIDES)
    battles.withdraw(first)
    again = battles.start("ada", "b1", "Why?", SIDES)
    old, new = first.rounds[0], again.rounds[0]
    assert not {old.left.id, old.right.id} & {new.left.id, new.right.id}


def test_the_archivist_looks_for_the_request_of_whoever_it_was_accepted_for(
    battles: Battles, database: Database
) -> None:
    """Its asker was somebody else before they signed in."""
    battle = battles.start("ada", "b1", "Why?", SIDES)
    with database.write() as session:
        session.execute(update(MessageRow).values(asked_by="anon-1"))
    battles.sent("ada", "b1")
    with database.read() as session:
        assert session.get_one(MessageRow, battle.rounds[0].left.id).asked_by == "ada"


def test_of_two_different_votes_at_once_one_is_refused(
    battles: Battles, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(battles, database)
    let_meet_after(monkeypatch, "_check_vote")
    outcomes = at_once(lambda vote: battles.vote("ada", "b1", vote).vote, "left", "right")
    assert len({"left", "right"} & set(outcomes)) == 1 and sum("has the vote" in each for each in outcomes) == 1
    assert battles.get("ada", "b1").vote in outcomes


def test_the_same_question_twice_at_once_is_one_question(
    battles: Battles, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(battles, database)
    let_meet_after(monkeypatch, "_check_next")
    first, second = at_once(lambda question: battles.ask("ada", "b1", 1, question).rounds[1].left.id, "And?", "And?")
    assert first == second


def let_meet_after(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """Both of two calls pass this check before one of them goes on, unless a lock keeps the second one away."""
    meeting, checked = threading.Barrier(2), getattr(battle_module, check)

    def check_and_meet(*arguments: object) -> None:
        checked(*arguments)
        with suppress(threading.BrokenBarrierError):
            meeting.wait(0.5)

    monkeypatch.setattr(battle_module, check, check_and_meet)


def at_once(call: Callable[[str], str | None], *arguments: str) -> list[str]:
    """What two threads get: a result, or the words of the refusal."""

    def outcome(argument: str) -> str:
        try:
            return str(call(argument))
        except Conflict as error:
            return error.message

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(outcome, arguments))


def test_exported_votes_name_models_and_texts_and_no_voter(battles: Battles, database: Database) -> None:
    battle = begun(battles, database)
    begun(battles, database, "b2", "bob")
    battles.vote("ada", "b1", "left")
    with database.read() as session:
        exported = list(votes.lines(session))
        assert [(game.left, game.vote) for game in votes.games(session)] == [("secret-one (temperature 0.3)", "left")]
    assert [(line["battle"], line["vote"], line["right"]["model"]) for line in exported] == [
        ("b1", "left", "secret-two")
    ]
    assert exported[0]["rounds"][0]["left"] == battle.rounds[0].left.content
    assert "ada" not in json.dumps(exported)
