"""The body of `POST /v1/responses`, and the query of `GET /v1/responses/{id}`, as pydantic models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.errors import InvalidRequest, Unsupported
from services.openai.answer_forms import Form, TextFormat
from services.openai.bodies import FIRST_FAULT, MAX_TOKENS, TopLogprobs
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from services.wire.parsing import MAX_MESSAGES
from services.wire.tools import parse_arguments

_ROLES: dict[str, Literal["system"]] = {"developer": "system"}
_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED_REASONING = "reasoning.encrypted_content"  # nobody needs it: reasoning comes in plain, and is taken back so
_PARTS = ("input_text", "output_text")

MetadataName = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class ItemPart(BaseModel):
    """A part of an item: `input_text` or `output_text` of a message, `reasoning_text` of a reasoning."""

    type: str
    text: str = ""


class InputItem(BaseModel):
    """A message, what an assistant thought before its message, a call of a tool, or its result."""

    type: str = Field("message", description="`message`, `reasoning`, `function_call` or `function_call_output`.")
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Annotated[list[ItemPart], FIRST_FAULT] | None = None
    call_id: str | None = Field(None, description="Of a call, and of its result.")
    name: str | None = Field(None, description="Of the function that is called.")
    arguments: str = Field("", description="Of a call: a JSON object as text.")
    output: str | Annotated[list[ItemPart], FIRST_FAULT] | None = Field(None, description="The result of a call.")


class FunctionTool(BaseModel):
    """A tool that the model may call."""

    type: str = Field(description="Only `function` is served.")
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="A JSON schema of the arguments.")
    strict: bool | None = Field(None, description="Whether the arguments must be an instance of the parameters.")


class NamedFunction(BaseModel):
    """The tool that the model must call."""

    type: Literal["function"]
    name: str


class TextOptions(BaseModel):
    format: TextFormat | None = None


class ReasoningOptions(BaseModel):
    effort: str | None = Field(None, description="`none` switches thinking off, where the model can.")


class ResponseBody(BaseModel):
    """The body of `POST /v1/responses`."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str = Field(description="Name of a served model, as `/v1/models` lists it.")
    input: str | Annotated[list[InputItem], Field(max_length=MAX_MESSAGES, fail_fast=True)]
    instructions: str | None = Field(None, description="A system message before all others. It is not carried over.")
    previous_response_id: str | None = Field(None, description="The response whose conversation goes on.")
    stream: bool | None = None
    background: bool | None = Field(None, description="Whether the answer goes on without its reader.")
    store: bool | None = Field(None, description="Whether the response can be asked for again. It can, by default.")
    max_output_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, ge=0, le=1)
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="`auto`: of a conversation longer than the context the oldest rounds are left out."
    )
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    metadata: Annotated[dict[MetadataName, MetadataValue], Field(max_length=16)] | None = None
    user: str | None = Field(None, description="Accepted and not used.")
    tools: Annotated[list[FunctionTool], FIRST_FAULT] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = Field(None, description="Whether an answer may call more than one tool.")
    include: Annotated[list[str], Field(max_length=16, fail_fast=True)] | None = None
    top_logprobs: TopLogprobs = None

    @property
    def num_logprobs(self) -> int | None:
        """As of a chat. Raises InvalidRequest or Unsupported."""
        include = self.include or ()
        if unknown := set(include) - {_LOGPROBS, _ENCRYPTED_REASONING}:
            raise Unsupported(f"include: {min(unknown)!r:.80} is not served by this server", field="include")
        if self.top_logprobs and _LOGPROBS not in include:
            raise InvalidRequest(f"top_logprobs has a meaning with include=[{_LOGPROBS!r}] only", field="top_logprobs")
        return self.top_logprobs or 0 if _LOGPROBS in include else None

    @property
    def tool_choice_of_request(self) -> str:
        """As in `ChatRequest`, or `none`."""
        chosen = self.tool_choice
        return f":{chosen.name}" if isinstance(chosen, NamedFunction) else chosen or "auto"

    @property
    def tools_of_request(self) -> list[dict[str, Any]]:
        """As in `ChatRequest`."""
        return [{"type": tool.type, "function": tool.model_dump(exclude={"type"})} for tool in self.tools or ()]

    @property
    def tool_options(self) -> dict[str, Any]:
        """What a request says of tools; nothing where the answer may call none."""
        chosen, called = self.tool_choice_of_request, self.parallel_tool_calls
        if chosen == "none":
            return {}
        return {"tools": self.tools_of_request, "tool_choice": chosen, "parallel_tool_calls": called}

    @property
    def effort(self) -> str | None:
        return self.reasoning.effort if self.reasoning else None

    @property
    def form(self) -> Form | None:
        """What the answer must look like. Raises InvalidRequest."""
        return self.text.format.form() if self.text and self.text.format else None

    @property
    def is_stored(self) -> bool:
        return self.store is not False


class ResponseQuery(BaseModel):
    """The query of `GET /v1/responses/{id}`."""

    stream: bool = Field(False, description="Whether the response comes as its events.")
    starting_after: int | None = Field(None, ge=0, description="Only events with a larger sequence_number.")


# Known to OpenAI, not honoured here: field → the values that ask for nothing.
UNSERVED: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "moderation": (),
    "prompt": (),
    "reasoning.context": ("auto",),
    "reasoning.generate_summary": (),
    "reasoning.mode": ("standard",),
    "reasoning.summary": (),
    "text.verbosity": ("medium",),
}


def messages_of(body: ResponseBody) -> list[Message]:
    """The input as messages. Raises InvalidRequest.

    A reasoning goes with the assistant's message or call after it, a call with the assistant's turn before it.
    """
    if isinstance(body.input, str):
        return [Message("user", body.input)]
    messages: list[Message] = []
    reasoning = ""
    for index, item in enumerate(body.input):
        place = f"input.{index}"
        if item.type == "reasoning":
            reasoning += _text(item, place, ("reasoning_text",))
        elif item.type == "function_call":
            _add_call(messages, item, reasoning, place)
            reasoning = ""
        elif item.type == "function_call_output":
            messages.append(_result(item, place))
        elif item.type != "message":
            raise Unsupported(f"{place}.type={item.type!r:.40} is not served by this server", field=f"{place}.type")
        elif item.role is None:
            raise InvalidRequest(f"{place}.role is missing", field=f"{place}.role")
        else:
            role = _ROLES.get(item.role) or item.role
            text = _text(item, place, _PARTS)
            messages.append(Message(role, text, reasoning if role == "assistant" else ""))  # type: ignore[arg-type]
            reasoning = ""
    return messages


def _add_call(messages: list[Message], item: InputItem, reasoning: str, place: str) -> None:
    """Add a call to the turn of the assistant that goes on with it, or a turn."""
    for name in ("name", "call_id"):
        if not getattr(item, name):
            raise InvalidRequest(f"{place}.{name} is missing", field=f"{place}.{name}")
    call = ToolCall(str(item.name), parse_arguments(item.arguments, f"{place}.arguments"), str(item.call_id))
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or reasoning:
        messages.append(CallMessage("assistant", "", reasoning, (call,)))
    else:
        calls = last.calls if isinstance(last, CallMessage) else ()
        messages[-1] = CallMessage("assistant", last.content, last.reasoning, (*calls, call))


def _result(item: InputItem, place: str) -> ResultMessage:
    if not item.call_id:
        raise InvalidRequest(f"{place}.call_id is missing", field=f"{place}.call_id")
    if item.output is None:
        raise InvalidRequest(f"{place}.output must be a text or a list of parts", field=f"{place}.output")
    return ResultMessage("tool", _joined(item.output, f"{place}.output", _PARTS), "", item.call_id)


def _text(item: InputItem, place: str, kinds: tuple[str, ...]) -> str:
    if item.content is None:
        if item.type == "reasoning":
            return ""  # it has a summary alone, or an encrypted form that only its maker can read
        raise InvalidRequest(f"{place}.content must be a text or a list of parts", field=f"{place}.content")
    return _joined(item.content, f"{place}.content", kinds)


def _joined(content: str | list[ItemPart], place: str, kinds: tuple[str, ...]) -> str:
    if isinstance(content, str):
        return content
    for index, part in enumerate(content):
        if part.type not in kinds:
            where = f"{place}.{index}.type"
            raise Unsupported(f"{where}={part.type!r:.40}: this server reads {' and '.join(kinds)} only", field=where)
    return "".join(part.text for part in content)
