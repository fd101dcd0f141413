"""The bodies that clients send, as pydantic models: what is served, within which bounds, and what is refused.

A field that OpenAI does not know is ignored. A field that OpenAI knows and this server cannot honour is refused with
its name, unless its value asks for nothing.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.errors import InvalidRequest, Unsupported, shown
from services.field_errors import in_words
from services.openai.answer_forms import Form, ResponseFormat, StructuredOutputs
from services.wire.messages import MAX_TOP_LOGPROBS
from services.wire.parsing import MAX_BIASES

MAX_CHOICES = 64  # of one body: its prompts, times `n`
MAX_TOKENS = 131_072

Body = TypeVar("Body", bound=BaseModel)
FIRST_FAULT = Field(fail_fast=True)  # of a list: a body can have 400,000, and pydantic would describe each of them
Stop = Annotated[str, Field(min_length=1, max_length=256)]
TopLogprobs = Annotated[
    int | None,
    Field(ge=0, le=MAX_TOP_LOGPROBS, description="How many of the likeliest tokens, for each token; none by default."),
]


class StreamOptions(BaseModel):
    include_usage: bool | None = Field(None, description="Whether a last chunk has the usage.")


class TextPart(BaseModel):
    """A part of a message. Only text is served."""

    type: str
    text: str = ""


class FunctionCall(BaseModel):
    name: str
    arguments: str = Field("", description="A JSON object as text; empty: no arguments.")


class CallBody(BaseModel):
    """A call of a tool that an assistant made."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class FunctionBody(BaseModel):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of the arguments.")
    strict: bool | None = Field(None, description="Whether the arguments must be an instance of the parameters.")


class ToolBody(BaseModel):
    """A tool that the model may call."""

    type: str = Field(description="Only `function` is served.")
    function: FunctionBody | None = None


class FunctionName(BaseModel):
    name: str


class NamedTool(BaseModel):
    """The tool that the model must call."""

    type: Literal["function"]
    function: FunctionName


class ChatMessage(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[TextPart], FIRST_FAULT] | None = None
    reasoning_content: str | None = Field(None, description="What an assistant thought before it answered.")
    reasoning: str | None = Field(None, description="The same under its other name.")
    tool_calls: Annotated[list[CallBody], FIRST_FAULT] | None = Field(None, description="What an assistant called.")
    tool_call_id: str | None = Field(None, description="The call whose result this message is.")


class ChatTemplateOptions(BaseModel):
    """`chat_template_kwargs`: the switch for thinking, under the names that templates have for it."""

    model_config = ConfigDict(extra="forbid")

    enable_thinking: bool | None = None
    thinking: bool | None = None


class SamplingFields(BaseModel):
    """What both kinds of completions have in common."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field(description="Name of a served model, as `/v1/models` lists it.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="Answers; each is a request of its own.")
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=1_000_000, description="-1 and 0: all tokens.")
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.1, le=10)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=MAX_BIASES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    stop: Stop | Annotated[list[Stop], Field(max_length=16, fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = Field(None, description="The same in vLLM's words.")
    user: str | None = Field(None, description="Accepted and not used.")

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> "SamplingFields":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only allowed when stream is true")
        return self

    @model_validator(mode="after")
    def _one_form(self) -> "SamplingFields":
        if self.response_format is not None and self.structured_outputs is not None:
            raise ValueError("response_format and structured_outputs say the same; leave one of the two out")
        return self

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def form(self) -> Form | None:
        """What the answer must look like. Raises InvalidRequest."""
        if self.structured_outputs is not None:
            return self.structured_outputs.form()
        return self.response_format.form() if self.response_format else None

    def sampling(self, max_tokens: int | None) -> dict[str, Any]:
        """The options under the wire's names; what is open is left out."""
        values: dict[str, Any] = {
            "max_new_tokens": max_tokens or MAX_TOKENS,  # of which the worker takes what the context has room for
            "temperature": self.temperature,
            "top_p": max(self.top_p, 0.001) if self.top_p is not None else None,
            "top_k": max(self.top_k, 0) if self.top_k is not None else None,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": self.logit_bias or None,
            "seed": self.seed % 2**31 if self.seed is not None else None,
            "stop": [self.stop] if isinstance(self.stop, str) else self.stop,
            "ignore_eos": self.ignore_eos or None,
            "response_format": self.form,
        }
        return {name: value for name, value in values.items() if value is not None}


class ChatCompletionBody(SamplingFields):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], FIRST_FAULT]
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="The same as max_tokens.")
    reasoning_effort: str | None = Field(None, description="`none` switches thinking off, where the model can.")
    chat_template_kwargs: ChatTemplateOptions | None = None
    continue_final_message: bool | None = Field(
        None, description="Whether an assistant's last message is continued. It is, unless this is false."
    )
    add_generation_prompt: bool | None = Field(None, description="The opposite of continue_final_message.")
    metadata: dict[str, Any] | None = Field(None, description="Accepted and not used.")
    tools: Annotated[list[ToolBody], FIRST_FAULT] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = Field(None, description="Whether an answer may call more than one tool.")
    logprobs: bool | None = Field(None, description="Whether the answer has the log probabilities of its tokens.")
    top_logprobs: TopLogprobs = None

    @property
    def num_logprobs(self) -> int | None:
        """How many of the likeliest tokens are asked for; None: no log probabilities are. Raises InvalidRequest."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs has a meaning with logprobs=true only", field="top_logprobs")
        return self.top_logprobs or 0 if self.logprobs else None

    @model_validator(mode="after")
    def _one_way_to_go_on(self) -> "ChatCompletionBody":
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt cannot both be true")
        return self

    @property
    def tool_options(self) -> dict[str, Any]:
        """What a request says of tools; nothing where the answer may call none."""
        chosen = self.tool_choice
        if chosen == "none":
            return {}
        return {
            "tools": [tool.model_dump() for tool in self.tools or ()],
            "tool_choice": f":{chosen.function.name}" if isinstance(chosen, NamedTool) else chosen,
            "parallel_tool_calls": self.parallel_tool_calls,
        }

    @property
    def thinking(self) -> bool | None:
        """The switch for thinking, however it was said; None: as the model does by itself."""
        options = self.chat_template_kwargs or ChatTemplateOptions()
        told = options.enable_thinking if options.enable_thinking is not None else options.thinking
        return False if told is None and self.reasoning_effort == "none" else told


class CompletionBody(SamplingFields):
    """The body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)]
    echo: bool | None = Field(None, description="Whether the text begins with the prompt.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_TOP_LOGPROBS, description="How many of the likeliest tokens are told for each token."
    )

    @property
    def num_logprobs(self) -> int | None:
        """As of a chat. Raises Unsupported for those of a prompt."""
        if self.echo and self.logprobs is not None:
            raise Unsupported(
                "echo beside logprobs: a prompt has no log probabilities here; leave one out", field="echo"
            )
        return self.logprobs

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


# Known to OpenAI, not honoured here: field → the values that ask for nothing.
UNSERVED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "suffix": ("",),
    "web_search_options": (),
}


def parsed(data: bytes, kind: type[Body], unserved: Mapping[str, tuple[Any, ...]] = UNSERVED) -> Body:
    """A body as its model. Raises InvalidRequest or Unsupported, which name the field."""
    try:
        raw = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    return served(raw, kind, unserved)


def served(raw: object, kind: type[Body], unserved: Mapping[str, tuple[Any, ...]] = UNSERVED) -> Body:
    """The same of a body that was read from JSON."""
    if not isinstance(raw, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {type(raw).__name__}")
    _refuse_unserved(raw, unserved)
    return checked(raw, kind)


def checked(raw: Mapping[str, Any], kind: type[Body]) -> Body:
    """A body or a query. Raises InvalidRequest, which names the field."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _in_words(error) from None


def _refuse_unserved(raw: dict[str, Any], unserved: Mapping[str, tuple[Any, ...]]) -> None:
    for field, harmless in unserved.items():
        value: Any = raw
        for name in field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None and (type(value), value) not in [(type(each), each) for each in harmless]:
            raise Unsupported(f"{field} is not served by this server; leave it out", field=field)


def _is_field(part: str) -> bool:
    return part.isidentifier() and part != "str"


def _in_words(error: ValidationError) -> InvalidRequest:
    problems = error.errors(include_url=False)
    # Of a union each branch has a problem: the one that fits by its type, if one does, says what is wrong.
    problem = next((each for each in problems if not each["type"].endswith("_type")), problems[0])
    # And each branch has a name, which is no part of what the client sent.
    place = [str(part) for part in problem["loc"] if isinstance(part, int) or _is_field(part)]
    words = in_words(problem)
    if not place:
        return InvalidRequest(words)
    field = ".".join(place)
    told = "" if problem["type"] == "missing" else f"={shown(problem['input'])}"
    return InvalidRequest(f"{field}{told} {words}", field=field)
