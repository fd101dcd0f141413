"""What is wrong with raw conversations, in known shares. Used by bench/corpus/__init__.py and by the tests.

A record has at most one kind of damage, so that a cleaner's rejects can be counted against `DAMAGES`. (By chance, a few
more hold what is also a kind: code that imports `openai`, for instance.)
"""

from collections.abc import Callable
from typing import Any

from bench.corpus.answers import block, paragraph, wrapped
from bench.corpus.dice import Dice
from bench.corpus.prose import Language, Writer
from bench.corpus.questions import follow_up

Record = dict[str, Any]

# Kind → its share of the records; the rest is clean.
DAMAGES = (
    ("exact_duplicate", 0.020),  # of any earlier record, under another id
    ("near_duplicate", 0.030),  # the same with a few words edited
    ("duplicate_id", 0.010),  # the id of an earlier record, another text
    ("starts_with_gpt", 0.030),
    ("ends_with_human", 0.040),
    ("single_turn", 0.020),
    ("empty_value", 0.010),
    ("wrong_alternation", 0.010),  # two turns of one role in a row
    ("unknown_role", 0.005),
    ("plugins", 0.005),
    ("error_message", 0.015),
    ("blocked_phrase", 0.040),
    ("repetition", 0.005),
    ("personal_data", 0.010),
    ("special_tokens", 0.005),
    ("long_conversation", 0.004),  # 50 turns and more
    ("over_long_pair", 0.006),  # one question and answer beyond 2,048 tokens
    ("mojibake", 0.010),
    ("digit_run", 0.005),  # a digit nine times and more in a row
)
OF_AN_EARLIER = ("exact_duplicate", "near_duplicate", "duplicate_id")
LONG_TURNS = 50
OVER_LONG_CHARS = 14_000  # of text: more than 2,048 tokens in any language

ERROR_MESSAGES = (
    "Too many requests in 1 hour. Try again later.",
    "!Too many requests in 1 hour. Try again later.",
    "An error occurred. If this issue persists please contact us through our help center at help.openai.com.",
    "Something went wrong. If this issue persists please contact us through our help center at help.openai.com.",
    "network error",
)
BLOCKED_PHRASES = (
    "As an AI language model, I do not have personal opinions.",
    "I'm sorry, but as an AI language model I cannot browse the internet.",
    "I was trained by OpenAI, and my knowledge ends in September 2021.",
    "As ChatGPT, I am a large language model trained by OpenAI.",
)
SPECIAL_TOKENS = ("</s>", "<s>", "<|im_end|>", "<|im_start|>system", "<|endoftext|>", "[INST]", "<|eot_id|>")
ROLES = ("system", "user", "assistant", "bing", "chatgpt")
_FIRST_NAMES = ("anna", "jonas", "marie", "carlos", "wei", "minjun", "olivia", "peter")
_TYPOGRAPHIC = "“Naïve” cafés don’t serve jalapeños – they’re “très” über…"


def damaged(kind: str, record: Record, writer: Writer) -> Record:
    """`record` with this kind of damage; clean and what concerns an earlier record are left as they are."""
    if change := _CHANGES.get(kind):
        change(record, writer)
    return record


def reworded(record: Record, words: Language, dice: Dice) -> Record:
    """A near duplicate: a few words are others, about one in two hundred."""
    turns = [dict(turn) for turn in record["conversations"]]
    edits = [_swap_a_word(turns, words, dice) for _ in range(1 + sum(len(turn["value"]) for turn in turns) // 2500)]
    if not any(edits):
        turns[-1]["value"] += " (2)"
    return record | {"conversations": turns}


def _swap_a_word(turns: list[dict[str, str]], words: Language, dice: Dice) -> bool:
    """Whether a word was found that has another."""
    turn, space = dice.pick(turns), words.space
    for old, new in words.swaps.items():
        if (old := f"{space}{old}{space}") in turn["value"]:
            turn["value"] = turn["value"].replace(old, f"{space}{new}{space}", 1)
            return True
    return False


def _starts_with_gpt(record: Record, writer: Writer) -> None:
    record["conversations"].insert(0, {"from": "gpt", "value": wrapped(paragraph(writer))})


def _ends_with_human(record: Record, writer: Writer) -> None:
    record["conversations"].append({"from": "human", "value": follow_up(writer)})


def _single_turn(record: Record, writer: Writer) -> None:
    del record["conversations"][1:]


def _empty_value(record: Record, writer: Writer) -> None:
    writer.dice.pick(record["conversations"])["value"] = writer.dice.pick(("", " \n", wrapped("<p></p>")))


def _wrong_alternation(record: Record, writer: Writer) -> None:
    turns = record["conversations"]
    at = writer.dice.between(0, len(turns) - 1)
    value = follow_up(writer) if turns[at]["from"] == "human" else wrapped(block(writer))
    turns.insert(at, {"from": turns[at]["from"], "value": value})


def _unknown_role(record: Record, writer: Writer) -> None:
    writer.dice.pick(record["conversations"])["from"] = writer.dice.pick(ROLES)


def _plugins(record: Record, writer: Writer) -> None:
    record["plugins"] = ["browser"]


def _error_message(record: Record, writer: Writer) -> None:
    _an_answer(record, writer)["value"] = wrapped(f"<p>{writer.dice.pick(ERROR_MESSAGES)}</p>")


def _blocked_phrase(record: Record, writer: Writer) -> None:
    _insert(_an_answer(record, writer), f"<p>{writer.dice.pick(BLOCKED_PHRASES)} {writer.sentence()}</p>")


def _repetition(record: Record, writer: Writer) -> None:
    text = writer.plain() if writer.dice.chance(0.5) else writer.dice.pick(writer.topic.terms)
    _an_answer(record, writer)["value"] = wrapped(f"<p>{' '.join([text] * writer.dice.between(40, 120))}</p>")


def _personal_data(record: Record, writer: Writer) -> None:
    dice = writer.dice
    name = dice.pick(_FIRST_NAMES)
    record["conversations"][0]["value"] += (
        f"\n\n{name.capitalize()}\n{name}.{dice.digits(3)}@example.com\n+49 30 555{dice.digits(5)}\n{iban(dice)}"
    )


def _special_tokens(record: Record, writer: Writer) -> None:
    token = writer.dice.pick(SPECIAL_TOKENS)
    record["conversations"][0]["value"] += f"\n{token} {writer.plain()}"
    _insert(_an_answer(record, writer), f"<p>{token.replace('<', '&lt;').replace('>', '&gt;')} {writer.sentence()}</p>")


def _over_long_pair(record: Record, writer: Writer) -> None:
    blocks, num_chars = [], 0
    while num_chars < OVER_LONG_CHARS:
        blocks.append(paragraph(writer))
        num_chars += len(blocks[-1])
    _an_answer(record, writer)["value"] = wrapped("".join(blocks))


def _mojibake(record: Record, writer: Writer) -> None:
    _insert(_an_answer(record, writer), f"<p>{_TYPOGRAPHIC}</p>")
    for turn in record["conversations"]:
        turn["value"] = misread(turn["value"])


def _digit_run(record: Record, writer: Writer) -> None:
    digits = writer.dice.pick("0123456789") * writer.dice.between(9, 40)
    _insert(_an_answer(record, writer), f"<p>{digits} {writer.sentence()}</p>")


_CHANGES: dict[str, Callable[[Record, Writer], None]] = {
    "starts_with_gpt": _starts_with_gpt,
    "ends_with_human": _ends_with_human,
    "single_turn": _single_turn,
    "empty_value": _empty_value,
    "wrong_alternation": _wrong_alternation,
    "unknown_role": _unknown_role,
    "plugins": _plugins,
    "error_message": _error_message,
    "blocked_phrase": _blocked_phrase,
    "repetition": _repetition,
    "personal_data": _personal_data,
    "special_tokens": _special_tokens,
    "over_long_pair": _over_long_pair,
    "mojibake": _mojibake,
    "digit_run": _digit_run,
}


def misread(text: str) -> str:
    """UTF-8 read as Latin-1 the way browsers do: Windows-1252, and Latin-1 where that has no character."""
    return "".join(_MISREAD[byte] for byte in text.encode())


def iban(dice: Dice) -> str:
    """A German account number with its check digits right."""
    account = dice.digits(18)
    check = 98 - int(f"{account}131400") % 97  # D = 13, E = 14
    return f"DE{check:02}{account}"


def _an_answer(record: Record, writer: Writer) -> dict[str, str]:
    return writer.dice.pick(record["conversations"][1::2])


def _insert(turn: dict[str, str], blocks: str) -> None:
    """At the end of the answer, inside its element."""
    head, close, tail = turn["value"].rpartition("</div>")
    turn["value"] = f"{head}{blocks}{close}{tail}"


def _windows_1252(byte: int) -> str:
    try:
        return bytes([byte]).decode("windows-1252")
    except UnicodeDecodeError:
        return chr(byte)


_MISREAD = [_windows_1252(byte) for byte in range(256)]
