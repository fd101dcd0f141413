"""Turns messages into token ids, and names the ids that end a turn. Workers use it for prompts, pipelines for training.

The chat template is the tokenizer's own, or a named one of `services.tokens.templates`. Text that people typed never
becomes a control token: where a message spells one (`<|im_end|>`), the tokenizer gets it in two pieces. A system turn
for which the template has no place becomes a part of the next user turn (`system_turns.py`). `gguf_tokenizer.py` builds
the tokenizer of a GGUF. Nothing here needs torch. To make a tokenizer loads the libraries `tokenizers` and
`transformers`; to import this module does not.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.errors import ConfigurationError, TemplateError
from services.models.catalogue import ModelSource
from services.models.generation_config import end_token_ids
from services.tokens.answer_format import find_format, with_reasoning
from services.tokens.answer_parser import AnswerParser, MarkedTokens
from services.tokens.call_families import CallFormat, find_call_format
from services.tokens.gguf_tokenizer import read_gguf_tokenizer
from services.tokens.rendering import render_template
from services.tokens.supervision import (
    REASONING,
    Beginnings,
    EarlierTurnsDiffer,
    PromptDiffers,
    Stretches,
    SupervisedSequence,
    Supervision,
    check_turns,
    left_out,
)
from services.tokens.system_turns import Turn, probe
from services.tokens.templates import all_templates, choose_template, named_template
from services.tokens.text_encoding import TextEncoder
from services.tokens.tool_turns import ToolPlaces, mapped, texts_of_tools, written_call
from services.tokens.tool_turns import probe as probe_tools
from services.tokens.turn_tokens import TEXT_ENDS, turn_ends, turn_marks
from services.tokens.turnwise_template import beginnings, marked_by_turns
from services.tokens.written_templates import written
from services.wire.messages import CallMessage, Message, ResultMessage, Tool

if TYPE_CHECKING:  # the libraries themselves are loaded by whoever makes a tokenizer
    from tokenizers import Tokenizer

_PRIVATE_USE = range(0xE000, 0xF8FF)  # where a mark that no message contains is looked for
_REWRITTEN_TOKENS = 64  # more that differ in a prompt are no end of it: the template writes earlier turns differently
_CONTEXT_TOKENS = 32  # of a bare prompt, which decide how the text behind it begins


@dataclass(frozen=True)
class Prompt:
    """Token ids for a model, of which the last ones, from `begun` on, are the beginning of the text that it goes on."""

    ids: list[int]
    begun: int


class ChatTokenizer:
    """Renders conversations for one model. Safe to use from several threads."""

    def __init__(
        self, tokenizer: Any, *, template: str = "", model_name: str = "", eos_token_ids: Iterable[int] = ()
    ) -> None:
        """`tokenizer` is a fast tokenizer of `transformers`; `template` a name of `templates.py` or empty."""
        self._tokenizer = tokenizer
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        self._backend.no_truncation()  # a tokenizer.json may bring both: then a long text is cut without a word
        self._backend.no_padding()
        self.chat_template, self.stop_strings, reason = _chosen_template(template, model_name, tokenizer.chat_template)
        self._system_turns = probe(lambda conversation: self._rendered(conversation, ask=True))
        self.template_reason = f"{reason} {self._system_turns.finding}".rstrip()
        added = self._backend.get_added_tokens_decoder().values()
        self._marks = turn_marks(self._written, {token.content for token in added if not token.special})
        self._turn_ends = turn_ends(self._written, self.special_tokens() | self._marks)
        self.stop_token_ids: tuple[int, ...] = self._end_tokens(eos_token_ids)
        self._text = TextEncoder(self._backend, self._marks)
        self._marked = self._answer_marks()
        self._first_ids = _first_ids(self._backend)
        self._prompts: dict[bool | None, str] = {}  # by `thinking`, of a template that writes turn by turn
        self.has_thinking_switch = self._has_thinking_switch()

    def decoder(self) -> "Tokenizer":
        """The object of the library `tokenizers`; `workers.detokenizer.TextDecoder` reads it."""
        return self._backend

    def named_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, unk_token and pad_token, if the tokenizer names them."""
        named = self._tokenizer.special_tokens_map
        kinds = ("bos_token", "eos_token", "unk_token", "pad_token")
        return {kind: str(named[kind]) for kind in kinds if named.get(kind)}

    def special_tokens(self) -> frozenset[str]:
        """The texts of the tokenizer's special tokens."""
        added = self._backend.get_added_tokens_decoder().values()
        return frozenset(token.content for token in added if token.special)

    def answer_parser(self, prompt_ids: list[int]) -> AnswerParser | None:
        """Splits what the model generates after this prompt into reasoning and answer. None: it is all answer."""
        return self._marked.parser(prompt_ids) if self._marked else None

    @cached_property
    def call_format(self) -> CallFormat | None:
        """How the model calls tools. None: its template does not write tools, or their calls would stay text."""
        if self._tool_places.missing:
            return None

        def rendered(turns: Sequence[Turn], ask: bool, tools: Sequence[Tool]) -> str:
            return self._rendered(turns, ask, tools=tools)

        try:
            return find_call_format(*written_call(rendered, self._tool_places))
        except TemplateError:
            return None

    def encode_beginning(self, text: str) -> list[int]:
        """The ids of what an answer begins with, behind its prompt. Marks that it spells are tokens."""
        return self._text.encode(["", text])

    def render(
        self, messages: Sequence[Message], thinking: bool | None = None, *, tools: Sequence[Tool] = ()
    ) -> list[int]:
        """The prompt that asks for the next assistant message. Raises TemplateError if the template refuses it.

        `thinking` is what the template's switch for reasoning is set to; None leaves it as the template has it.
        """
        return self._text.encode(self._pieces(messages, ask=True, thinking=thinking, tools=tools))

    def count(
        self,
        messages: Sequence[Message],
        thinking: bool | None = None,
        *,
        continue_final: bool = False,
        tools: Sequence[Tool] = (),
    ) -> int:
        """`len(render(messages, thinking))` or that of `render_begun`, faster. Raises TemplateError."""
        continued = _continued_field(messages) if continue_final else ""
        return self._text.count(
            self._pieces(messages, ask=not continue_final, thinking=thinking, continued=continued, tools=tools)
        )

    def render_begun(
        self, messages: Sequence[Message], thinking: bool | None = None, *, tools: Sequence[Tool] = ()
    ) -> Prompt:
        """The prompt that ends where the text of the last message ends, the assistant's. Raises TemplateError.

        The ids are those of `transformers` with `continue_final_message`.
        """
        ids = self._begun(messages, thinking, tools)
        return Prompt(ids, self._beginning(ids, messages, thinking, tools))

    def encode_bare(self, text: str) -> Prompt:
        """A text without a chat template, behind the tokens that the tokenizer puts in front of every text.

        Whoever sends one writes what the model reads: control tokens that it spells are tokens, and a BOS counts once.
        """
        ids = self._text.encode([text])
        if ids[: len(self._first_ids)] != self._first_ids:
            ids = [*self._first_ids, *ids]
        return Prompt(ids, max(len(self._first_ids), len(ids) - _CONTEXT_TOKENS))

    def render_whole(self, messages: Sequence[Message]) -> list[int]:
        """A conversation for training, with its last answer and no prompt after it. Raises TemplateError."""
        return self._text.encode(self._pieces(messages, ask=False))

    def count_whole(self, messages: Sequence[Message], *, tools: Sequence[Tool] = ()) -> int:
        """`len(render_whole(messages))`, faster, with tools if there are any. Raises TemplateError."""
        contents = [message.content for message in messages]
        return self._text.count(self._pieces(messages, ask=False, tools=tools), contents)

    def supervised(self, messages: Sequence[Message]) -> SupervisedSequence:
        """A conversation for training, with its supervised tokens: all that the model would generate.

        The ids are those of the prompt that serving renders, then those of the answer, and so on: no token crosses
        from one to the other. Raises TemplateError for roles, templates and tokenizers that do not allow this.
        """
        conversation, mark, supervision = self._supervision(messages)
        return self._sequence(supervision.whole(), mark, conversation)

    def samples(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), thinking: bool | None = None
    ) -> list[SupervisedSequence]:
        """A conversation for training: `supervised(messages)` alone, or one sequence for each answer.

        There is one for each answer where the template writes earlier turns differently later. With `thinking` false,
        or where no prompt of this `thinking` leads to reasoning, reasoning is left out. Raises TemplateError.
        """
        thought = any(message.reasoning for message in messages)
        if not (thought and thinking is False):
            try:
                return self._samples(messages, tools, thinking)
            except PromptDiffers:
                if not thought:
                    raise
        silent = [replace(message, reasoning="") for message in messages]
        found = self._samples(silent, tools, thinking)
        return [replace(sequence, left_out=sequence.left_out | {REASONING}) for sequence in found]

    def _samples(
        self, messages: Sequence[Message], tools: Sequence[Tool], thinking: bool | None
    ) -> list[SupervisedSequence]:
        conversation, mark, supervision = self._supervision(messages, tools, thinking)
        try:
            return [self._sequence(supervision.whole(), mark, conversation)]
        except EarlierTurnsDiffer:
            answered = [turn for turn in conversation if turn["role"] == "assistant"]
            each = zip(supervision.each(), answered, strict=True)
            return [self._sequence(stretches, mark, [turn]) for stretches, turn in each]

    def _supervision(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), thinking: bool | None = None
    ) -> tuple[list[Turn], str, Supervision]:
        check_turns(messages)
        self._check_tools(messages, tools)
        conversation, mark = self._conversation(messages, tools)
        given = self._defused_tools(tools, mark)

        def rendered(conversation: list[Turn], ask: bool) -> str:
            return self._template(conversation, ask, thinking, given)

        known = self._by_turns(conversation, thinking, given)
        prompt = self._prompt_behind_turns(thinking) if known else ""
        beginnings = Beginnings(conversation, rendered, known, prompt)
        return conversation, mark, Supervision(beginnings, rendered, self._turn_end, self._turn_ends.unwritten)

    def _by_turns(self, conversation: list[Turn], thinking: bool | None, tools: Sequence[Tool]) -> list[str]:
        """The texts of the conversation's beginnings, where the template writes turn by turn; else none.

        None too where it refuses the conversation or loses a system turn: what is wrong is found beginning by
        beginning.
        """
        try:
            if not self._marked_by_turns or self._system_turns.with_system_text(conversation) != conversation:
                return []
            text = self._rendered(conversation, False, thinking, tools=tools, template=self._marked_by_turns)
        except TemplateError:
            return []
        return beginnings(text, len(conversation))

    @cached_property
    def _marked_by_turns(self) -> str:
        return marked_by_turns(self.chat_template)

    def _prompt_behind_turns(self, thinking: bool | None) -> str:
        if thinking not in self._prompts:
            word: list[Turn] = [{"role": "user", "content": "word"}]
            asking, plain = (self._rendered(word, ask, thinking) for ask in (True, False))
            self._prompts[thinking] = asking.removeprefix(plain)
        return self._prompts[thinking]

    def _check_tools(self, messages: Sequence[Message], tools: Sequence[Tool]) -> None:
        if tools or any(isinstance(message, CallMessage | ResultMessage) for message in messages):
            self._tool_places.check(messages, tools)

    @cached_property
    def _tool_places(self) -> ToolPlaces:
        return probe_tools(lambda conversation, tools: self._rendered(conversation, ask=False, tools=tools))

    def _sequence(self, stretches: Stretches, mark: str, conversation: Sequence[Turn]) -> SupervisedSequence:
        ids: list[int] = []
        mask: list[int] = []
        before = ""
        for text, learnt in stretches:
            ids += self._text.encode(text.split(mark) if mark else [text], after=before)
            mask += [int(learnt)] * (len(ids) - len(mask))
            before = text
        return SupervisedSequence(ids, mask, left_out(stretches, conversation))

    def _begun(self, messages: Sequence[Message], thinking: bool | None, tools: Sequence[Tool]) -> list[int]:
        field = _continued_field(messages)
        pieces = self._pieces(messages, ask=False, thinking=thinking, continued=field, tools=tools)
        return self._text.encode(pieces)

    def _beginning(
        self, ids: list[int], messages: Sequence[Message], thinking: bool | None, tools: Sequence[Tool]
    ) -> int:
        """Where the model's own text begins in these ids: behind what they share with the prompt that asks for it.

        A template may write the question differently once an answer follows (Mistral 3 moves its system text). Then it
        begins behind what the ids share with those of an answer that is empty.
        """
        earlier = messages[:-1]
        asked = _unless_refused(lambda: self.render(earlier, thinking, tools=tools)) if earlier else []
        shared = _num_shared(ids, asked)
        if asked and len(asked) - shared <= _REWRITTEN_TOKENS:
            return shared
        empty = [*earlier, Message("assistant", "")]
        return _num_shared(ids, _unless_refused(lambda: self._begun(empty, thinking, tools)))

    def _pieces(
        self,
        messages: Sequence[Message],
        *,
        ask: bool,
        thinking: bool | None = None,
        continued: str = "",
        tools: Sequence[Tool] = (),
    ) -> list[str]:
        """The rendered text in pieces, cut inside every control token that a message spells."""
        self._check_tools(messages, tools)
        conversation, mark = self._conversation(messages, tools)
        turns = self._system_turns.with_system_text(conversation)
        text = self._rendered(turns, ask, thinking, continued, self._defused_tools(tools, mark))
        return text.split(mark) if mark else [text]

    def _conversation(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[list[Turn], str]:
        """The turns as the template gets them, and the mark inside the control tokens that they spell.

        Where no message spells one, the template sees the text as it was written, and the mark is empty.
        """
        texts = [(m.content + m.reasoning, m.role == "assistant") for m in messages]
        texts += texts_of_tools(messages, tools)
        mark = ""
        if any(self._text.spells_control(text, own=own) for text, own in texts):
            mark = _unused_character(text for text, _ in texts)
        return [self._turn(message, mark) for message in messages], mark

    def _turn(self, message: Message, mark: str) -> Turn:
        """For the template: which of the earlier reasoning the model reads again is the template's to say."""
        own = message.role == "assistant"
        turn: Turn = {"role": message.role, "content": self._defused(message.content, mark, own=own)}
        if isinstance(message, CallMessage | ResultMessage):
            turn |= self._tool_places.fields(message, lambda text: self._defused(text, mark, own=own))
        if not message.reasoning:
            return turn
        return turn | with_reasoning(self._defused(message.reasoning, mark, own=own))

    def _defused_tools(self, tools: Sequence[Tool], mark: str) -> Sequence[Tool]:
        given: Sequence[Tool] = mapped(tools, lambda text: self._defused(text, mark, own=False))
        return given

    def _defused(self, text: str, mark: str, *, own: bool) -> str:
        return self._text.defused(text, mark, own=own) if mark else text

    def _template(
        self, conversation: list[Turn], ask: bool, thinking: bool | None = None, tools: Sequence[Tool] = ()
    ) -> str:
        turns = self._system_turns.with_system_text(conversation)
        return self._rendered(turns, ask, thinking, tools=tools)

    def _written(self, conversation: list[Turn]) -> str:
        return self._rendered(conversation, ask=False)

    def _rendered(
        self,
        conversation: Sequence[Turn],
        ask: bool,
        thinking: bool | None = None,
        continued: str = "",
        tools: Sequence[Tool] = (),
        template: str = "",
    ) -> str:
        named_tokens = self._tokenizer.special_tokens_map
        if not (template or continued or tools):
            text = written(self.chat_template, conversation, ask=ask, named_tokens=named_tokens)
            if text is not None:
                return text
        return render_template(
            template or self.chat_template,
            conversation,
            ask=ask,
            thinking=thinking,
            named_tokens=named_tokens,
            continued=continued,
            tools=tools,
        )

    def _has_thinking_switch(self) -> bool:
        """Whether a prompt differs by what the switch for reasoning is set to."""
        question: list[Turn] = [{"role": "user", "content": "word"}]
        try:
            return self._rendered(question, True, True) != self._rendered(question, True, False)
        except TemplateError:
            return False

    def _answer_marks(self) -> MarkedTokens | None:
        added = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        found = find_format(self.chat_template, added, self._rendered)
        return MarkedTokens(found, self._backend) if found else None

    @cached_property
    def _turn_end(self) -> "re.Pattern[str]":
        """A pattern of the tokens that end a turn. Raises TemplateError if the tokenizer has none."""
        added = self._backend.get_added_tokens_decoder()
        texts = [added[token_id].content for token_id in self.stop_token_ids if token_id in added]
        if not texts:
            raise TemplateError("the tokenizer has no end-of-turn token; name one as eos_token in its configuration")
        return re.compile("|".join(map(re.escape, texts)))

    def _end_tokens(self, eos_token_ids: Iterable[int]) -> tuple[int, ...]:
        ends = set(eos_token_ids)
        if self._tokenizer.eos_token_id is not None:
            ends.add(self._tokenizer.eos_token_id)
        special = self.special_tokens() | self._marks
        texts = self._turn_ends.tokens | (special & set(TEXT_ENDS))
        found = (self._backend.token_to_id(text) for text in texts)
        ends.update(token_id for token_id in found if token_id is not None)
        return tuple(sorted(ends))


def load_tokenizer(source: ModelSource, *, template: str = "") -> ChatTokenizer:
    """The tokenizer of a model. Raises ConfigurationError when the model has no readable tokenizer."""
    if source.base is not None and not (Path(source.location) / "tokenizer_config.json").is_file():
        return load_tokenizer(source.base, template=template)  # an adapter from elsewhere may bring none
    if source.gguf is not None:
        tokenizer, eos_token_ids = read_gguf_tokenizer(source.gguf)
    else:
        tokenizer, eos_token_ids = _from_checkpoint(source.location)
    return ChatTokenizer(tokenizer, template=template, model_name=source.name, eos_token_ids=eos_token_ids)


def _from_checkpoint(location: str) -> tuple[Any, set[int]]:
    """The tokenizer of a folder or hub id, and the end tokens in its generation_config.json."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError, ImportError) as error:
        remedy = "" if Path(location).exists() else "; the first download from the hub needs the network"
        raise ConfigurationError(f"cannot load the tokenizer of {location!r}{remedy}: {error}") from None
    if not tokenizer.is_fast:
        raise ConfigurationError(f"{location!r} has no tokenizer.json; save it once with a fast tokenizer")
    return tokenizer, end_token_ids(location)


def _chosen_template(explicit: str, model_name: str, own: Any) -> tuple[str, tuple[str, ...], str]:
    """Jinja text, stop strings, and the reason as a sentence. `own` is the tokenizer's: none, one, or several."""
    templates: dict[str, str] = own if isinstance(own, dict) else {"default": own} if own else {}
    if explicit in templates and explicit not in all_templates():
        return templates[explicit], (), f"Chat template {explicit}: the tokenizer's own of that name."
    name, reason = choose_template(explicit, model_name, bool(templates))
    if name:
        chosen = named_template(name)
        return chosen.jinja, chosen.stop, reason
    if "default" not in templates:
        known = ", ".join(sorted(templates))
        raise ConfigurationError(f"the tokenizer has no default chat template; choose one of its own by name: {known}")
    return templates["default"], (), reason


def _continued_field(messages: Sequence[Message]) -> str:
    """The field of the last turn in which its text ends."""
    last = messages[-1]
    return "reasoning_content" if last.reasoning and not last.content else "content"


def _unless_refused(render: Callable[[], list[int]]) -> list[int]:
    """The ids; none where the template refuses the conversation."""
    try:
        return render()
    except TemplateError:
        return []


def _num_shared(ids: Sequence[int], others: Sequence[int]) -> int:
    """How many ids the two begin with alike."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(ids), len(others)))


def _first_ids(backend: "Tokenizer") -> list[int]:
    """The tokens that a tokenizer puts in front of every text: a BOS, or nothing. What it puts behind is no prompt."""
    word = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    starts = [at for at in range(len(whole) - len(word) + 1) if whole[at : at + len(word)] == word]
    return list(whole[: starts[0]]) if starts else []


def _unused_character(texts: Iterable[str]) -> str:
    text = "".join(texts)
    for code in _PRIVATE_USE:
        if chr(code) not in text:
            return chr(code)
    raise TemplateError(f"the messages use all {len(_PRIVATE_USE)} private-use characters; remove some")
