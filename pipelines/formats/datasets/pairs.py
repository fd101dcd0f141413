"""Pairs of answers to one prompt, of which people prefer one. `foreign.py` calls it for recipes that keep pairs.

    {"prompt", "chosen", "rejected"}                       TRL, ours: texts, or lists of messages
    {"chosen": [messages], "rejected": [messages]}         UltraFeedback, TRL: whole conversations with one prompt
    {"chosen": "\\n\\nHuman: …\\n\\nAssistant: …", "rejected"}    Anthropic's HH
    {"input": {"messages", "tools"}, "preferred_output", "non_preferred_output"}     OpenAI
    {"system", "question", "chosen", "rejected"}           Orca's pairs; "instruction" and "input" of Alpaca
    {"conversations", "chosen": {turn}, "rejected": {turn}}    ShareGPT

The plain record has the conversation with the answer that is preferred as its `messages`, the other answer as
`rejected`. Fine-tuning compares two last answers to one prompt: two conversations that part earlier are refused. Where
a prompt stands beside whole conversations, its system turn goes before them, and the rest of it must be in them.
"""

from collections.abc import Sequence
from typing import Any

from pipelines.formats.datasets.columns import CONTEXTS, QUESTIONS, SYSTEMS
from pipelines.formats.datasets.text_columns import HUMAN, marked
from pipelines.formats.records import NOTHING, BadRecord
from pipelines.formats.shapes import CALLS, ROLE_NAMES
from pipelines.formats.translation import Format, Record, each, message, parsed, without
from services.errors import shown

TRL = ("chosen", "rejected")
OPENAI = ("preferred_output", "non_preferred_output")
NAMES = (*TRL, *OPENAI)
TURNS = ("conversations", "messages")  # that may hold the prompt

Turns = list[dict[str, Any]]


def recognises(record: Record) -> bool:
    return any(record.get(name) is not None for name in NAMES)


def _translate(record: Record) -> dict[str, Any]:
    names = OPENAI if any(record.get(name) is not None for name in OPENAI) else TRL
    prompt, rest = _of_input(record) if names is OPENAI else _beside(record)
    answers = [_turns(rest.pop(name, None), name) for name in names]
    if _same(prompt[-len(answers[0]) :], answers[0]):
        prompt = prompt[:-1]  # UltraFeedback's `messages` are the preferred conversation once more
    chosen, rejected = (_whole(prompt, answer) for answer in answers)
    if _said(chosen[:-1]) != _said(rejected[:-1]):
        raise BadRecord("other_prompts", "the two answers have different prompts; fine-tuning compares answers to one")
    return {**rest, "messages": chosen, "rejected": rejected[-1]}


def _of_input(record: Record) -> tuple[Turns, dict[str, Any]]:
    """OpenAI's prompt, and what else the record says."""
    given = record.get("input")
    if not isinstance(given, dict):
        raise BadRecord("bad_shape", f"input is {shown(given)}; an object with messages is needed")
    tools = {"tools": given["tools"]} if given.get("tools") not in NOTHING else {}
    others = without(given, "messages", "tools")
    about = {**without(record, "input"), **tools, **({"input": others} if others else {})}
    return _turns(given.get("messages"), "input.messages"), about


def _beside(record: Record) -> tuple[Turns, dict[str, Any]]:
    """The prompt in whichever columns hold it, and what else the record says."""
    system, asked = _first(record, SYSTEMS), _first(record, (*TURNS, *QUESTIONS))
    rest = without(record, system, asked)
    prompt = _turns(record[asked], asked, "user") if asked else []
    context = _first(rest, CONTEXTS) if asked == "instruction" else ""
    if context and prompt:
        prompt[-1]["content"] += f"\nInput:\n{rest.pop(context)}"
    given = record[system] if system else ""
    before = [message("system", given)] if isinstance(given, str) and given.strip() else []
    return (prompt if _same(before, prompt[:1]) else [*before, *prompt]), rest


def _first(record: Record, names: Sequence[str]) -> str:
    return next((name for name in names if record.get(name) not in NOTHING), "")


def _turns(value: Any, name: str, role: str = "assistant") -> Turns:
    """The turns in a text, a turn or a list of turns."""
    found = parsed(value)
    if isinstance(value, str) and not _are_messages(found):
        return _marked(value) or [message(role, value)]
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not found or not all(isinstance(turn, dict) for turn in found):
        raise BadRecord("bad_shape", f"{name} is {shown(value)}; a text or a list of messages is needed")
    return list(found)


def _are_messages(found: Any) -> bool:
    """Whether the JSON in a text is a list of messages; else the text is an answer that is JSON."""
    return isinstance(found, list) and bool(found) and all(map(_is_message, found))


def _is_message(turn: Any) -> bool:
    if not isinstance(turn, dict):
        return False
    return bool({"role", "from"} & turn.keys()) and bool({"content", "value", *CALLS} & turn.keys())


def _marked(text: str) -> Turns:
    """The turns of a text with HH's marks; what only mentions such a mark has none."""
    turns = marked(HUMAN, text) if text.lstrip().startswith("Human:") else []
    return turns if len(turns) > 1 else []


def _whole(prompt: Turns, answer: Turns) -> Turns:
    """The conversation of an answer, which may bring its prompt along. Raises BadRecord where that lacks `prompt`."""
    if len(answer) == 1 or _role(answer[0]) == "assistant":
        return [*prompt, *answer]
    if prompt and _role(prompt[0]) == "system" and _role(answer[0]) != "system":
        return [prompt[0], *_whole(prompt[1:], answer)]
    if not any(_same(prompt, answer[start : start + len(prompt)]) for start in range(len(answer))):
        raise BadRecord("other_prompts", "the prompt is not in the conversations of the answers; leave one of both out")
    return answer


def _role(turn: dict[str, Any]) -> str:
    role = str(turn.get("role", turn.get("from"))).strip().lower()
    return ROLE_NAMES.get(role, role)


def _same(turns: Turns, others: Turns) -> bool:
    """Whether they say the same, in ShareGPT's words or OpenAI's."""
    return list(map(_content, turns)) == list(map(_content, others))


def _content(turn: dict[str, Any]) -> tuple[str, Any, list[Any]]:
    text = turn.get("value" if "value" in turn else "content")
    if isinstance(text, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in text):
        text = "\n".join(part["text"] for part in text)
    calls = [parsed(turn[name]) for name in CALLS if turn.get(name) not in NOTHING]
    return _role(turn), text.strip() if isinstance(text, str) else text or "", calls


def _said(turns: Turns) -> list[dict[str, Any]]:
    """Without what says nothing: Parquet gives every turn every key."""
    return [{name: value for name, value in turn.items() if value not in NOTHING} for turn in turns]


FORMAT = Format("a pair of answers", recognises, each(_translate))
