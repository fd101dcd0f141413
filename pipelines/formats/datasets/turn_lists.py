"""Conversations as lists under other names than ShareGPT's and OpenAI's. `foreign.py` calls it.

WildChat, LMSYS {"conversation": [{"role", "content"}]}     with their flags (toxic, redacted, openai_moderation)
UltraChat {"data": [question, answer, …]}                   Capybara {"conversation": [{"input", "output"}]}
Belle {"conversations": [{"human", "assistant"}]}           text-generation-webui {"internal": [[question, answer]]}
Vertex {"contents": [{"role", "parts": [{"text"}]}]}        lists as JSON in a text, as files with columns hold them
"""

from collections.abc import Callable, Iterator
from typing import Any

from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, each, message, objects, parsed, without
from services.errors import shown

NAMES = ("conversation", "conversations", "messages", "items", "data", "contents", "internal", "turns", "dialog")
ROUNDS = (("input", "output"), ("human", "assistant"), ("user", "assistant"), ("instruction", "output"))
IDS = ("conversation_hash", "conversation_id", "prompt_id")
WEBUI_BEGIN = "<|BEGIN-VISIBLE-CHAT|>"  # the question before a greeting that nobody asked for


def _named(record: Record, fits: Callable[[list[Any]], bool]) -> str:
    """The key of the first list that is of a kind."""
    return next((name for name in NAMES if isinstance(found := parsed(record.get(name)), list) and fits(found)), "")


def _about(record: Record, name: str) -> dict[str, Any]:
    own = next((key for key in IDS if isinstance(record.get(key), str)), "") if record.get("id") is None else ""
    about = without(record, name, own)
    return {**about, "id": record[own]} if own else about


# -- turns with a role -----------------------------------------------------------------------------------------------


def _are_turns(found: list[Any]) -> bool:
    return bool(found) and isinstance(found[0], dict) and bool({"role", "from"} & found[0].keys())


def _is_of_turns(record: Record) -> bool:
    return bool(name := _named(record, _are_turns)) and name not in ("contents", "internal")


def _of_turns(record: Record) -> dict[str, Any]:
    name = _named(record, _are_turns)
    key = "messages" if "role" in parsed(record[name])[0] else "conversations"
    return {**_about(record, name), key: parsed(record[name])}


# -- rounds ----------------------------------------------------------------------------------------------------------


def _keys_of(found: list[Any]) -> tuple[str, str] | None:
    first = found[0] if found and isinstance(found[0], dict) else {}
    return next((keys for keys in ROUNDS if keys[0] in first and keys[1] in first), None)


def _is_of_rounds(record: Record) -> bool:
    return bool(_named(record, lambda found: _keys_of(found) is not None))


def _of_rounds(record: Record) -> dict[str, Any]:
    name = _named(record, lambda found: _keys_of(found) is not None)
    rounds = objects(parsed(record[name]), name)
    keys = _keys_of(rounds)
    assert keys is not None
    said = [turn for one in rounds for turn in _round(one.get(keys[0]), one.get(keys[1]))]
    return {**_about(record, name), "messages": said}


def _round(question: Any, answer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return message("user", question), message("assistant", answer)


# -- texts -----------------------------------------------------------------------------------------------------------


def _are_texts(found: list[Any]) -> bool:
    return len(found) > 1 and all(isinstance(text, str) for text in found)


def _of_texts(record: Record) -> dict[str, Any]:
    name = _named(record, _are_texts)
    roles = ("user", "assistant")
    said = [message(roles[number % 2], text) for number, text in enumerate(parsed(record[name]))]
    return {**_about(record, name), "messages": said}


def _are_pairs(found: list[Any]) -> bool:
    return bool(found) and all(isinstance(pair, list) and len(pair) == 2 for pair in found)


def _of_pairs(record: Record) -> dict[str, Any]:
    name = _named(record, _are_pairs)
    said = [turn for pair in parsed(record[name]) for turn in _round(*pair)]
    greeting = said[0]["content"] == WEBUI_BEGIN
    return {**without(_about(record, name), "visible"), "messages": said[1:] if greeting else said}


# -- Vertex ----------------------------------------------------------------------------------------------------------


def _of_contents(record: Record) -> dict[str, Any]:
    said = [_content(one, index) for index, one in enumerate(objects(record["contents"], "contents"))]
    given = record.get("systemInstruction") or record.get("system_instruction")
    if isinstance(given, dict):
        said.insert(0, message("system", _parts(given, "systemInstruction")))
    return {**without(record, "contents", "systemInstruction", "system_instruction"), "messages": said}


def _content(one: dict[str, Any], index: int) -> dict[str, Any]:
    return message(str(one.get("role", "user")), _parts(one, f"contents[{index}]"))


def _parts(content: dict[str, Any], where: str) -> str:
    texts = []
    for index, part in enumerate(objects(content.get("parts"), f"{where}.parts")):
        if "functionCall" in part or "functionResponse" in part:
            raise BadRecord("tool_calls", f"{where}.parts[{index}] calls a tool; only what is said as text is read")
        if not isinstance(part.get("text"), str):
            raise BadRecord("bad_shape", f"{where}.parts[{index}] is {shown(', '.join(part))}; only text is read")
        texts.append(part["text"])
    return "".join(texts)


def _formats() -> Iterator[Format]:
    yield Format("a Vertex record", lambda record: isinstance(record.get("contents"), list), each(_of_contents))
    yield Format("a list of turns", _is_of_turns, each(_of_turns))
    yield Format("a list of rounds", _is_of_rounds, each(_of_rounds))
    yield Format("a list of texts in turns", lambda record: bool(_named(record, _are_texts)), each(_of_texts))
    yield Format("a list of pairs", lambda record: bool(_named(record, _are_pairs)), each(_of_pairs))


FORMATS = tuple(_formats())
