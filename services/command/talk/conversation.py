"""The conversation of `chatserver chat`: its messages, its options, and the request for the next answer."""

import json
import uuid
from pathlib import Path

from services.command.talk.answer import Answer
from services.errors import InvalidRequest
from services.tokens.context import newest_rounds
from services.wire.messages import ChatRequest, Message, Priority
from services.wire.parsing import MAX_MESSAGES, parse_request


class Conversation:
    """Messages and options. It drops a question whose answer failed, but can ask that question again."""

    def __init__(
        self,
        model: str,
        *,
        system: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        priority: Priority = "interactive",
        thinking: bool | None = None,
    ) -> None:
        self.model = model
        self.system = system
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.priority = priority
        self.thinking = thinking
        self.messages: list[Message] = []
        self._question = ""
        self._num_unsent = 0  # messages that did not fit into the last request
        self._said_omitted = False

    def question(self, text: str, *, user: str, max_chars: int) -> ChatRequest:
        """The request that asks `text` after the messages so far, under a new id. Raises InvalidRequest.

        It has the newest rounds that a request may hold; of these the worker takes what its model can read.
        """
        whole = [*([Message("system", self.system)] if self.system else []), *self.messages, Message("user", text)]
        messages = newest_rounds(
            whole, lambda kept: len(kept) <= MAX_MESSAGES and sum(len(each.text) for each in kept) <= max_chars
        )
        sampling = {"temperature": self.temperature, "max_new_tokens": self.max_tokens}
        request = parse_request(
            {
                "id": uuid.uuid4().hex,
                "model": self.model,
                "messages": [message.encoded() for message in messages],
                "priority": self.priority,
                "thinking": self.thinking,
                "sampling": {name: value for name, value in sampling.items() if value is not None},
            },
            user=user,
            max_chars=max_chars,
        )
        self._question = text
        self._num_unsent = len(whole) - len(messages)
        return request

    def answered(self, answer: Answer) -> None:
        """Keep the last question and its answer, unless the answer failed or is empty."""
        if answer.status != "failed" and answer.text:
            self.messages += [Message("user", self._question), Message("assistant", answer.text, answer.reasoning)]

    def newly_omitted(self, answer: Answer) -> str:
        """A line for people when the model has read only a part of the conversation for the first time; else empty."""
        omitted = self._num_unsent + answer.usage.get("omitted_messages", 0)
        if not omitted or self._said_omitted:
            return ""
        self._said_omitted = True
        context = answer.usage.get("context_tokens")
        reads = f" (it reads {context:,} tokens)" if context else ""
        return (
            f"the conversation is too long for this model{reads}: it no longer reads the first {omitted} messages;"
            " /clear begins a new one"
        )

    def again(self) -> str:
        """Remove the last question and its answer; returns the question. Raises InvalidRequest when there is none."""
        if not self._question:
            raise InvalidRequest("there is no question to ask again")
        if self.messages and self.messages[-2].content == self._question:
            del self.messages[-2:]
        return self._question

    def clear(self) -> None:
        """Forget the messages; options stay."""
        self.messages.clear()
        self._question = ""
        self._said_omitted = False

    def save(self, path: Path) -> None:
        """Write a new file: Markdown for `.md`, else JSON. Raises InvalidRequest when that fails."""
        text = self._markdown() if path.suffix == ".md" else self._json()
        try:
            with path.expanduser().open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise InvalidRequest(f"{path} exists already; choose another name") from None
        except OSError as error:
            raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from None

    def _json(self) -> str:
        messages = [message.encoded() for message in self.messages]
        whole = {"model": self.model, "system": self.system, "messages": messages}
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"

    def _markdown(self) -> str:
        system = [f"> {line}" for line in self.system.splitlines()]
        parts = [f"# {self.model}", "\n".join(system), *(f"## {m.role}\n\n{m.content}" for m in self.messages)]
        return "\n\n".join(part for part in parts if part) + "\n"
