"""From a chat request to what the engine is asked: prompt, sampling, and the text that will come out."""

from collections.abc import Sequence

from services.errors import TemplateError, Unsupported
from services.grammar.calls import CallFrame
from services.grammar.expressions import Grammar
from services.grammar.response_format import grammar_of
from services.tokens.context import newest_rounds, prompt_room
from services.tokens.tokenization import ChatTokenizer, Prompt
from services.wire.messages import ANY_TOOL, ChatRequest, Message, SamplingDefaults
from workers.answer import Answer, Calls
from workers.answer_logprobs import AnswerLogprobs
from workers.detokenizer import TextDecoder
from workers.engine import Engine
from workers.generation import Plan
from workers.validation import validate


class ChatPlanner:
    """Plans requests for one model. Raises ChatServerError for what cannot be served; the worker lives on."""

    def __init__(
        self, tokenizer: ChatTokenizer, engine: Engine, defaults: SamplingDefaults, *, thinking: bool | None = None
    ) -> None:
        """`thinking`: for requests that leave it open; None: as the template has it."""
        self._tokenizer = tokenizer
        self._engine = engine
        self._defaults = defaults
        self._thinking = thinking
        self._decoder = TextDecoder(tokenizer.decoder())
        self._call_marks = self._special_marks()

    def __call__(self, request: ChatRequest) -> Plan:
        self._check_tools(request)
        grammar = self._grammar(request)
        messages, prompt = self._prompt(request)
        if request.sampling.response_format is not None:
            prompt = self._before_reasoning(request, prompt)
        sampling = validate(
            prompt.ids,
            request.sampling,
            self._engine.limits,
            engine=self._engine.name,
            defaults=self._defaults,
            stop_token_ids=self._tokenizer.stop_token_ids,
        )
        logprobs = AnswerLogprobs(self._decoder) if sampling.logprobs else None
        return Plan(
            prompt.ids,
            sampling,
            self._answer(request, prompt, logprobs),
            context_tokens=self._engine.limits.context_tokens,
            omitted_messages=len(request.messages) - len(messages),
            grammar=grammar,
            notation=self._engine.limits.grammar_notation,
            logprobs=logprobs,
        )

    def _grammar(self, request: ChatRequest) -> Grammar | None:
        """What the answer must obey."""
        form = request.sampling.response_format
        if form is None:
            return self._grammar_of_calls(request)
        if not self._engine.limits.grammar_notation:
            raise Unsupported(f"response_format: engine {self._engine.name} obeys no grammar; leave it out")
        return grammar_of(form)

    def _grammar_of_calls(self, request: ChatRequest) -> Grammar | None:
        """What the answer obeys behind what begins its calls. None: calls are what the model writes."""
        frame = self._frame(request)
        if frame is None:
            return None
        only = request.tool_choice[1:] if request.tool_choice.startswith(":") else ""
        return frame.grammar(request.tools, request.strict_tools, several=not request.calls_once, only=only)

    def _frame(self, request: ChatRequest) -> CallFrame | None:
        """How calls are written that must obey a grammar, where engine and model can."""
        found = self._tokenizer.call_format
        if found is None or not (request.must_call or request.strict_tools):
            return None
        frame = found.frame if self._engine.limits.grammar_notation else None
        if frame is None and request.strict_tools:
            raise Unsupported(
                f"tools: engine {self._engine.name} cannot hold this model's arguments to a schema; leave strict out",
                field="tools",
            )
        return frame

    def _before_reasoning(self, request: ChatRequest, prompt: Prompt) -> Prompt:
        """The prompt, with the mark of the reasoning behind it where the model itself would write that mark.

        Else the grammar would begin at once, and the model would never think.
        """
        parser = None if request.prompt else self._tokenizer.answer_parser(prompt.ids[: prompt.begun])
        if parser is not None and parser.has_heads:
            raise Unsupported("response_format: this model writes heads before its texts; leave the format out")
        if parser is None or self._switch(request) is False or prompt.begun < len(prompt.ids):
            return prompt
        mark = parser.opening
        return prompt if mark is None else Prompt([*prompt.ids, mark], len(prompt.ids) + 1)

    def _answer(self, request: ChatRequest, prompt: Prompt, logprobs: AnswerLogprobs | None) -> Answer:
        """The text to come. The strings that end a turn of a template end nothing that has no turns or ignores ends."""
        ends = () if request.prompt or request.sampling.ignore_eos else self._tokenizer.stop_strings
        parser = None if request.prompt else self._tokenizer.answer_parser(prompt.ids[: prompt.begun])
        stop, begun = (*request.sampling.stop, *ends), prompt.ids[prompt.begun :]
        return Answer(self._decoder, stop, parser, begun, self._calls(request), logprobs)

    def _calls(self, request: ChatRequest) -> Calls | None:
        found = self._tokenizer.call_format
        if not request.tools or found is None:
            return None
        parser = found.parser(request.tools, parallel=not request.calls_once)
        return Calls(parser, self._call_marks, self._beginning(request), self._frame(request))

    def _special_marks(self) -> dict[int, str]:
        """The marks of calls that are special tokens, which the decoder leaves out."""
        found = self._tokenizer.call_format
        ids = {self._decoder.tokenizer.token_to_id(mark): mark for mark in (found.family.marks if found else ())}
        return {token_id: mark for token_id, mark in ids.items() if token_id in self._decoder.skipped}

    def _check_tools(self, request: ChatRequest) -> None:
        if request.has_tools and self._tokenizer.call_format is None:
            raise Unsupported(
                "the model's chat template writes no tools, or calls them in a format that is not understood here; "
                "leave tools and tool messages out, or choose another model",
                field="tools",
            )
        if request.must_call and request.continue_final:
            raise Unsupported("tool_choice: an answer that is begun cannot be made a call", field="tool_choice")

    def _beginning(self, request: ChatRequest) -> str:
        """What the answer begins with so that it calls a tool; the only one by its name."""
        found = self._tokenizer.call_format
        if not request.must_call or found is None:
            return ""
        name = request.tool_choice.removeprefix(":")
        if name == ANY_TOOL:
            name = request.tools[0]["function"]["name"] if len(request.tools) == 1 else ""
        return found.beginning(name)

    def _prompt(self, request: ChatRequest) -> tuple[Sequence[Message], Prompt]:
        """The messages that the model reads, and the prompt: of a long conversation the newest rounds."""
        if request.prompt:
            return (), self._tokenizer.encode_bare(request.prompt)
        room = prompt_room(self._engine.limits.context_tokens, request.sampling.max_new_tokens)
        prompt = self._rendered(request, request.messages)
        if len(prompt.ids) <= room or request.truncation == "disabled":
            return request.messages, prompt
        messages = newest_rounds(request.messages, lambda kept: self._fits(request, kept, room))
        return messages, self._rendered(request, messages)

    def _rendered(self, request: ChatRequest, messages: Sequence[Message]) -> Prompt:
        if request.continue_final:
            return self._tokenizer.render_begun(messages, self._switch(request), tools=request.tools)
        ids = self._tokenizer.render(messages, self._switch(request), tools=request.tools)
        if not request.must_call:
            return Prompt(ids, len(ids))
        parser = self._tokenizer.answer_parser(ids)
        if parser is not None and parser.reasoning:
            raise Unsupported(
                "tool_choice: this model always thinks first, so its answer cannot begin with a call; use auto",
                field="tool_choice",
            )
        return Prompt([*ids, *self._tokenizer.encode_beginning(self._beginning(request))], len(ids))

    def _switch(self, request: ChatRequest) -> bool | None:
        if request.must_call:
            return False  # the answer begins with the call
        return self._thinking if request.thinking is None else request.thinking

    def _fits(self, request: ChatRequest, kept: Sequence[Message], room: int) -> bool:
        """A template may refuse a conversation that begins in the middle, such as with a system message."""
        try:
            count = self._tokenizer.count(
                kept, self._switch(request), continue_final=request.continue_final, tools=request.tools
            )
        except TemplateError:
            return False
        return count <= room
