"""The generated corpus: the same for the same seed, and what damage.py says is in it."""

import gc
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.corpus import LANGUAGES, conversations, kind, lines, record
from bench.corpus.__main__ import write
from bench.corpus.answers import OPEN
from bench.corpus.damage import DAMAGES, ERROR_MESSAGES, LONG_TURNS, OF_AN_EARLIER, SPECIAL_TOKENS, misread
from bench.corpus.snippets import snippets
from services.models.catalogue import resolve
from services.places import ROOT
from services.tokens.tokenization import load_tokenizer

SAMPLE = ROOT / "pipelines/samples/sharegpt_html.json"
SAMPLE_COMMAND = ("--records", "150", "--seed", "2434")
NUM_RECORDS = 4000
Record = dict[str, Any]


@cache
def corpus() -> tuple[Record, ...]:
    return tuple(islice(conversations(1), NUM_RECORDS))


def of_kind(name: str) -> list[Record]:
    return [item for index, item in enumerate(corpus()) if kind(1, index) == name]


def roles(item: Record) -> list[str]:
    return [turn["from"] for turn in item["conversations"]]


def values(item: Record) -> list[str]:
    return [turn["value"] for turn in item["conversations"]]


def text(item: Record) -> str:
    return "\n".join(values(item))


def alternates(item: Record) -> bool:
    return roles(item) == ["human", "gpt"] * (len(item["conversations"]) // 2)


def words(item: Record) -> Counter[str]:
    return Counter(re.findall(r"\w+", text(item)))


def test_a_record_depends_on_seed_and_index_alone() -> None:
    assert record(1, 1234) == corpus()[1234]
    assert record(2, 1234) != corpus()[1234]


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    """Nothing hangs on the order of a set or on the hash of a string."""
    out = tmp_path / "corpus.jsonl"
    command = [sys.executable, "-m", "bench.corpus", "--records", "300", "--format", "jsonl", "--out", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert out.read_bytes() == b"".join(lines(corpus()[:300], "jsonl"))


def test_the_shipped_sample_is_what_the_documented_command_writes(tmp_path: Path) -> None:
    out = tmp_path / "sample.json"
    subprocess.run([sys.executable, "-m", "bench.corpus", *SAMPLE_COMMAND, "--out", str(out)], cwd=ROOT, check=True)
    assert out.read_bytes() == SAMPLE.read_bytes()
    assert " ".join(SAMPLE_COMMAND) in (ROOT / "bench/corpus/__init__.py").read_text()


def test_the_shipped_sample_holds_every_kind_of_damage() -> None:
    assert {kind(2434, index) for index in range(150)} == {"clean", *dict(DAMAGES)}
    assert SAMPLE.stat().st_size <= 900_000


def test_both_layouts_hold_the_same_records() -> None:
    some = corpus()[:20]
    assert orjson.loads(b"".join(lines(some, "json"))) == list(some)
    assert [orjson.loads(line) for line in lines(some, "jsonl")] == list(some)
    assert orjson.loads(b"".join(lines([], "json"))) == []


def test_a_file_ends_with_the_record_that_reaches_the_size(tmp_path: Path) -> None:
    out = tmp_path / "corpus.json"
    size = write(out, conversations(1), "json", 300_000)
    assert 300_000 <= size == out.stat().st_size < 600_000
    written = orjson.loads(out.read_bytes())
    assert written == list(corpus()[: len(written)])


def test_memory_does_not_grow_with_the_size_of_the_file(tmp_path: Path) -> None:
    record(1, 0), snippets()  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        size = write(tmp_path / "corpus.json", conversations(1), "json", 4_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size / 4


def test_every_record_has_the_shape_of_sharegpt() -> None:
    for item in corpus():
        assert item.keys() <= {"id", "conversations", "model", "plugins"}
        assert re.fullmatch(r"\w{7}", item["id"])
        assert all(turn.keys() == {"from", "value"} for turn in item["conversations"])


def test_a_clean_record_alternates_and_only_answers_are_html() -> None:
    for item in of_kind("clean"):
        assert alternates(item)
        assert all(OPEN in answer for answer in values(item)[1::2])
        assert not any(OPEN in question for question in values(item)[::2])


def test_ids_are_given_once_except_where_that_is_the_damage() -> None:
    others = [item["id"] for index, item in enumerate(corpus()) if kind(1, index) != "duplicate_id"]
    assert len(set(others)) == len(others)


def test_a_conversation_is_of_the_usual_length() -> None:
    num_turns = sorted(len(item["conversations"]) for item in corpus())
    num_bytes = sum(len(orjson.dumps(item)) for item in corpus()) / NUM_RECORDS
    assert 4 <= num_turns[NUM_RECORDS // 2] <= 8
    assert 4_000 <= num_bytes <= 10_000


@pytest.mark.parametrize(("name", "share"), DAMAGES)
def test_a_kind_of_damage_has_its_share(name: str, share: float) -> None:
    expected = share * NUM_RECORDS
    assert abs(len(of_kind(name)) - expected) < 4 * expected**0.5


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("starts_with_gpt", lambda item: roles(item)[0] == "gpt"),
        ("ends_with_human", lambda item: roles(item)[-1] == "human"),
        ("single_turn", lambda item: len(item["conversations"]) == 1),
        ("empty_value", lambda item: any(not re.sub("<[^>]*>", "", value).strip() for value in values(item))),
        ("wrong_alternation", lambda item: any(a == b for a, b in zip(roles(item), roles(item)[1:], strict=False))),
        ("unknown_role", lambda item: set(roles(item)) - {"human", "gpt"}),
        ("plugins", lambda item: item["plugins"]),
        ("error_message", lambda item: any(message in text(item) for message in ERROR_MESSAGES)),
        ("blocked_phrase", lambda item: re.search("AI language model|OpenAI", text(item))),
        ("repetition", lambda item: max(Counter(re.findall(r"\w+", text(item))).values()) >= 40),
        ("personal_data", lambda item: re.search(r"@example\.com\n\+49 30 \d+\nDE\d{20}", text(item))),
        ("special_tokens", lambda item: any(token in values(item)[0] for token in SPECIAL_TOKENS)),
        ("long_conversation", lambda item: len(item["conversations"]) >= LONG_TURNS),
        ("over_long_pair", lambda item: max(map(len, values(item))) > 14_000),
        ("mojibake", lambda item: misread("“Naïve” cafés don’t") in text(item)),
        ("digit_run", lambda item: re.search(r"(\d)\1{8}", text(item))),
    ],
)
def test_a_kind_of_damage_is_what_its_name_says(name: str, shows: Callable[[Record], object]) -> None:
    assert all(shows(item) for item in of_kind(name))


@pytest.mark.model
def test_an_over_long_pair_has_more_than_2048_tokens_in_every_language() -> None:
    tokenizer = load_tokenizer(resolve("smollm2-135m")).decoder()
    for item in of_kind("over_long_pair"):
        longest = re.sub("<[^>]*>", "", max(values(item), key=len))
        assert len(tokenizer.encode(longest).ids) > 2048


def test_an_exact_duplicate_repeats_an_earlier_record_under_another_id() -> None:
    for index, item in enumerate(corpus()):
        if kind(1, index) == "exact_duplicate":
            earlier = [other for other in corpus()[:index] if other["conversations"] == item["conversations"]]
            assert earlier and all(other["id"] != item["id"] for other in earlier)


def test_a_near_duplicate_differs_from_an_earlier_record_by_a_few_words() -> None:
    for index in [index for index in range(NUM_RECORDS) if kind(1, index) == "near_duplicate"][:20]:
        item, candidates = corpus()[index], corpus()[:index]
        alike = [other for other in candidates if roles(other) == roles(item) and _alike(other, item)]
        assert alike and all(other["conversations"] != item["conversations"] for other in alike)


def _alike(one: Record, other: Record) -> bool:
    if abs(len(text(one)) - len(text(other))) > 200:
        return False
    difference = (words(one) - words(other)).total() + (words(other) - words(one)).total()
    return difference <= 2 * (1 + len(text(other)) // 500)


def test_a_duplicate_id_is_that_of_an_earlier_record_with_another_text() -> None:
    for index, item in enumerate(corpus()):
        if kind(1, index) == "duplicate_id":
            (first, *_) = [other for other in corpus()[:index] if other["id"] == item["id"]]
            assert first["conversations"] != item["conversations"]


def test_the_first_record_is_never_a_copy() -> None:
    assert not {kind(seed, 0) for seed in range(500)} & set(OF_AN_EARLIER)


def test_all_languages_structures_and_ten_kinds_of_code_occur() -> None:
    everything = "\n".join(map(text, corpus()))
    assert len(set(re.findall(r"hljs language-(\w+)", everything))) == 10
    for structure in (
        "<table>", "<blockquote>", "<h2>", "<hr>", "<br>", "katex-display", "math-inline", "Copy code", "<li><p>",
        " chars / ", "<ul><li>", "&lt;", "&amp;", "<a href",
        'flex-grow flex-shrink-0">2 / ', "vector<int>", "a<b and c>d",
    ):  # fmt: skip
        assert structure in everything, structure
    for letters in ("weil", "parce que", "porque", "因为", "입니다"):
        assert letters in everything
    assert len(LANGUAGES) == 5


def test_thousands_of_sentences_are_distinct() -> None:
    sentences = Counter(re.findall(r"<li><p>([^<]+?\.)", "\n".join(text(item) for item in of_kind("clean"))))
    assert len(sentences) > 3000


def test_code_keeps_blank_lines_and_indentation_and_is_highlighted() -> None:
    python = next(snippet for snippet in snippets() if snippet.language == "python")
    assert "\n\n\n" in python.block and "\n    " in python.block
    assert '<span class="hljs-keyword">def</span>' in python.block
    inside = re.sub("<[^>]*>", "", python.block).partition("Copy code")[2]
    assert inside == python.code.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
