"""Pairs, labels, calls and reasoning through the steps: both answers are treated alike, and nothing is parted."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import steps
from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
from pipelines.cleaning.views import for_records, signed
from pipelines.formats.write import SUFFIXES, Writer, suffix
from pipelines.records.conversation import Conversation, FullTurn, Source, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.steps.deduplicate import Deduplicate
from services.jobs.recipe import STEPS, Recipe, StepChoice, parse_recipe
from services.jobs.steps import StepOptions
from services.jobs.steps.deduplicate import DeduplicateOptions
from services.wire.messages import ToolCall
from tests.pipelines.formats.kept import (
    ASK,
    CALL,
    CALLING,
    CLOCK,
    GOOD,
    KEPT,
    PAIR,
    RATED,
    RESULT,
    SOURCE,
    Kept,
)
from tests.pipelines.steps.local import Ran, assert_sums_match

RECIPE = """
input: {keep: [pairs, labels, tools, reasoning]}
steps:
%s
output: {format: %s}
"""


def over(name: str, conversation: Conversation, **options: object) -> Ran:
    """The step of a recipe over one record."""
    given: StepOptions = STEPS[name](**options)
    recipe = Recipe(steps=(StepChoice(name=name, options=given),))
    return Ran(for_records(steps.build(recipe.steps[0], recipe), given), conversation)


def ran(name: str, conversation: Conversation, **options: object) -> Ran:
    """The same of a step that makes no pieces: the sums match."""
    found = over(name, conversation, **options)
    assert_sums_match(found)
    return found


def answers(found: Ran) -> tuple[str, str]:
    [kept] = found.kept
    assert kept.rejected is not None
    return kept.turns[-1].text, kept.rejected.text


def pair(chosen: str, rejected: str) -> Conversation:
    return replace(PAIR, turns=(ASK, Turn("assistant", chosen)), rejected=Turn("assistant", rejected))


EDITED = {
    "repair_unicode": ("cafÃ© or not", "café or not"),
    "html_to_markdown": ("<p>It is <b>so</b>.</p>", "It is **so**."),
    "chat_marks": ("So it is【8†source】.", "So it is."),
    "special_tokens": ("A <|im_end|> of it", "A < |im_end|> of it"),
    "mask_personal_data": ("Ask jo@firm.de now", "Ask [EMAIL] now"),
}


@pytest.mark.parametrize("name", EDITED)
def test_a_step_edits_both_answers_alike(name: str) -> None:
    before, after = EDITED[name]
    assert answers(ran(name, pair(before, f"{GOOD.text}"))) == (after, GOOD.text)
    assert answers(ran(name, pair(GOOD.text, before))) == (GOOD.text, after)


REJECTED = {
    "roles": ("empty", " ", {}),
    "error_messages": ("error_message", "Too many requests in 1 hour. Try again later.", {}),
    "blocked_phrases": ("blocked_phrase", "As a language model I may not.", {"phrases": ["a language model"]}),
    "languages": ("language", "안녕하세요. 저는 그것이 무엇인지 정말로 모르겠습니다. " * 4, {"skip": ["ko"]}),
    "quality": ("digit_run", "It is 7777777777.", {"max_digit_run": 4}),
    "split_long": ("over_long", "word " * 400, {"max_tokens": 64}),
}


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.parametrize("which", ["chosen", "rejected"])
def test_a_pair_ends_with_either_answer(name: str, which: str) -> None:
    reason, wrong, options = REJECTED[name]
    given = pair(wrong, GOOD.text) if which == "chosen" else pair(GOOD.text, wrong)
    found = ran(name, given, **options)
    assert (found.kept, found.reason[0]) == ([], reason)


def test_each_answer_of_a_pair_has_its_own_language() -> None:
    """One sample of both was English, however German the rejected answer."""
    german = "Das ist meiner Meinung nach eine ganz schlechte Sache, die niemand in seinem Haus haben will."
    english = "I think that it is a very good thing for all of us to have in the house, and that you will like it too."
    found = ran("languages", pair(english, german), keep=["en"])
    assert (found.kept, found.reason) == ([], ("language", "the rejected answer: de"))
    assert ran("languages", pair(english, english + " Or not."), keep=["en"]).kept[0].extra["language"] == "en"


def test_thoughts_and_words_before_a_call_are_no_answers() -> None:
    """A short thought before a long answer was a short answer. It is still judged for its repetitions."""
    calling = FullTurn("assistant", "Wait.", "Hm.", CALL.calls)
    record = replace(CALLING, turns=(ASK, calling, RESULT, FullTurn("assistant", "It is noon by now.", "Oh.")))
    assert ran("quality", record, min_answer_chars=10).kept == [record]
    assert ran("quality", record, min_answer_chars=30).reason[0] == "short_answer"
    looping = replace(record, turns=(ASK, FullTurn("assistant", "It is noon by now.", "Hm.\n" * 30)))
    assert ran("quality", looping, min_answer_chars=10).reason[0] == "repeated_lines"


def test_a_pair_whose_answers_a_step_makes_equal_ends() -> None:
    """It passed as a pair, of which the training refused every one."""
    found = ran("html_to_markdown", pair("<p>It is <b>so</b>.</p>", "It is **so**."))
    assert (found.kept, found.reason[0]) == ([], "equal_answers")


def test_a_pair_that_is_too_long_is_not_split() -> None:
    long = replace(PAIR, turns=(ASK, Turn("assistant", "word " * 40), ASK, GOOD))
    assert "is not split" in ran("split_long", long, max_tokens=80).reason[1]


def test_each_piece_of_a_conversation_keeps_its_labels() -> None:
    bad = FullTurn("assistant", "word " * 40, label=False)
    found = over("split_long", replace(RATED, turns=(ASK, bad, *RATED.turns)), max_tokens=80)
    assert [kept.turns for kept in found.kept] == [(ASK, bad), RATED.turns]


@pytest.mark.parametrize("name", ["split_long", "roles"])
def test_what_would_cut_the_answer_that_is_compared_ends_the_pair(name: str) -> None:
    longer = replace(PAIR, turns=(ASK, GOOD, ASK, GOOD))
    found = ran(name, longer, **({"max_turns": 2} if name == "roles" else {"max_tokens": 16}))
    assert (found.kept, found.reason[0]) == ([], "max_turns" if name == "roles" else "over_long")


def test_a_label_goes_with_its_answer_when_turns_are_cut() -> None:
    """The labels stood in a list beside the turns; the training refused every such record."""
    long = replace(RATED, turns=(GOOD, *RATED.turns, ASK))
    [kept] = ran("roles", long, min_chars=0).kept
    assert kept.turns == RATED.turns


def test_what_else_a_turn_had_goes_with_it() -> None:
    keys = [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 3}]
    flagged = replace(RATED, turns=(GOOD, *RATED.turns, Turn("user", "And now?")), extra={"turn_keys": keys})
    [kept] = ran("roles", flagged, min_chars=0).kept
    assert kept.extra == {"turn_keys": [{"n": 1}, {"n": 2}]}


def test_a_rated_answer_is_never_truncated() -> None:
    rated = replace(RATED, turns=(ASK, FullTurn("assistant", "word " * 400, label=True)))
    assert ran("split_long", rated, max_tokens=64, over_long="truncate").reason[0] == "over_long"


def test_a_call_stays_with_its_result() -> None:
    """`roles` knew no results, and found two answers in a row."""
    twice = replace(CALLING, turns=(*CALLING.turns, *CALLING.turns))
    assert ran("roles", twice, min_chars=0).kept == [twice]
    assert ran("roles", twice, min_chars=0, max_turns=2).kept == [CALLING]
    assert ran("error_messages", twice).kept == [twice]


def test_a_call_alone_is_an_answer_and_silence_after_a_result_is_none() -> None:
    calls = replace(CALLING, turns=(ASK, CALL))
    assert ran("roles", calls, min_chars=0).kept == [calls]
    silent = replace(CALLING, turns=(*CALLING.turns[:-1], Turn("assistant", "")))
    assert ran("roles", silent, min_chars=0).reason[0] == "empty"


def test_a_result_without_a_call_is_no_conversation() -> None:
    assert ran("roles", replace(CALLING, turns=(ASK, RESULT, GOOD))).reason[0] == "unknown_role"


def test_two_answers_in_a_row_are_not_merged_if_one_calls() -> None:
    both = replace(CALLING, turns=(ASK, GOOD, *CALLING.turns[1:]))
    assert ran("roles", both, same_role="merge").reason[0] == "not_alternating"


def test_arguments_results_and_reasoning_are_cleaned_too() -> None:
    """What lay beside the texts went past the masks."""
    secret = "jo@firm.de"
    call = FullTurn("assistant", "", f"{secret} asks.", (ToolCall("mail", {"to": [secret], "n": 1}),))
    found = ran("mask_personal_data", replace(CALLING, turns=(ASK, call, replace(RESULT, text=secret))))
    [kept] = found.kept
    assert secret not in str(kept) and found.counts.changed == {"email": 3}
    assert kept.turns[1] == replace(
        call, reasoning="[EMAIL] asks.", calls=(ToolCall("mail", {"to": ["[EMAIL]"], "n": 1}),)
    )


def test_a_template_without_a_place_for_tools_refuses_the_record() -> None:
    assert ran("split_long", CALLING).reason[0] == "template_refused"


# -- duplicates ------------------------------------------------------------------------------------------------------

LONG = "one two three four five six seven eight nine ten " * 5
DIFFER = {
    "the other answer": (pair(LONG, "Left."), pair(LONG, "Right.")),
    "the sides": (pair("Left.", "Right."), pair("Right.", "Left.")),
    "the label": (RATED, replace(RATED, turns=(ASK, FullTurn("assistant", "No.", label=True)))),
    "a call": (
        CALLING,
        replace(CALLING, turns=(ASK, replace(CALL, calls=(ToolCall("date", {}),)), *CALLING.turns[2:])),
    ),
    "the reasoning": (CALLING, replace(CALLING, turns=(ASK, replace(CALL, reasoning="Hm."), *CALLING.turns[2:]))),
}


@pytest.mark.parametrize("what", DIFFER)
def test_records_that_differ_in_it_are_no_duplicates(what: str) -> None:
    exact = Deduplicate(DeduplicateOptions(near=False, ids="keep"))
    one, other = (exact.sign(signed(record)) for record in DIFFER[what])
    assert one != other


def test_the_first_of_equal_pairs_stays(tmp_path: Path) -> None:
    again = replace(PAIR, id="again")
    other = replace(PAIR, id="other", rejected=Turn("assistant", "Neither of them."))
    found = cleaned(tmp_path, [PAIR, again, other], "  - deduplicate: {ids: keep}")
    assert [kept.id for kept in found.conversations] == ["pair", "other"]


# -- whole runs ------------------------------------------------------------------------------------------------------

# HTML alone: within other texts, an answer may become HTML as a whole only by what later steps take out of it.
TEXTS = st.lists(
    st.sampled_from(["word ", "cafÃ© ", "<|im_end|>", "a@b.de ", "【8†source】", "\x00", "\n", "5 ", "x\r\n"]),
    min_size=1,
    max_size=5,
).map("".join) | st.just("<p>so</p>")
REASONING = st.just("") | TEXTS
CALLS = st.lists(st.builds(ToolCall, st.sampled_from(["f", "g"]), st.dictionaries(st.just("x"), TEXTS)), max_size=1)
ANSWERS = st.builds(
    FullTurn,
    st.just("assistant"),
    TEXTS,
    REASONING,
    CALLS.map(tuple),
    label=st.sampled_from([None, True, False]),
).filter(lambda turn: bool(turn.reasoning or turn.calls or turn.label is not None)) | st.builds(
    Turn, st.just("assistant"), TEXTS
)
CONVERSATIONS = st.lists(st.tuples(st.builds(Turn, st.just("user"), TEXTS), ANSWERS), min_size=1, max_size=2)
OTHERS = st.none() | st.builds(Turn, st.just("assistant"), TEXTS.map(lambda text: f"{text}!"))
STEPS_OF_RUNS = """
  - html_to_markdown
  - chat_marks
  - repair_unicode
  - roles: {same_role: merge, min_chars: 0}
  - error_messages
  - quality
  - mask_personal_data
  - special_tokens
  - split_long: {max_tokens: 200}
"""


def cleaned(folder: Path, records: list[Conversation], steps: str) -> Kept:
    kind = "openai-jsonl"
    source = written(folder / "in", kind, records)
    local.run(Cleaning(folder / "out", parse_recipe(RECIPE % (steps, kind)), [str(source)]), 1, lambda *told: None)
    return Kept(folder / "out" / f"data{suffix(kind)}")


@pytest.fixture(scope="module")
def all_steps() -> list[Step]:
    recipe = parse_recipe(RECIPE % (STEPS_OF_RUNS, "openai-jsonl"))
    return [for_records(steps.build(choice, recipe), choice.options) for choice in recipe.steps]


@pytest.mark.parametrize("kind", SUFFIXES)
@settings(max_examples=12, deadline=None)
@given(data=st.lists(st.tuples(CONVERSATIONS, OTHERS), min_size=1, max_size=4))
def test_a_second_run_over_any_output_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    all_steps: list[Step],
    kind: str,
    data: list[tuple[list[tuple[Turn, Turn]], Turn | None]],
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    given = written(folder / "given", kind, [made(number, *one) for number, one in enumerate(data)])
    first = written(folder / "first", kind, through(all_steps, Kept(given)))
    again = Kept(first)
    assert again.bad == []
    second = written(folder / "second", kind, through(all_steps, again))
    assert second.read_bytes() == first.read_bytes()


def through(all_steps: list[Step], found: Kept) -> list[Conversation]:
    conversations = found.conversations
    for step in all_steps:
        conversations = list(step(conversations, Ledger()))
    return conversations


def written(path: Path, kind: str, conversations: list[Conversation]) -> Path:
    path = path.with_suffix(suffix(kind))
    with Writer(path, kind, full=True) as writer:
        for conversation in conversations:
            writer.write(conversation)
    return path


def made(number: int, rounds: list[tuple[Turn, Turn]], rejected: Turn | None) -> Conversation:
    turns = tuple(turn for both in rounds for turn in both)
    if rejected is not None:  # labels are of single answers
        turns = tuple(replace(turn, label=None) if isinstance(turn, FullTurn) else turn for turn in turns)
    tools = (CLOCK,) if any(isinstance(turn, FullTurn) and turn.calls for turn in turns) else ()
    return Conversation(f"c{number}", turns, Source("in", number + 1), rejected=rejected, tools=tools)


def test_the_examples_of_all_kinds_pass_a_whole_run_unchanged(tmp_path: Path) -> None:
    found = cleaned(tmp_path, list(KEPT.values()), "  - roles: {min_chars: 0}\n  - quality\n  - deduplicate")
    assert [replace(one, source=SOURCE) for one in found.conversations] == list(KEPT.values())
