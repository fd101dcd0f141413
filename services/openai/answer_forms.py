"""What bodies say of an answer's form: `response_format`, `text.format` of a response, vLLM's `structured_outputs`.

Each becomes the `response_format` of the wire (`services.grammar.response_format`).
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.grammar.response_format import grammar_of

Form = Mapping[str, Any]


class JsonSchema(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    name: str | None = Field(None, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema", description="What a grammar cannot promise is refused by its path.")
    strict: bool | None = Field(None, description="Accepted: a schema is kept in either case.")


class ResponseFormat(BaseModel):
    """`response_format` of a completion."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_is_there(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self

    def form(self) -> Form | None:
        schema = self.json_schema.schema_ if self.json_schema else None
        return _form(self.type, schema, "response_format.json_schema.schema")


class TextFormat(BaseModel):
    """`text.format` of a response."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = Field(None, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_is_there(self) -> "TextFormat":
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema is missing")
        return self

    def form(self) -> Form | None:
        return _form(self.type, self.schema_, "text.format.schema")

    def shown(self) -> dict[str, Any]:
        """As the response says it again."""
        return self.model_dump(by_alias=True, exclude_none=True)


class StructuredOutputs(BaseModel):
    """vLLM's field: exactly one of these."""

    model_config = ConfigDict(extra="forbid")

    json_: dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    json_object: bool | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "StructuredOutputs":
        given = [each for each in (self.json_, self.regex, self.choice, self.json_object or None) if each is not None]
        if len(given) != 1:
            raise ValueError("must have exactly one of json, regex, choice and json_object")
        return self

    def form(self) -> Form:
        for kind in ("regex", "choice"):
            if (value := getattr(self, kind)) is not None:
                return _checked({"type": kind, kind: value}, f"structured_outputs.{kind}")
        form = _form("json_object" if self.json_ is None else "json_schema", self.json_, "structured_outputs.json")
        assert form is not None, "no text"
        return form


def _form(kind: str, schema: Mapping[str, Any] | None, place: str) -> Form | None:
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    return _checked({"type": kind, "schema": schema}, place)


def _checked(form: Form, place: str) -> Form:
    """The form. Raises InvalidRequest, which names the place in the body."""
    grammar_of(form, place)
    return form
