"""The messages on the wire: a request and the events of its answer, as JSON with a version.

A reader's cursor is (text offset in Unicode code points, nonce), never a stream id.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import orjson

from services.errors import InvalidRequest, ProtocolError
from services.wire.keys import VERSION, check_name

TERMINAL = frozenset({"finished", "failed", "cancelled"})

EventKind = Literal["begin", "tokens", "beat", "finished", "failed", "cancelled"]
Priority = Literal["interactive", "batch"]
Truncation = Literal["auto", "disabled"]
PartKind = Literal["reasoning", "answer", "call", "arguments"]
"""A call of a tool is two parts: its name (`call`), then its arguments, a JSON text that is never empty."""
ANSWER: PartKind = "answer"
Part = tuple[int, str]
"""Where a part of an answer's text begins, in code points, and its kind: a `PartKind`, or one of a later build.
Text before the first part is the answer's."""
Alternative = tuple[str, float]
"""A token's bytes, each as the code point of the same number, and the logarithm of its probability."""
TokenLogprob = tuple[str, float, tuple[Alternative, ...]]
"""The same of a token of an answer, and the likeliest tokens in its place, as many as the request asks for."""
Place = tuple[int, int]
"""The number of a token in its answer, and where its text begins, in code points."""
MAX_TOP_LOGPROBS = 20


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. `reasoning`: what the assistant thought before its answer, which is the content."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning: str = ""

    @property
    def text(self) -> str:
        """All that was written in this turn."""
        return self.reasoning + self.content

    def encoded(self) -> dict[str, Any]:
        """For JSON. Without reasoning and tools, every build reads it."""
        return {name: value for name, value in asdict(self).items() if value or name != "reasoning"}

    @classmethod
    def decode(cls, raw: Mapping[str, Any]) -> "Message":
        """The message that `encoded` gave, also that of a subclass. Raises KeyError or TypeError for others."""
        if "calls" in raw:
            return CallMessage(**{**raw, "calls": tuple(ToolCall(**call) for call in raw["calls"])})
        return ResultMessage(**raw) if raw["role"] == "tool" else Message(**raw)


Tool = Mapping[str, Any]
"""One tool as OpenAI's API describes it: {"type": "function", "function": {"name", "description", "parameters"}}."""


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool. `identity` is the id by which a result refers to it; empty where the data name none."""

    name: str
    arguments: Mapping[str, Any]
    identity: str = ""


@dataclass(frozen=True)
class CallMessage(Message):
    """An assistant's turn that calls tools. The content is what the assistant says beside the calls."""

    calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        calls = [f"{call.name}{orjson.dumps(call.arguments).decode()}" for call in self.calls]
        return "".join([self.reasoning, self.content, *calls])


@dataclass(frozen=True)
class ResultMessage(Message):
    """What a tool returned; its role is `tool`. `call`: the id of the call that it answers; `name`: of the tool."""

    call: str = ""
    name: str = ""


_ALWAYS_WRITTEN = ("max_new_tokens", "seed", "stop")  # the first builds wrote them, set or not
_LEFT_OUT_IF_FALSE = ("ignore_eos", "logprobs", "top_logprobs")


@dataclass(frozen=True)
class SamplingOptions:
    """The options of generation that a client may set. None: the model's default. No answer is unbounded.

    `presence_penalty` and `frequency_penalty` count the tokens of the answer, `repetition_penalty` those of the prompt
    too. `logit_bias`: token id → what is added to its logit. `ignore_eos`: no token ends the answer. `response_format`:
    the form of the answer, as `services.grammar.response_format` has it. `logprobs`: whether the answer has the log
    probabilities of its tokens, and of the `top_logprobs` likeliest ones in the place of each.
    """

    max_new_tokens: int = 512
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    ignore_eos: bool = False
    response_format: Mapping[str, Any] | None = None
    logprobs: bool = False
    top_logprobs: int = 0

    def over(self, defaults: "SamplingDefaults") -> "SamplingDefaults":
        """What applies with this model's defaults."""
        return replace(defaults, **{name: value for name, value in self._drawn().items() if value is not None})

    def encoded(self) -> dict[str, Any]:
        """For JSON. An option that is not set is left out, which every build reads."""
        biases = {str(token_id): bias for token_id, bias in self.logit_bias.items()}
        unset = {"logit_bias": biases or None, **{name: getattr(self, name) or None for name in _LEFT_OUT_IF_FALSE}}
        raw = {**asdict(self), **unset}
        return {name: value for name, value in raw.items() if name in _ALWAYS_WRITTEN or value is not None}

    @classmethod
    def decode(cls, raw: Mapping[str, Any]) -> "SamplingOptions":
        """The options that `encoded` gave. Raises KeyError, TypeError or ValueError for others."""
        biases = {int(token_id): bias for token_id, bias in raw.get("logit_bias", {}).items()}
        return cls(**{**raw, "stop": tuple(raw["stop"]), "logit_bias": biases})

    def _drawn(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SamplingDefaults.__dataclass_fields__}


@dataclass(frozen=True)
class SamplingDefaults:
    """What applies where a request leaves an option open. These are the values for a model that names none."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


_USUAL = {
    "truncation": "auto",
    "thinking": None,
    "continue_final": False,
    "prompt": "",
    "tools": (),
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "strict_tools": (),
}
# Of requests that earlier builds would answer wrongly: those refuse the version.
_EXACT_VERSION = VERSION + 0.1
_TOOLS_VERSION = VERSION + 0.2
_LATEST_VERSION = VERSION + 0.3  # of strict tools and log probabilities
_VERSIONS = (VERSION, _EXACT_VERSION, _TOOLS_VERSION, _LATEST_VERSION)
ANY_TOOL = "required"


@dataclass(frozen=True)
class ChatRequest:
    """One question. A front end stores it with the request; a worker reads it.

    `truncation`: of a conversation longer than the model's context, the worker leaves out the oldest rounds, or
    (`disabled`) refuses it. Workers of the first builds always refuse it. `thinking`: whether the model thinks before
    its answer (None: as its template has it); a model that has no choice ignores it. `continue_final`: the last message
    is the beginning of the answer, and the model goes on at its end. `prompt`: a bare text that the model continues,
    without a chat template; `messages` is then empty.

    `tools`: what the model may call. `tool_choice`: `auto`, `required` (it calls one at least), or the name of the
    tool that it calls, behind a colon. Without `parallel_tool_calls` the answer ends with its first call.
    `strict_tools`: names of those whose arguments must be instances of their schemas.
    """

    rid: str
    user: str
    model: str
    messages: tuple[Message, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    priority: Priority = "interactive"
    truncation: Truncation = "auto"
    thinking: bool | None = None
    continue_final: bool = False
    prompt: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    strict_tools: tuple[str, ...] = ()

    @property
    def must_call(self) -> bool:
        """Whether the answer is a call of a tool."""
        return self.tool_choice != "auto"

    @property
    def calls_once(self) -> bool:
        """Whether the answer ends with its first call."""
        return not self.parallel_tool_calls or self.tool_choice[:1] == ":"

    @property
    def has_tools(self) -> bool:
        """Whether a worker must know tools to answer it."""
        return bool(self.tools) or any(isinstance(each, CallMessage | ResultMessage) for each in self.messages)

    def encode(self) -> bytes:
        raw = {"v": self._version(), **asdict(self), "sampling": self.sampling.encoded()}
        raw["messages"] = [message.encoded() for message in self.messages]
        return orjson.dumps({name: value for name, value in raw.items() if name not in _USUAL or value != _USUAL[name]})

    def _version(self) -> float:
        if self.strict_tools or self.sampling.logprobs:
            return _LATEST_VERSION
        if self.has_tools:
            return _TOOLS_VERSION
        return _EXACT_VERSION if self.continue_final or self.prompt else VERSION

    @classmethod
    def decode(cls, data: bytes) -> "ChatRequest":
        """Raises ProtocolError unless `encode` of this version wrote the data."""
        try:
            raw = orjson.loads(data)
            if raw["v"] not in _VERSIONS:
                raise ProtocolError(f"request of protocol version {raw['v']!r:.20}; this process speaks {VERSION}")
            sampling = SamplingOptions.decode(raw["sampling"])
            messages = tuple(Message.decode(message) for message in raw["messages"])
            rid, user, model = (check_name(raw[name], name) for name in ("rid", "user", "model"))
            rest: Any = {name: raw.get(name, usual) for name, usual in _USUAL.items()}
            rest["tools"], rest["strict_tools"] = tuple(rest["tools"]), tuple(rest["strict_tools"])
            return cls(rid, user, model, messages, sampling, raw["priority"], **rest)
        except (KeyError, TypeError, ValueError, AttributeError, InvalidRequest) as error:
            raise ProtocolError(f"undecodable request of {len(data)} bytes: {error}") from None


@dataclass(frozen=True)
class Event:
    """One journal entry or live event of an answer.

    `off` counts tokens and `toff` counts Unicode code points before this entry; they move independently, since a
    detokenizer holds back incomplete characters. `ids` and `text` continue from there. Terminal kinds carry the last
    held-back text, the reason (`stop`, `length`) or error `code`, and `usage`.

    `context` is set if the worker left out messages: `prompt_tokens`, `context_tokens` and `omitted_messages` of the
    prompt. An owner says so with its first tokens, and in `usage`.

    `parts`: those that begin within `text`. Models that do not reason name none.

    `logprobs`, where the request asks for them: one for each of `ids`; None for a token that is no text of the answer,
    such as a reasoning's. `places`: of the tokens whose text begins within `text`; their ids may be in an event before.
    """

    kind: EventKind
    nonce: str
    off: int = 0
    toff: int = 0
    ids: tuple[int, ...] = ()
    text: str = ""
    code: str = ""
    message: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    context: dict[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    logprobs: tuple[TokenLogprob | None, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def terminal(self) -> bool:
        return self.kind in TERMINAL

    def encode(self) -> bytes:
        """JSON without the fields that hold their default, so a token entry stays small."""
        raw: dict[str, Any] = {"v": VERSION, "kind": self.kind, "nonce": self.nonce, "off": self.off, "toff": self.toff}
        if self.ids:
            raw["ids"] = self.ids
        if self.text:
            raw["text"] = self.text
        if self.context:
            raw["context"] = self.context
        if self.parts:
            raw["parts"] = self.parts
        if self.logprobs:
            raw["logprobs"] = self.logprobs
        if self.places:
            raw["places"] = self.places
        if self.terminal:
            raw.update(code=self.code, message=self.message, usage=self.usage)
        return orjson.dumps(raw)

    @classmethod
    def decode(cls, data: bytes) -> "Event":
        """Raises ProtocolError unless `encode` or a script of this version wrote the data."""
        try:
            raw = orjson.loads(data)
            if raw["v"] != VERSION:
                raise ProtocolError(f"event of protocol version {raw['v']!r:.20}; this process speaks {VERSION}")
            return cls(
                raw["kind"],
                raw["nonce"],
                raw["off"],
                raw["toff"],
                tuple(raw.get("ids", ())),
                raw.get("text", ""),
                raw.get("code", ""),
                raw.get("message", ""),
                raw.get("usage") or {},
                raw.get("context") or {},
                tuple((offset, kind) for offset, kind in raw.get("parts", ())),
                tuple(map(_decoded_logprob, raw.get("logprobs", ()))),
                tuple((number, offset) for number, offset in raw.get("places", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"undecodable event of {len(data)} bytes: {error}") from None


def _decoded_logprob(raw: Any) -> TokenLogprob | None:
    if raw is None:
        return None
    token, logprob, likeliest = raw
    return token, logprob, tuple((other, its_logprob) for other, its_logprob in likeliest)
