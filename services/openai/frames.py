"""What OpenAI's clients read: the chunks of a stream and the whole answer, for chats and for texts.

Every chunk of one stream has the same `id`, `created` and `model`. Source: what api.openai.com sends.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from services.chat.logprobs import PlacedLogprob
from services.chat.reader import Done, Text
from services.chat.said import Said
from services.openai.call_frames import CALL_PARTS, CallDeltas, whole_calls
from services.openai.logprobs import content_logprobs, text_logprobs
from services.wire.messages import ANSWER

Frame = dict[str, Any]


class Frames(Protocol):
    """How one kind of answer is framed."""

    def first(self, choice: int) -> Frame:
        """What a stream says of a choice before its text."""

    def text(self, choice: int, text: Text) -> list[Frame]:
        """A part of a choice's text."""

    def end(self, choice: int, done: Done) -> Iterable[Frame]:
        """What is left of a choice, and why it ended."""

    def usage(self, usage: Frame) -> Frame:
        """The last chunk of a stream whose client asked for it."""

    def whole(self, said: Sequence[tuple[Said, Done]], usage: Frame) -> Frame:
        """The whole answer at once."""


class ChatFrames:
    """`chat.completion`. Reasoning is sent under both names that clients look for."""

    def __init__(self, base: str, model: str, *, includes_usage: bool, has_logprobs: bool) -> None:
        self.id = f"chatcmpl-{base}"
        self._head = {"id": self.id, "object": "chat.completion", "created": int(time.time()), "model": model}
        self._chunk = {**self._head, "object": "chat.completion.chunk", "system_fingerprint": None}
        self._tail = {"usage": None} if includes_usage else {}
        self._base = base
        self._has_logprobs = has_logprobs
        self._calls: dict[int, CallDeltas] = {}  # by choice

    def first(self, choice: int) -> Frame:
        return self._of(choice, {"role": "assistant", "content": "", "refusal": None})

    def text(self, choice: int, text: Text) -> list[Frame]:
        if text.part == ANSWER:
            return [self._of(choice, {"content": text.text}, logprobs=self._logprobs(text.logprobs))]
        if text.part not in CALL_PARTS:
            return [self._of(choice, _reasoning(text.text))]
        deltas = self._calls.setdefault(choice, CallDeltas(self._rid(choice)))
        return [self._of(choice, {"tool_calls": [delta]}) for delta in deltas.take(text)]

    def end(self, choice: int, done: Done) -> list[Frame]:
        deltas = self._calls.get(choice)
        left = [self._of(choice, {"tool_calls": [delta]}) for delta in deltas.begun()] if deltas else []
        return [*left, self._of(choice, {}, _finish_reason(done, has_called=deltas is not None))]

    def usage(self, usage: Frame) -> Frame:
        return {**self._chunk, "choices": [], "usage": usage}

    def whole(self, said: Sequence[tuple[Said, Done]], usage: Frame) -> Frame:
        choices = [
            {
                "index": index,
                "message": {**_message(each), **whole_calls(each, self._rid(index))},
                "logprobs": self._logprobs(each.logprobs),
                "finish_reason": _finish_reason(done, has_called=bool(each.calls)),
            }
            for index, (each, done) in enumerate(said)
        ]
        return {**self._head, "choices": choices, "usage": usage, "system_fingerprint": None}

    def _rid(self, choice: int) -> str:
        return f"{self._base}-{choice}"

    def _logprobs(self, placed: Sequence[PlacedLogprob]) -> Frame | None:
        return {"content": content_logprobs(placed), "refusal": None} if self._has_logprobs else None

    def _of(self, choice: int, delta: Frame, finish_reason: str | None = None, logprobs: Frame | None = None) -> Frame:
        about = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._chunk, "choices": [about], **self._tail}


class TextFrames:
    """`text_completion`. `echoes` has the prompt of each choice, where the client wants it back.

    `logprobs`: how many of the likeliest tokens a client wants to know for each; None: it asks for nothing of the kind.
    """

    def __init__(
        self, base: str, model: str, *, includes_usage: bool, echoes: Sequence[str], logprobs: int | None
    ) -> None:
        self.id = f"cmpl-{base}"
        self._head = {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": model}
        self._tail = {"usage": None} if includes_usage else {}
        self._echoes = echoes
        self._num_logprobs = logprobs

    def first(self, choice: int) -> Frame:
        return self._of(choice, self._echoes[choice])

    def text(self, choice: int, text: Text) -> list[Frame]:
        return [self._of(choice, text.text, logprobs=self._logprobs(choice, text.logprobs))]

    def end(self, choice: int, done: Done) -> list[Frame]:
        return [self._of(choice, "", done.code)]

    def usage(self, usage: Frame) -> Frame:
        return {**self._head, "choices": [], "usage": usage}

    def whole(self, said: Sequence[tuple[Said, Done]], usage: Frame) -> Frame:
        choices = [
            _text_choice(index, self._echoes[index] + each.answer, done.code, self._logprobs(index, each.logprobs))
            for index, (each, done) in enumerate(said)
        ]
        return {**self._head, "choices": choices, "usage": usage}

    def _logprobs(self, choice: int, placed: Sequence[PlacedLogprob]) -> Frame | None:
        if self._num_logprobs is None:
            return None
        return text_logprobs(placed, len(self._echoes[choice]), with_top=self._num_logprobs > 0)

    def _of(self, choice: int, text: str, finish_reason: str | None = None, logprobs: Frame | None = None) -> Frame:
        return {**self._head, "choices": [_text_choice(choice, text, finish_reason, logprobs)], **self._tail}


def _text_choice(index: int, text: str, finish_reason: str | None, logprobs: Frame | None) -> Frame:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}


def _message(said: Said) -> Frame:
    """Of an answer that only calls tools, the content is null."""
    content = said.answer or None if said.calls else said.answer
    reasoning = _reasoning(said.reasoning) if said.reasoning else {}
    return {"role": "assistant", "content": content, "refusal": None, **reasoning}


def _finish_reason(done: Done, *, has_called: bool) -> str:
    return "tool_calls" if has_called and done.code == "stop" else done.code


def _reasoning(text: str) -> Frame:
    return {"reasoning_content": text, "reasoning": text}


def usage_of(ends: Iterable[Done], n: int) -> Frame:
    """The sum of all choices: `n` of them answer one prompt, which counts once."""
    used = [end.usage for end in ends]
    prompt = sum(usage.get("prompt_tokens", 0) for usage in used[::n])
    completion = sum(usage.get("completion_tokens", 0) for usage in used)
    reasoning = sum(usage.get("reasoning_tokens", 0) for usage in used)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
