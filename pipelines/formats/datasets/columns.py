"""A question and its answer in columns. `foreign.py` calls it.

    Dolly {"instruction", "context", "response"}            GPTeacher, Magpie {"instruction", "input", "response"}
    OpenOrca {"system_prompt", "question", "response"}      {"prompt", "completion"}, {"prompt", "response"}, …

Prompt and completion may be lists of messages (TRL). All other columns are kept.
"""

from typing import Any

from pipelines.formats.records import BadRecord
from pipelines.formats.translation import Format, Record, each, message, parsed, without
from services.errors import shown

QUESTIONS = ("instruction", "question", "prompt", "query")
ANSWERS = ("response", "completion", "answer", "output")
CONTEXTS = ("input", "context")
SYSTEMS = ("system", "system_prompt")


def _first(record: Record, names: tuple[str, ...]) -> str:
    return next((name for name in names if record.get(name) is not None), "")


def _recognises(record: Record) -> bool:
    question, answer = _first(record, QUESTIONS), _first(record, ANSWERS)
    return bool(question and answer and isinstance(parsed(record[answer]), str | list))


def _translate(record: Record) -> dict[str, Any]:
    question, answer = _first(record, QUESTIONS), _first(record, ANSWERS)
    context, system = _first(record, CONTEXTS), _first(record, SYSTEMS)
    rest = {**without(record, question, answer, context, system), **({"system": record[system]} if system else {})}
    if context or question == "instruction":
        return {**rest, "instruction": record[question], "input": record.get(context), "output": record[answer]}
    return {**rest, "messages": _turns(record, question, "user") + _turns(record, answer, "assistant")}


def _turns(record: Record, name: str, role: str) -> list[Any]:
    value = parsed(record[name])
    if isinstance(value, str | list):
        return [message(role, value)] if isinstance(value, str) else value
    raise BadRecord("bad_shape", f"{name} is {shown(value)}; a text or a list of messages is needed")


FORMAT = Format("a record of a question and an answer", _recognises, each(_translate))
