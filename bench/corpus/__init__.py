"""A raw corpus in the shape of ShareGPT's dumps, made from a seed: what bench/ and the shipped sample clean.

Answers are HTML as ChatGPT's page had it; questions are plain text. A record depends on the seed and its index alone,
so a longer corpus begins with the shorter one. damage.py has the shares of damage, answers.py and questions.py those of
structure.

    python -m bench.corpus --megabytes 50 --seed 1 --out corpus.json

`pipelines/samples/sharegpt_html.json` has every kind of damage and every language:

    python -m bench.corpus --records 150 --seed 2434 --out pipelines/samples/sharegpt_html.json
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Literal

import orjson

from bench.corpus.answers import answer
from bench.corpus.damage import DAMAGES, LONG_TURNS, OF_AN_EARLIER, damaged, reworded
from bench.corpus.dice import Dice
from bench.corpus.prose import Language, Writer, language
from bench.corpus.questions import first_question, follow_up

# Language → its share of the records; the rest is English.
LANGUAGES = (("de", 0.04), ("fr", 0.03), ("es", 0.04), ("zh", 0.05), ("ko", 0.03))
# What the record says of the model; the rest says nothing.
MODELS = (("gpt4", 0.15), ("gpt3.5", 0.25))
# Pairs of question and answer → share of the records; the rest has 9 to 20.
PAIRS = (("1", 0.15), ("2", 0.25), ("3", 0.22), ("4", 0.14), ("5", 0.08), ("6", 0.06), ("8", 0.05))

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_CHARS = 7
_STRIDE = 2_654_435_761  # prime to the number of ids, so every index has its own

Format = Literal["json", "jsonl"]


def conversations(seed: int) -> Iterator[dict[str, Any]]:
    """Raw records without end."""
    return (record(seed, index) for index in count())


def kind(seed: int, index: int) -> str:
    """The damage of this record: a name of DAMAGES, or `clean`."""
    return _nature(seed, index)[0]


def record(seed: int, index: int) -> dict[str, Any]:
    """One raw record."""
    what, tongue = _nature(seed, index)
    dice = Dice(seed, index)
    if what not in OF_AN_EARLIER:
        return _written(_id(seed, index), what, tongue, dice)
    earlier = _earlier(seed, index, dice)
    if what == "duplicate_id":
        return _written(_id(seed, earlier), what, tongue, dice)
    source = record(seed, earlier) | {"id": _id(seed, index)}
    return source if what == "exact_duplicate" else reworded(source, _words(seed, earlier), dice)


def lines(records: Iterable[dict[str, Any]], layout: Format) -> Iterator[bytes]:
    """The records as the bytes of a file, one on a line; as JSON, the brackets too."""
    if layout == "jsonl":
        yield from (orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE) for item in records)
        return
    before = b"[\n"
    for item in records:
        yield before + orjson.dumps(item)
        before = b",\n"
    yield b"\n]\n" if before == b",\n" else b"[]\n"


def _nature(seed: int, index: int) -> tuple[str, str]:
    """Damage and language; known without writing the record."""
    dice = Dice(seed, index, "nature")
    what = dice.weighted(DAMAGES, "clean")
    return "clean" if index == 0 and what in OF_AN_EARLIER else what, dice.weighted(LANGUAGES, "en")


def _words(seed: int, index: int) -> Language:
    return language(_nature(seed, index)[1])


def _earlier(seed: int, index: int, dice: Dice) -> int:
    """The index of an earlier record that is not itself one of OF_AN_EARLIER; 0 is none."""
    earlier = dice.between(0, index - 1)
    while kind(seed, earlier) in OF_AN_EARLIER:
        earlier -= 1
    return earlier


def _written(name: str, what: str, tongue: str, dice: Dice) -> dict[str, Any]:
    writer = Writer(dice, language(tongue))
    return damaged(what, _clean(name, what, writer), writer)


def _clean(name: str, what: str, writer: Writer) -> dict[str, Any]:
    dice = writer.dice
    fresh: dict[str, Any] = {"id": name, "conversations": _turns(writer, _num_pairs(what, dice))}
    if model := dice.weighted(MODELS, ""):
        fresh["model"] = model
    return fresh


def _num_pairs(what: str, dice: Dice) -> int:
    if what == "long_conversation":
        return dice.between(LONG_TURNS // 2, LONG_TURNS)
    chosen = dice.weighted(PAIRS, "")
    return int(chosen) if chosen else dice.between(9, 20)


def _turns(writer: Writer, num_pairs: int) -> list[dict[str, str]]:
    turns = []
    for number in range(num_pairs):
        question = follow_up(writer) if number else first_question(writer)
        turns += [{"from": "human", "value": question}, {"from": "gpt", "value": answer(writer)}]
    return turns


def _id(seed: int, index: int) -> str:
    """Seven letters and digits, as ShareGPT's; different for every index."""
    number = (index * _STRIDE + seed) % len(_ALPHABET) ** _ID_CHARS
    chars = []
    for _ in range(_ID_CHARS):
        number, rest = divmod(number, len(_ALPHABET))
        chars.append(_ALPHABET[rest])
    return "".join(chars)
