"""Questions of an evaluation set are found wherever they hide; what merely resembles them stays."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.steps.decontaminate import build
from services.errors import ConfigurationError
from services.jobs.recipe import parse_recipe
from services.jobs.steps.decontaminate import DecontaminateOptions
from tests.pipelines.steps.local import Ran, assert_sums_match, talk

QUESTION = (
    "A train leaves Ghent at nine and travels at eighty kilometres per hour; when does it reach the coast at Ostend?"
)
ANSWER = "It has sixty-five kilometres to go, so it arrives after about forty-nine minutes."
SHORT = "Who painted the Ghent altarpiece?"


def evaluation(folder: Path, *turns: tuple[str, str], name: str = "exam.jsonl") -> str:
    path = folder / name
    records = [
        {"id": f"q{number}", "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for number, (asked, answer) in enumerate(turns)
    ]
    path.write_bytes(b"\n".join(map(orjson.dumps, records)))
    return str(path)


@pytest.fixture
def exam(tmp_path: Path) -> str:
    return evaluation(tmp_path, (QUESTION, ANSWER), (SHORT, "Van Eyck."))


def test_a_question_planted_in_a_longer_turn_ends_the_record(exam: str) -> None:
    step = build(DecontaminateOptions(against=(exam,)))
    planted = talk("u:hi", f"a:As an exercise, “{QUESTION.upper()}” is a classic. Shall we go on?")
    ran = Ran(step, talk("u:How do trains work?", "a:On rails."), planted)
    assert [kept.turns[0].text for kept in ran.kept] == ["How do trains work?"]
    reason, detail = ran.reason
    assert reason == "contaminated"
    assert detail == (f"q0 of {exam}: a train leaves ghent at nine and travels at eighty kilometres per hour")
    assert_sums_match(ran)


def test_answers_count_as_questions_do_and_system_turns_are_searched(exam: str) -> None:
    step = build(DecontaminateOptions(against=(exam,)))
    assert Ran(step, talk(f"s:Remember: {ANSWER}", "u:hi", "a:ho")).counts.rejected == {"contaminated": 1}


def test_a_run_shorter_than_the_recipe_says_is_no_match(exam: str) -> None:
    twelve = " ".join(QUESTION.split()[:12])
    said = talk("u:" + twelve + " or so", "a:no")
    assert Ran(build(DecontaminateOptions(against=(exam,))), said).kept == [said]
    assert Ran(build(DecontaminateOptions(against=(exam,), ngram=12)), said).kept == []


def test_a_short_text_matches_as_a_whole_or_not_at_all(exam: str) -> None:
    step = build(DecontaminateOptions(against=(exam,)))
    whole = talk("u:Tell me, who painted the Ghent Altarpiece and why", "a:The brothers van Eyck.")
    part = talk("u:Who painted the Ghent town hall", "a:Van Eyck.")
    ran = Ran(step, whole, part)
    assert ran.kept == [part]
    assert ran.reason[1] == f"q1 of {exam}: who painted the ghent altarpiece"


def test_a_text_of_fewer_than_five_words_is_not_looked_for(tmp_path: Path) -> None:
    exam = evaluation(tmp_path, ("What is this?", ANSWER))
    said = talk("u:What is this?", "a:A boat.")
    assert Ran(build(DecontaminateOptions(against=(exam,))), said).kept == [said]


def test_several_sets_are_searched_at_once(tmp_path: Path) -> None:
    exams = (evaluation(tmp_path, (QUESTION, "x")), evaluation(tmp_path, (SHORT, "y"), name="art.jsonl"))
    ran = Ran(build(DecontaminateOptions(against=exams)), talk("u:" + SHORT, "a:z"), talk("u:" + QUESTION, "a:z"))
    assert [line["detail"].split(":")[0] for line in ran.lines] == [f"q0 of {exams[1]}", f"q0 of {exams[0]}"]


WORDS = st.lists(st.sampled_from(["ab", "cd", "ef", "gh"]), min_size=0, max_size=30)


@given(WORDS, WORDS)
def test_it_finds_what_a_search_through_the_words_finds(asked: list[str], said: list[str]) -> None:
    ngram = 6
    with TemporaryDirectory() as folder:
        exam = evaluation(Path(folder), (" ".join(asked), ANSWER))
        step = build(DecontaminateOptions(against=(exam,), ngram=ngram))
    length = min(ngram, len(asked))
    sought = [asked[i : i + length] for i in range(len(asked) - length + 1)] if length >= 5 else []
    shared = any(said[i : i + length] in sought for i in range(len(said) - length + 1))
    assert bool(Ran(step, talk("u:" + " ".join(said), "a:no")).lines) == shared


def test_chance_does_not_contaminate(exam: str) -> None:
    rng = random.Random(5)
    vocabulary = QUESTION.split() + ANSWER.split()
    others = [talk("u:" + " ".join(rng.choices(vocabulary, k=300)), "a:no", id=str(n)) for n in range(200)]
    assert Ran(build(DecontaminateOptions(against=(exam,))), *others).kept == others


def test_a_set_that_cannot_be_read_as_a_whole_stops_the_run(tmp_path: Path) -> None:
    exam = evaluation(tmp_path, (QUESTION, ANSWER))
    with Path(exam).open("ab") as file:
        file.write(b'\n{"question": "not a conversation"}\n')
    with pytest.raises(ConfigurationError, match=r"exam.jsonl, record at line 2: bad_shape"):
        build(DecontaminateOptions(against=(exam,)))
    with pytest.raises(ConfigurationError, match="no text of at least 5 words"):
        build(DecontaminateOptions(against=(evaluation(tmp_path, ("a b", "c")),)))
    with pytest.raises(ConfigurationError, match="nowhere"):
        build(DecontaminateOptions(against=(str(tmp_path / "nowhere.json"),)))


def test_a_recipe_must_name_a_set() -> None:
    with pytest.raises(ConfigurationError, match="against"):
        parse_recipe("steps:\n  - decontaminate\n")
