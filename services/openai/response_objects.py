"""The objects of the Responses API: a response, the items of its output and of its input. Each has all of its fields.

All readers, in all processes, make equal objects: they come from the record and the journal alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from services.chat.logprobs import PlacedLogprob
from services.chat.reader import Done, Text, in_parts
from services.chat.said import call_id
from services.openai.call_frames import CALL_PARTS
from services.openai.frames import Frame
from services.openai.logprobs import content_logprobs
from services.responses.record import ResponseRecord
from services.responses.responses import KeptResponse
from services.wire.messages import ANSWER, CallMessage, Message, Part, ResultMessage

PREFIX = "resp_"
ItemStatus = Literal["in_progress", "completed", "incomplete"]
ItemKind = Literal["message", "reasoning", "function_call"]
_ID_PREFIXES: dict[ItemKind, str] = {"message": "msg", "reasoning": "rs", "function_call": "fc"}

# Why a worker cannot read a request; any other failure is the server's.
_PROMPT_ERRORS = frozenset({"invalid_request", "prompt_too_long", "content_too_large", "template_error", "unsupported"})


@dataclass
class OutputItem:
    """A stretch of the answer's text that is all reasoning, all message or one call of a tool.

    `start` and `end` are code points. `texts` are a call's arguments. `call_id`: of a call.
    """

    base: str
    index: int
    kind: ItemKind
    start: int
    call_id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)
    logprobs: list[orjson.Fragment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = self.start

    @property
    def id(self) -> str:
        return f"{_ID_PREFIXES[self.kind]}_{self.base}-{self.index}"

    @property
    def is_message(self) -> bool:
        return self.kind == "message"

    def goes_on_with(self, part: str) -> bool:
        """Whether text of this part belongs to the item."""
        return self.kind == _kind(part) and not (part == "call" and self.texts)

    def take(self, text: Text) -> None:
        if text.part == "call":
            self.name += text.text
        else:
            self.texts.append(text.text)
        self.logprobs += content_logprobs(text.logprobs)
        self.end += len(text.text)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def part(self, text: str) -> Frame:
        """Its only content part, with all of its text or none."""
        if self.is_message:
            logprobs = self.logprobs if text else []
            return {"type": "output_text", "annotations": [], "logprobs": logprobs, "text": text}
        return {"type": "reasoning_text", "text": text}

    def added(self) -> Frame:
        """The item before its text."""
        return OutputItem(self.base, self.index, self.kind, self.start, self.call_id, self.name).frame("in_progress")

    def frame(self, status: ItemStatus) -> Frame:
        """The item as it is now, or before its text with the status `in_progress` and no text."""
        if self.kind == "function_call":
            about = {"id": self.id, "type": "function_call", "status": status}
            return {**about, "call_id": self.call_id, "name": self.name, "arguments": self.text}
        content = [self.part(self.text)] if self.texts or status != "in_progress" else []
        if self.is_message:
            return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}
        return {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content}


class Output:
    """The items of an answer, from its text in the order of its offsets."""

    def __init__(self, rid: str) -> None:
        self._rid = rid
        self._base = rid.removeprefix(PREFIX)
        self.items: list[OutputItem] = []

    @property
    def last(self) -> OutputItem | None:
        return self.items[-1] if self.items else None

    def continues(self, text: Text) -> bool:
        """Whether this text belongs to the last item. Text of a part that this build does not know is reasoning."""
        return self.last is not None and self.last.goes_on_with(text.part)

    def begin(self, part: str = ANSWER) -> OutputItem:
        start = self.last.end if self.last else 0
        item = OutputItem(self._base, len(self.items), _kind(part), start)
        if item.kind == "function_call":
            item.call_id = call_id(self._rid, sum(each.kind == "function_call" for each in self.items))
        self.items.append(item)
        return item

    def take(self, text: Text) -> None:
        item = self.last if self.continues(text) else self.begin(text.part)
        assert item is not None, "it continues an item, or begins one"
        item.take(text)

    def frames(self, last: ItemStatus) -> list[Frame]:
        """All items; those before the last are complete."""
        return [
            *(item.frame("completed") for item in self.items[:-1]),
            *(item.frame(last) for item in self.items[-1:]),
        ]


class ResponseFrames:
    """One response in all of its states."""

    def __init__(self, rid: str, record: ResponseRecord) -> None:
        self.rid = rid
        self.record = record
        self.base = rid.removeprefix(PREFIX)
        self._ordered = _as_ordered(record)

    def begun(self, status: Literal["queued", "in_progress"], output: Sequence[Frame] = ()) -> Frame:
        return self._of(status, output)

    def ended(self, output: Output, done: Done) -> Frame:
        """The response after its end."""
        status, used = status_of(done), done.usage.get("total_ms")
        completed_at = None if status != "completed" or used is None else self.record.created_s + round(used / 1000)
        return self._of(
            status,
            output.frames("completed" if status == "completed" else "incomplete"),
            completed_at=completed_at,
            error=_error(done) if status == "failed" else None,
            incomplete_details={"reason": "max_output_tokens"} if status == "incomplete" else None,
            usage=_usage(done.usage),
        )

    def whole(
        self,
        text: str,
        parts: tuple[Part, ...],
        done: Done | None,
        *,
        running: bool,
        logprobs: Sequence[PlacedLogprob] = (),
    ) -> Frame:
        """The response with all text there is."""
        output = Output(self.rid)
        for each in in_parts(text, parts, logprobs):
            output.take(each)
        if done is None:
            return self.begun("in_progress" if running else "queued", output.frames("in_progress"))
        if needs_empty_message(output, done):
            output.begin()
        return self.ended(output, done)

    def _of(self, status: str, output: Sequence[Frame], **end: Any) -> Frame:
        open_end = dict.fromkeys(("completed_at", "error", "incomplete_details", "usage"))
        about = {"id": self.rid, "object": "response", "created_at": self.record.created_s, "status": status}
        return {**about, **self._ordered, "output": list(output), **open_end, **end}


def whole_response(kept: KeptResponse) -> Frame:
    """A kept response as it is now."""
    frames = ResponseFrames(kept.rid, kept.record)
    return frames.whole(kept.text, kept.parts, kept.end, running=kept.running, logprobs=kept.logprobs)


def _kind(part: str) -> ItemKind:
    """Text of a part that this build does not know is reasoning."""
    if part in CALL_PARTS:
        return "function_call"
    return "message" if part == ANSWER else "reasoning"


def status_of(done: Done) -> Literal["completed", "incomplete", "failed", "cancelled"]:
    """The status of a response after its end."""
    if done.status == "finished":
        return "incomplete" if done.code == "length" else "completed"
    return "cancelled" if done.status == "cancelled" else "failed"


def needs_empty_message(output: Output, done: Done) -> bool:
    """An answer that finished without a character is an empty message."""
    return not output.items and done.status == "finished"


def input_items(rid: str, messages: Iterable[Message]) -> list[Frame]:
    """A response's own input, as items. Instructions of developers are the system's here."""
    base, items = rid.removeprefix(PREFIX), list[Frame]()
    for message in messages:
        if message.reasoning:
            content = [{"type": "reasoning_text", "text": message.reasoning}]
            about = {"id": f"rs_{base}-in-{len(items)}", "type": "reasoning", "status": "completed"}
            items.append({**about, "summary": [], "content": content})
        if isinstance(message, ResultMessage):
            about = {"id": f"fco_{base}-in-{len(items)}", "type": "function_call_output", "status": "completed"}
            items.append({**about, "call_id": message.call, "output": message.content})
            continue
        calls = message.calls if isinstance(message, CallMessage) else ()
        if message.content or not calls:
            items.append(_input_message(message, f"msg_{base}-in-{len(items)}"))
        for call in calls:
            about = {"id": f"fc_{base}-in-{len(items)}", "type": "function_call", "status": "completed"}
            arguments = orjson.dumps(call.arguments).decode()
            items.append({**about, "call_id": call.identity, "name": call.name, "arguments": arguments})
    return items


def _input_message(message: Message, item_id: str) -> Frame:
    part: Frame = {"type": "input_text", "text": message.content}
    if message.role == "assistant":
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": message.content}
    return {"id": item_id, "type": "message", "status": "completed", "role": message.role, "content": [part]}


def _as_ordered(record: ResponseRecord) -> Frame:
    """What stays the same from the beginning to the end."""
    return {
        "background": record.background,
        "frequency_penalty": 0,
        "instructions": record.instructions,
        "max_output_tokens": record.max_output_tokens,
        "max_tool_calls": None,
        "metadata": record.metadata,
        "model": record.model,
        "parallel_tool_calls": record.parallel_tool_calls,
        "presence_penalty": 0,
        "previous_response_id": record.previous or None,
        "prompt_cache_key": None,
        "reasoning": {"effort": record.effort, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": record.store,
        "temperature": record.temperature,
        "text": {"format": record.text_format or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": _tool_choice(record.tool_choice),
        "tools": [
            {"type": "function", **tool["function"], "strict": tool["function"]["name"] in record.strict_tools}
            for tool in record.tools
        ],
        "top_logprobs": record.top_logprobs,
        "top_p": record.top_p,
        "truncation": record.truncation,
        "user": None,
    }


def _tool_choice(chosen: str) -> str | Frame:
    return {"type": "function", "name": chosen[1:]} if chosen.startswith(":") else chosen


def _error(done: Done) -> Frame:
    """Why it failed, with one of the few codes that clients know."""
    code = "invalid_prompt" if done.code in _PROMPT_ERRORS else "server_error"
    return {"code": code, "message": done.message or f"the answer failed: {done.code}"}


def _usage(used: dict[str, Any]) -> Frame | None:
    """None when no worker counted."""
    if "prompt_tokens" not in used:
        return None
    prompt, output = used["prompt_tokens"], used.get("completion_tokens", 0)
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": used.get("reasoning_tokens", 0)},
        "total_tokens": prompt + output,
    }
