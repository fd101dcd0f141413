"""Of any input, every record and every turn is accounted for, by each local step and by all of them in a row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records.conversation import Conversation, Source, Turn, dump, load
from pipelines.steps import (
    Step,
    blocked_phrases,
    error_messages,
    languages,
    mask_personal_data,
    quality,
    repair_unicode,
    roles,
    select,
    split_validation,
)
from services.jobs.steps import known_steps
from services.jobs.steps.blocked_phrases import BlockedPhrasesOptions
from services.jobs.steps.error_messages import ErrorMessagesOptions
from services.jobs.steps.languages import LanguagesOptions
from services.jobs.steps.mask_personal_data import MaskPersonalDataOptions
from services.jobs.steps.quality import QualityOptions
from services.jobs.steps.repair_unicode import RepairUnicodeOptions
from services.jobs.steps.roles import RolesOptions
from services.jobs.steps.select import SelectOptions
from services.jobs.steps.split_validation import SplitValidationOptions
from tests.pipelines.steps.local import Ran, assert_sums_match, talk

STEPS: dict[str, Step] = {
    "select": select.build(SelectOptions(models=("gpt-4",), unknown_model="reject")),
    "repair_unicode": repair_unicode.build(RepairUnicodeOptions(normalization="NFC")),
    "error_messages": error_messages.build(ErrorMessagesOptions()),
    "error_messages, reject": error_messages.build(ErrorMessagesOptions(then="reject")),
    "roles": roles.build(RolesOptions(max_turns=4)),
    "roles, merge": roles.build(RolesOptions(same_role="merge", system="cut", min_chars=0)),
    "blocked_phrases": blocked_phrases.build(BlockedPhrasesOptions(phrases=("an error",), roles=("user", "assistant"))),
    "languages": languages.build(LanguagesOptions(keep=("en",), unknown="reject")),
    "quality": quality.build(QualityOptions(max_digit_run=2, max_line_repeats=2, list_numbering="reject")),
    "mask_personal_data": mask_personal_data.build(MaskPersonalDataOptions()),
    "split_validation": split_validation.build(SplitValidationOptions(fraction=0.5)),
}

PIECES = st.sampled_from(
    [
        *[
            "",
            " ",
            "\n",
            "Network error",
            "an error",
            "```\n",
            "`",
            "$x$",
            "1. one\n",
            "a\r\n",
            "cafÃ©",
            "\x00",
            "\u200b",
        ],
        *["777", "안녕하세요", "x@y.de", "8.8.8.8", "+49 30 1234567", "4111111111111111", "https://a.b/c", "ﬁ"],
        "the man of the house",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=6), max_size=6).map("".join)
ROLES = st.sampled_from(["user", "assistant"] * 4 + ["system", "tool", "", "User"])
CONVERSATIONS = st.builds(
    Conversation,
    id=st.text(max_size=4),
    turns=st.lists(st.builds(Turn, ROLES, TEXTS), max_size=7).map(tuple),
    source=st.just(Source("x", 1)),
    model=st.sampled_from(["", "gpt-4", "other"]),
    extra=st.sampled_from([{}, {"plugins": [1]}, {"plugins": None}]),
)


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None)  # the first use of a step loads what it needs
@given(st.lists(CONVERSATIONS, max_size=5))
def test_every_record_and_turn_is_accounted_for(name: str, given_: list[Conversation]) -> None:
    result = Ran(STEPS[name], *given_)
    assert_sums_match(result)
    assert all(load(dump(kept)) == kept for kept in result.kept)
    written = [line for line in result.lines if "turns" not in line]
    assert len(written) == result.counts.rejected.total()
    assert sum(len(line["turns"]) for line in result.lines if "turns" in line) == result.counts.cut.total()
    assert {line["reason"] for line in result.lines} <= set(known_steps()[name.partition(",")[0]].reasons)


@pytest.mark.parametrize("name", STEPS)
@settings(deadline=None)  # the first use of a step loads what it needs
@given(st.lists(CONVERSATIONS, max_size=4))
def test_a_record_s_fate_is_its_own(name: str, given_: list[Conversation]) -> None:
    """The same alone as among others, and the same the second time."""
    together = Ran(STEPS[name], *given_)
    alone = [Ran(STEPS[name], conversation) for conversation in given_]
    assert together.kept == [kept for one in alone for kept in one.kept]
    assert together.lines == [line for one in alone for line in one.lines]


@settings(deadline=None)
@given(st.lists(CONVERSATIONS, max_size=4))
def test_of_all_steps_in_a_row_the_sums_match_and_conversations_remain(given_: list[Conversation]) -> None:
    kept = given_
    for step in STEPS.values():
        result = Ran(step, *kept)
        assert_sums_match(result)
        kept = result.kept
    for conversation in kept:
        spoken = [turn.role for turn in conversation.turns]
        assert spoken == ["user", "assistant"] * (len(spoken) // 2)
        assert spoken


TYPED = [
    "std::vector<int> v; List<String> x",
    "if a<b and c>d then",
    "line1\nline2\n\n    indented\n\n\n\nand further down",
    "2 / 3 cups of flour is needed",
    "snake_case and 2*3*4",
    "<div>not markup</div> &lt;tag&gt; “quotes” don’t",
    "python\nCopy code\nprint(1)\n\nCopy123 chars / 20 words",
    "```\na\n\n\nb\n```\n``` Copy code",
]


@pytest.mark.parametrize("text", TYPED)
def test_what_people_typed_passes_through_every_step_unchanged(text: str) -> None:
    """FastChat parses it as HTML: types vanish, indentation collapses, words get backslashes."""
    kept = [talk("u:" + text, "a:Here is what I think about the text that you gave me, in some words.", model="gpt-4")]
    for name, step in STEPS.items():
        kept = Ran(step, *kept).kept
        assert [conversation.turns[0].text for conversation in kept] == [text], name
