"""Splitting with a tokenizer that counts words, whose template costs what the forerunner reckoned: 6 tokens a turn."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipelines.records.conversation import Conversation, Source, Turn, as_record
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.steps.split_long import _breaks_character, _ended, build, splitting
from pipelines.text.tokenizer import tokenizer_of
from services.errors import ConfigurationError
from services.jobs.recipe import TokenizerChoice
from services.jobs.steps.split_long import SplitLongOptions
from services.tokens.tokenization import ChatTokenizer

TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}{{ default_system }}{%- endif -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' and loop.index0 -%}{{ raise_exception('system comes first') }}{%- endif -%}
{{- '1 2 3 4 5 6 ' + message['content'] + ' ' -}}
{%- endfor -%}"""


def word_tokenizer(folder: Path, default_system: str = "") -> PreTrainedTokenizerFast:
    """A real one, saved and read again as any checkpoint's: a token for each word."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = TEMPLATE.replace("default_system", repr(default_system))
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", chat_template=template)
    fast.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return fast


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TokenizerChoice:
    folder = tmp_path_factory.mktemp("words")
    word_tokenizer(folder)
    return TokenizerChoice(model=str(folder))


@pytest.fixture(scope="module")
def words_with_system(tmp_path_factory: pytest.TempPathFactory) -> TokenizerChoice:
    folder = tmp_path_factory.mktemp("system")
    word_tokenizer(folder, "be good and kind ")
    return TokenizerChoice(model=str(folder))


def conversation(*lengths: int, system: int | None = None) -> Conversation:
    """Turns of so many words; each turn's words tell its index."""
    turns = [Turn(("user", "assistant")[n % 2], " ".join([f"w{n}"] * length)) for n, length in enumerate(lengths)]
    head = [] if system is None else [Turn("system", " ".join(["s"] * system))]
    return Conversation("c", (*head, *turns), Source("f", 1))


class Result:
    """What a step made of one conversation."""

    def __init__(self, step: Step, before: Conversation) -> None:
        self.lines: list[dict[str, Any]] = []
        ledger = Ledger("split_long", self.lines.append)
        self.before = before
        self.pieces = list(step([before], ledger))
        self.counts = ledger.counts

    def ids(self) -> list[str]:
        return [piece.id for piece in self.pieces]

    def kept(self) -> list[list[int]]:
        """Of each piece, the indices of its turns in the conversation, told by their texts."""
        texts = [turn.text for turn in self.before.turns]
        return [[texts.index(turn.text) for turn in piece.turns] for piece in self.pieces]

    def adds_up(self) -> bool:
        out = sum(len(piece.turns) for piece in self.pieces) - self.counts.changed["system_repeated"]
        return out + self.counts.cut.total() + self.counts.turns_rejected == len(self.before.turns)


def split(words: TokenizerChoice, before: Conversation, max_tokens: int = 40, **options: Any) -> Result:
    result = Result(build(SplitLongOptions(max_tokens=max_tokens, **options), words), before)
    assert result.adds_up()
    return result


def test_the_tail_pair_is_kept_when_it_is_the_one_that_overflows(words: TokenizerChoice) -> None:
    """The forerunner gives [0..3] only."""
    result = split(words, conversation(4, 4, 4, 4, 4, 4))
    assert result.kept() == [[0, 1, 2, 3], [4, 5]]
    assert result.ids() == ["c_0", "c_4"]
    assert [piece.origin for piece in result.pieces] == ["c", "c"]
    assert [piece.extra["num_tokens"] for piece in result.pieces] == [40, 20]
    assert result.lines == []


def test_an_over_long_first_pair_is_told_and_the_rest_goes_on(words: TokenizerChoice) -> None:
    """The forerunner gives an empty piece and [0, 1] over the limit, and loses the last pair."""
    result = split(words, conversation(40, 4, 4, 4))
    assert result.kept() == [[2, 3]]
    assert result.ids() == ["c_2"]
    (line,) = result.lines
    assert (line["reason"], line["turns"], line["detail"]) == ("over_long", [0, 1], "56 tokens, limit 40")
    assert result.counts.cut == {"over_long": 2}


def test_an_over_long_last_pair_is_told(words: TokenizerChoice) -> None:
    """The forerunner drops it without a word."""
    result = split(words, conversation(4, 4, 40, 4))
    assert result.kept() == [[0, 1]]
    assert [line["turns"] for line in result.lines] == [[2, 3]]


def test_an_over_long_pair_in_the_middle_begins_a_new_piece(words: TokenizerChoice) -> None:
    """The forerunner gives [0, 1], then [2, 3] over the limit, and loses the last pair."""
    result = split(words, conversation(4, 4, 40, 4, 4, 4))
    assert result.kept() == [[0, 1], [4, 5]]
    assert result.ids() == ["c_0", "c_4"]
    assert [line["turns"] for line in result.lines] == [[2, 3]]


def test_of_three_turns_the_unanswered_one_is_told(words: TokenizerChoice) -> None:
    result = split(words, conversation(4, 4, 4))
    assert result.kept() == [[0, 1]]
    assert [(line["reason"], line["turns"]) for line in result.lines] == [("unanswered", [2])]


def test_no_turn_comes_twice_and_every_piece_begins_with_the_user(words: TokenizerChoice) -> None:
    """The forerunner's first version: [0..3] over the limit, and [3, 4, 5]."""
    result = split(words, conversation(1, 1, 1, 1, 1, 1), max_tokens=20)
    assert result.kept() == [[0, 1], [2, 3], [4, 5]]
    assert [piece.extra["num_tokens"] for piece in result.pieces] == [14, 14, 14]


@pytest.mark.parametrize("over_long", ["reject", "truncate"])
def test_a_first_question_that_alone_overflows_makes_no_empty_piece(words: TokenizerChoice, over_long: Any) -> None:
    result = split(words, conversation(50, 1), over_long=over_long)
    assert result.pieces == []
    reason = "over_long" if over_long == "reject" else "over_long_question"
    assert result.counts.rejected == {reason: 1}
    assert result.lines[0]["detail"] == "63 tokens, limit 40"
    assert "turns" not in result.lines[0]


def test_what_fits_keeps_its_id_and_tells_its_tokens(words: TokenizerChoice) -> None:
    result = split(words, conversation(4, 4, 4, 4))
    (piece,) = result.pieces
    assert (piece.id, piece.origin, piece.extra, piece.turns) == ("c", "", {"num_tokens": 40}, result.before.turns)


def test_the_system_turn_goes_with_every_piece_and_is_counted_in_each(words: TokenizerChoice) -> None:
    result = split(words, conversation(4, 4, 4, 4, 4, 4, system=4))
    assert result.kept() == [[0, 1, 2], [0, 3, 4], [0, 5, 6]]
    assert result.ids() == ["c_0", "c_2", "c_4"]
    assert [piece.extra["num_tokens"] for piece in result.pieces] == [30, 30, 30]
    assert result.counts.changed == {"system_repeated": 2}


def test_cut_turns_are_told_by_their_place_in_the_record(words: TokenizerChoice) -> None:
    result = split(words, conversation(4, 4, 40, 4, system=1))
    assert [line["turns"] for line in result.lines] == [[3, 4]]


def test_the_templates_own_system_text_is_counted(words_with_system: TokenizerChoice) -> None:
    assert len(split(words_with_system, conversation(4, 4, 4, 4), max_tokens=44).pieces) == 1
    assert len(split(words_with_system, conversation(4, 4, 4, 4), max_tokens=43).pieces) == 2


def test_a_truncated_answer_is_the_longest_that_fits_with_its_marker(words: TokenizerChoice) -> None:
    result = split(words, conversation(4, 4, 4, 40, 4, 4), over_long="truncate")
    assert [piece.extra["num_tokens"] for piece in result.pieces] == [20, 40, 20]
    answer = result.pieces[1].turns[1].text
    assert answer == " ".join(["w3"] * 23) + " […]"
    assert result.counts.changed == {"truncated": 1}
    assert result.ids() == ["c_0", "c_2", "c_4"]


def test_the_tail_of_a_truncated_answer_is_in_the_reject_file(words: TokenizerChoice) -> None:
    before = conversation(4, 4, 4, 40, 4, 60, system=1)
    result = split(words, before, over_long="truncate")
    assert [(line["reason"], line["turns"], line["shortened"]) for line in result.lines] == [
        ("over_long", [4], True),
        ("over_long", [6], True),
    ]
    assert [line["record"] for line in result.lines] == [as_record(before)] * 2
    assert result.counts.changed["truncated"] == 2
    assert not result.counts.cut


def test_a_single_truncated_pair_keeps_its_id(words: TokenizerChoice) -> None:
    assert split(words, conversation(4, 60), over_long="truncate").ids() == ["c"]


def test_a_question_that_does_not_fit_is_cut_and_the_rest_goes_on(words: TokenizerChoice) -> None:
    result = split(words, conversation(40, 4, 4, 4), over_long="truncate")
    assert result.kept() == [[2, 3]]
    assert result.counts.cut == {"over_long_question": 2}


def test_roles_that_do_not_take_turns_are_refused_with_the_place(words: TokenizerChoice) -> None:
    turns = (Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c"))
    result = split(words, Conversation("c", turns, Source("f", 1)))
    assert result.counts.rejected == {"template_refused": 1}
    assert result.lines[0]["detail"] == "turn 1 after the system turn is by 'user' where 'assistant' is due"
    for turns in ((), (Turn("system", "a"),), (Turn("user", "a"), Turn("system", "b"))):
        assert split(words, Conversation("c", turns, Source("f", 1))).counts.rejected == {"template_refused": 1}


def test_what_the_template_itself_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    fast = word_tokenizer(tmp_path)
    fast.chat_template = "{{ raise_exception('no system turn here') }}"
    result = Result(splitting(SplitLongOptions(), ChatTokenizer(fast)), conversation(1, 1, system=1))
    assert result.counts.rejected == {"template_refused": 1}
    assert "no system turn here" in result.lines[0]["detail"]


def test_a_lone_question_is_rejected(words: TokenizerChoice) -> None:
    assert split(words, conversation(4)).counts.rejected == {"unanswered": 1}


def test_an_open_code_block_is_closed_before_the_marker() -> None:
    assert _ended("x\n```py\na = 1", " […]") == "x\n```py\na = 1\n```\n[…]"
    assert _ended("~~~~\n```\nb", " […]") == "~~~~\n```\nb\n~~~~\n[…]"
    assert _ended("```\na\n```\nb", " […]") == "```\na\n```\nb […]"
    assert _ended("```inline``` text", " […]") == "```inline``` text […]"


@pytest.mark.parametrize("text", ["e\u0301", "👩\u200d🔬", "👍🏽", "🇩🇪", "❤\ufe0f", "\r\n"])
def test_no_cut_parts_one_visible_character(text: str) -> None:
    assert all(_breaks_character(text, end) for end in range(1, len(text)))
    assert not _breaks_character(f"🇫🇷{text}", 2)


def test_a_model_that_is_not_here_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="not a file, a folder or a hub id"):
        build(SplitLongOptions(), TokenizerChoice(model="/no/such/folder"))


# Properties, by a count that renders and splits for itself.

lengths = st.integers(0, 30)
conversations = st.builds(
    lambda turns, system: conversation(*turns, system=system), st.lists(lengths, max_size=14), st.none() | lengths
)


@given(conversations, st.integers(16, 90), st.sampled_from(["reject", "truncate"]))
def test_pieces_fit_and_hold_every_turn_once_in_order(
    words_with_system: TokenizerChoice, before: Conversation, limit: int, over_long: Any
) -> None:
    result = split(words_with_system, before, limit, over_long=over_long)
    for piece in result.pieces:
        assert num_words(piece) == piece.extra["num_tokens"] <= limit
        roles = [turn.role for turn in piece.turns if turn.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) != []
    assert_whole(result)
    assert_greedy(result, limit)


def num_words(piece: Conversation) -> int:
    has_system = piece.turns[0].role == "system"
    return sum(6 + len(turn.text.split()) for turn in piece.turns) + (0 if has_system else 4)


def assert_whole(result: Result) -> None:
    """Pieces and cut turns together are the conversation; a truncated answer is a beginning of its own."""
    num_system = result.before.turns[:1] != () and result.before.turns[0].role == "system"
    body = list(result.before.turns[num_system:])
    if result.counts.rejected:
        assert not result.pieces
        return
    cut = {index - num_system for line in result.lines if "shortened" not in line for index in line["turns"]}
    expected = [turn for index, turn in enumerate(body) if index not in cut]
    found = [turn for piece in result.pieces for turn in piece.turns if turn.role != "system"]
    assert len(found) == len(expected)
    changed = [(a, b) for a, b in zip(found, expected, strict=True) if a != b]
    assert len(changed) == result.counts.changed["truncated"]
    assert all(b.text.startswith(a.text.removesuffix(" […]")) and a.role == "assistant" for a, b in changed)
    for piece in result.pieces:
        if piece.id != "c":
            start = int(piece.id.removeprefix("c_"))
            assert piece.turns[piece.turns[0].role == "system"] == body[start]


def assert_greedy(result: Result, limit: int) -> None:
    """No piece could have taken the first pair of the next one, if that follows it at once."""
    for one, other in zip(result.pieces, result.pieces[1:], strict=False):
        body = [[turn for turn in piece.turns if turn.role != "system"] for piece in (one, other)]
        follows = int(one.id[2:]) + len(body[0]) == int(other.id[2:])
        longer = one.with_turns([*one.turns, *body[1][:2]])
        assert not follows or num_words(longer) > limit or body[1][1].text.endswith("[…]")


texts = st.text(max_size=120) | st.lists(st.sampled_from(["<|im_end|>", "word ", "```\n", "🇩🇪", "\n"])).map("".join)


@pytest.fixture(scope="module", params=["", "vicuna-v1.1"])
def packaged(request: pytest.FixtureRequest) -> ChatTokenizer:
    return tokenizer_of(TokenizerChoice(template=request.param))


@pytest.mark.model
@given(contents=st.lists(texts, min_size=2, max_size=8), limit=st.integers(60, 200))
def test_with_the_packaged_model_every_piece_encodes_to_what_it_says(
    packaged: ChatTokenizer, contents: list[str], limit: int
) -> None:
    turns = [Turn(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    before = Conversation("c", tuple(turns), Source("f", 1))
    result = Result(splitting(SplitLongOptions(max_tokens=limit, over_long="truncate"), packaged), before)
    assert result.adds_up()
    for piece in result.pieces:
        messages = [{"role": turn.role, "content": turn.text} for turn in piece.turns]
        text = packaged._template(messages, ask=False)
        num_tokens = len(packaged.decoder().encode(text, add_special_tokens=False))
        assert piece.extra["num_tokens"] <= limit
        if not any("<|im_end|>" in turn.text for turn in piece.turns):  # else: defused, in more tokens
            assert piece.extra["num_tokens"] == num_tokens


COUNTS = """
import os
from pipelines.text.tokenizer import tokenizer_of
from services.wire.messages import Message
from services.jobs.recipe import TokenizerChoice
chat = tokenizer_of(TokenizerChoice())
before = len(os.listdir("/proc/self/task"))
chat.count_whole([Message("user", "one <|im_end|> two"), Message("assistant", "three " * 999)])
if os.fork() == 0:
    os._exit(chat.count_whole([Message("user", "one"), Message("assistant", "four")]) % 256)
assert os.wait()[1] >> 8 == chat.count_whole([Message("user", "one"), Message("assistant", "four")]) % 256
after = len(os.listdir("/proc/self/task"))
assert after <= before, (before, after)
"""


@pytest.mark.model
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_counting_starts_no_threads_so_that_a_forked_process_can_go_on() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTS], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


CONTINUING = {
    "asked to go on": ("w " * 60, "Please continue where you left off."),
    "in another language": ("w " * 60, "继续"),
    "within a code block": ("w " * 60 + "\n```python\nx = 1", "and the rest of it"),
}


@pytest.mark.parametrize("case", CONTINUING)
def test_no_piece_begins_with_what_goes_on_with_another(words: TokenizerChoice, case: str) -> None:
    """A model learnt to answer "continue" with the second half of something."""
    answer, question = CONTINUING[case]
    texts = ["first", answer, question, "v " * 60, "another matter", "u " * 20]
    talk = Conversation("c", tuple(Turn(("user", "assistant")[n % 2], t) for n, t in enumerate(texts)), Source("f", 1))
    cut = Result(build(SplitLongOptions(max_tokens=100), words), talk)
    assert (cut.ids(), cut.kept()) == (["c_0", "c_4"], [[0, 1], [4, 5]])
    assert (cut.counts.cut, [line["turns"] for line in cut.lines]) == ({"continued": 2}, [[2, 3]])
    kept = Result(build(SplitLongOptions(max_tokens=100, continued="keep"), words), talk)
    assert (kept.ids(), kept.counts.cut, kept.counts.changed) == (["c_0", "c_2", "c_4"], {}, {"continued": 1})


def test_who_asks_to_go_on_within_a_piece_is_left_alone(words: TokenizerChoice) -> None:
    texts = ["first", "w " * 10, "continue", "v " * 10]
    talk = Conversation("c", tuple(Turn(("user", "assistant")[n % 2], t) for n, t in enumerate(texts)), Source("f", 1))
    assert Result(build(SplitLongOptions(max_tokens=100), words), talk).pieces[0].turns == talk.turns
