"""From a chat request to what the engine is asked: prompt, sampling, and the text that will come out."""

from collections.abc import Sequence

from services.errors import TemplateError
from services.tokens.context import newest_rounds, prompt_room
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import ChatRequest, Message, SamplingDefaults
from workers.answer import Answer
from workers.detokenizer import TextDecoder
from workers.engine import Engine
from workers.generation import Plan
from workers.validation import validate


class ChatPlanner:
    """Plans requests for one model. Raises ChatServerError for what cannot be served; the worker lives on."""

    def __init__(self, tokenizer: ChatTokenizer, engine: Engine, defaults: SamplingDefaults) -> None:
        self._tokenizer = tokenizer
        self._engine = engine
        self._defaults = defaults
        self._decoder = TextDecoder(tokenizer.decoder())

    def __call__(self, request: ChatRequest) -> Plan:
        messages, prompt_ids = self._prompt(request)
        sampling = validate(
            prompt_ids,
            request.sampling,
            self._engine.limits,
            engine=self._engine.name,
            defaults=self._defaults,
            stop_token_ids=self._tokenizer.stop_token_ids,
        )
        stop = (*request.sampling.stop, *self._tokenizer.stop_strings)
        return Plan(
            prompt_ids,
            sampling,
            Answer(self._decoder, stop, self._tokenizer.answer_parser(prompt_ids)),
            context_tokens=self._engine.limits.context_tokens,
            omitted_messages=len(request.messages) - len(messages),
        )

    def _prompt(self, request: ChatRequest) -> tuple[Sequence[Message], list[int]]:
        """The messages that the model reads, and their tokens: of a long conversation the newest rounds."""
        room = prompt_room(self._engine.limits.context_tokens, request.sampling.max_new_tokens)
        prompt_ids = self._tokenizer.render(request.messages)
        if len(prompt_ids) <= room or request.truncation == "disabled":
            return request.messages, prompt_ids
        messages = newest_rounds(request.messages, lambda kept: self._fits(kept, room))
        return messages, self._tokenizer.render(messages)

    def _fits(self, kept: Sequence[Message], room: int) -> bool:
        """A template may refuse a conversation that begins in the middle, such as with a system message."""
        try:
            return self._tokenizer.count(kept) <= room
        except TemplateError:
            return False
