"""The body of `POST /v1/responses`, and the query of `GET /v1/responses/{id}`, as pydantic models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.errors import InvalidRequest, Unsupported
from services.openai.answer_forms import Form, TextFormat
from services.openai.bodies import FIRST_FAULT, MAX_TOKENS
from services.wire.messages import Message
from services.wire.parsing import MAX_MESSAGES

_ROLES: dict[str, Literal["system"]] = {"developer": "system"}
_PARTS = ("input_text", "output_text")

MetadataName = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class ItemPart(BaseModel):
    """A part of an item: `input_text` or `output_text` of a message, `reasoning_text` of a reasoning."""

    type: str
    text: str = ""


class InputItem(BaseModel):
    """A message, or what an assistant thought before its message. An item of another type is refused."""

    type: str = Field("message", description="`message` or `reasoning`.")
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Annotated[list[ItemPart], FIRST_FAULT] | None = None


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


class ItemsQuery(BaseModel):
    """The query of `GET /v1/responses/{id}/input_items`."""

    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    after: str = Field("", description="The id of the item before the first one.")


# Known to OpenAI, not honoured here: field → the values that ask for nothing. Reasoning comes in full and in plain, and
# is accepted back as it came: who wants to send it back needs no encrypted form of it.
UNSERVED: dict[str, tuple[Any, ...]] = {
    "access_programs": (),
    "background_options": (),
    "context_management": ([],),
    "conversation": (),
    "image": (),
    "include": ([], ["reasoning.encrypted_content"]),
    "moderation": (),
    "prompt": (),
    "reasoning.context": ("auto",),
    "reasoning.generate_summary": (),
    "reasoning.mode": ("standard",),
    "reasoning.summary": (),
    "text.verbosity": ("medium",),
    "tool_choice": ("auto", "none"),
    "tools": ([],),
    "top_logprobs": (0,),
}


def messages_of(body: ResponseBody) -> list[Message]:
    """The input as messages; a reasoning goes with the assistant's message after it. Raises InvalidRequest."""
    if isinstance(body.input, str):
        return [Message("user", body.input)]
    messages: list[Message] = []
    reasoning = ""
    for index, item in enumerate(body.input):
        place = f"input.{index}"
        if item.type == "reasoning":
            reasoning += _text(item, place, ("reasoning_text",))
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


def _text(item: InputItem, place: str, kinds: tuple[str, ...]) -> str:
    if item.content is None:
        if item.type == "reasoning":
            return ""  # it has a summary alone, or an encrypted form that only its maker can read
        raise InvalidRequest(f"{place}.content must be a text or a list of parts", field=f"{place}.content")
    if isinstance(item.content, str):
        return item.content
    for index, part in enumerate(item.content):
        if part.type not in kinds:
            where = f"{place}.content.{index}.type"
            raise Unsupported(f"{where}={part.type!r:.40}: this server reads {' and '.join(kinds)} only", field=where)
    return "".join(part.text for part in item.content)
