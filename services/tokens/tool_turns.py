"""Turns that call tools and turns that bring results, as chat templates get them. `tokenization.py` calls it.

Requests and training data have such turns. Templates disagree on three things, which `probe` finds by rendering:
whether a call's arguments are an object or JSON as text, what the text beside a call is where nothing was said (an
empty text, or none), and whether ids must be short.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from os.path import commonprefix
from typing import Any

from services.errors import TemplateError
from services.tokens.system_turns import Turn
from services.wire.messages import CallMessage, Message, ResultMessage, Tool, ToolCall

Render = Callable[[Sequence[Turn], Sequence[Tool]], str]
"""The text of a conversation with these tools. Raises TemplateError if the template refuses it."""

DEFINITIONS, CALLS, RESULTS = "the tools' definitions", "an assistant's calls", "a tool's results"
_NAME, _KEY, _VALUE, _RESULT = "tangowort", "quebecwort", "romeowort", "kilowort"  # no template writes such words


class NoPlaceForTools(TemplateError):
    """The chat template does not write what a conversation holds of tools."""


@dataclass(frozen=True)
class ToolPlaces:
    """What of tools a template has no place for, and how it wants the rest."""

    missing: frozenset[str]
    arguments_as_text: bool = False
    silence: str | None = ""  # the text of a turn that only calls
    refusal: str = ""  # what the template says of calls and results where it refuses them
    short_ids: bool = False  # it takes no ids of calls but those of nine letters and digits (Mistral)

    def check(self, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        """Raises NoPlaceForTools for a conversation of which the template would lose something."""
        lost = sorted(self.missing & _needs(messages, tools))
        if lost:
            raise NoPlaceForTools(
                f"the model's chat template has no place for {' and '.join(lost)}{self.refusal}; choose a model whose "
                "template writes them (or such a template of this model by name), or leave them out"
            )

    def fields(self, message: Message, changed: Callable[[str], str]) -> Turn:
        """What a turn has beside role, content and reasoning. `changed` maps every text in it."""
        if isinstance(message, ResultMessage):
            given = {"tool_call_id": self._identity(message.call), "name": message.name}
            return {name: changed(value) for name, value in given.items() if value}
        if not isinstance(message, CallMessage):
            return {}
        silent = {} if message.content.strip() else {"content": self.silence}
        return {**silent, "tool_calls": [self._call(call, changed) for call in message.calls]}

    def _call(self, call: ToolCall, changed: Callable[[str], str]) -> dict[str, Any]:
        arguments = mapped(call.arguments, changed)
        given = json.dumps(arguments, ensure_ascii=False) if self.arguments_as_text else arguments
        about = {"type": "function", "function": {"name": changed(call.name), "arguments": given}}
        return {"id": changed(self._identity(call.identity)), **about} if call.identity else about

    def _identity(self, given: str) -> str:
        """The id as the template takes it: the same for the same, in whatever turn."""
        if not given or not self.short_ids or _SHORT_ID.fullmatch(given):
            return given
        return hashlib.sha256(given.encode()).hexdigest()[:9]


def probe(render: Render) -> ToolPlaces:
    """What a template does with tools: of the four ways to give it a call, the first that loses least."""
    ways = [ToolPlaces(frozenset(), *way) for way in product((False, True), ("", None))]
    found = [_probed(render, way) for way in ways]
    best = min(found, key=lambda one: (len(one[0].missing), one[1]))[0]
    with_long_id = _probed(render, best, _LONG_ID)[0]
    return replace(best, short_ids=best.missing < with_long_id.missing)


def written_call(
    render: Callable[[Sequence[Turn], bool, Sequence[Tool]], str], places: ToolPlaces
) -> tuple[str, str, dict[str, str]]:
    """What a template writes for a call behind the prompt of its answer: the text, the tool's name, its arguments.

    `render` gets the turns, whether they ask for an answer, and the tools. Raises TemplateError.
    """
    called: Turn = {"role": "assistant", "content": "", **places.fields(_CALL, lambda text: text)}
    asked, text = render([_ASK], True, [_TOOL]), render([_ASK, called], False, [_TOOL])
    shared = commonprefix([asked, text])
    if shared != asked:  # it asks with a mark (of reasoning) that it leaves out before a call: go back to its beginning
        shared = shared[: max(map(shared.rfind, "\n >]")) + 1]
    return text[len(shared) :], _NAME, {_KEY: _VALUE}


def mapped(value: Any, changed: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed, keys too."""
    if isinstance(value, str):
        return changed(value)
    if isinstance(value, Mapping):
        return {changed(name): mapped(one, changed) for name, one in value.items()}
    return [mapped(one, changed) for one in value] if isinstance(value, list | tuple) else value


def texts_of_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> Iterator[tuple[str, bool]]:
    """Every text of calls, results and tools that is no message's content, and whether the model itself said it."""
    yield json.dumps(list(tools), ensure_ascii=False), False
    for message in messages:
        if isinstance(message, ResultMessage):
            yield f"{message.call} {message.name}", False
        if isinstance(message, CallMessage):
            for call in message.calls:
                yield f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)} {call.identity}", True


def _needs(messages: Sequence[Message], tools: Sequence[Tool]) -> set[str]:
    calls = any(isinstance(message, CallMessage) for message in messages)
    results = any(isinstance(message, ResultMessage) for message in messages)
    return {part for part, needed in ((DEFINITIONS, tools), (CALLS, calls), (RESULTS, results)) if needed}


# -- probes ----------------------------------------------------------------------------------------------------------

_PARAMETERS = {"type": "object", "properties": {_KEY: {"type": "string", "description": "word"}}, "required": [_KEY]}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "word", "parameters": _PARAMETERS}}
_ASK: Turn = {"role": "user", "content": "word"}
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_ID, _LONG_ID = "callid001", "call_0123456789abcdef"
_CALL = CallMessage("assistant", "", calls=(ToolCall(_NAME, {_KEY: _VALUE}, _ID),))
_ANSWERED: Turn = {"role": "tool", "content": _RESULT, "tool_call_id": _ID, "name": _NAME}


def _probed(render: Render, way: ToolPlaces, identity: str = _ID) -> tuple[ToolPlaces, int]:
    """The way with what the template loses by it, and how many signs there are that it wants calls otherwise."""
    call = replace(_CALL, calls=(replace(_CALL.calls[0], identity=identity),))
    called: Turn = {"role": "assistant", "content": "", **way.fields(call, lambda text: text)}
    answered = {**_ANSWERED, "tool_call_id": identity}
    refusals: list[str] = []
    told, text, returned = (
        _text(render, conversation, refusals) for conversation in ([_ASK], [_ASK, called], [_ASK, called, answered])
    )
    own = text.removeprefix(told)
    as_python = f"'{_KEY}'" in own  # how Python writes an object
    written = {
        DEFINITIONS: _NAME in told,
        CALLS: _VALUE in text and _NAME in text and not as_python,
        RESULTS: _RESULT in returned,
    }
    missing = frozenset(part for part, is_written in written.items() if not is_written)
    signs = (f'\\"{_KEY}' in text) + ("None" in own)
    return replace(way, missing=missing, refusal=f" ({refusals[-1]})" if refusals else ""), signs


def _text(render: Render, conversation: list[Turn], refusals: list[str]) -> str:
    try:
        return render(conversation, [_TOOL])
    except TemplateError as error:
        refusals.append(str(error))
        return ""
