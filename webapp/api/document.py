"""The OpenAPI document of `/v1`, at `/v1/openapi.json`: made from the routes and the models of their bodies."""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, jsonify
from pydantic import BaseModel
from spectree import SpecTree
from spectree.config import ModeEnum
from spectree.plugins.flask_plugin import FlaskPlugin

View = TypeVar("View", bound=Callable[..., Any])


class _OnlyDescribes(FlaskPlugin):
    """Leaves requests and responses alone. spectree 3.0 would read a streamed response to its end before it is sent."""

    NUM_SETTINGS = 11  # which the library passes before a view's own arguments

    def validate(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return func(*args[self.NUM_SETTINGS :], **kwargs)

    def register_route(self, app: Any) -> None:
        """The document has a route of ours."""


class Document:
    """`describes` marks the routes that stand in the document."""

    def __init__(self) -> None:
        self._spec = SpecTree(
            backend=_OnlyDescribes, mode=ModeEnum.strict, title="ChatServer", version="1", annotations=False
        )

    def describes(
        self, *, tag: str, json: type[BaseModel] | None = None, query: type[BaseModel] | None = None
    ) -> Callable[[View], View]:
        decorate: Callable[[View], View] = self._spec.validate(json=json, query=query, tags=[tag])
        return decorate

    def make_blueprint(self, app: Flask) -> Blueprint:
        """The route of the document, once all others are registered."""
        self._spec.register(app)
        blueprint = Blueprint("document", __name__, url_prefix="/v1")

        @blueprint.get("/openapi.json")
        def openapi() -> Response:
            return jsonify(self._spec.spec)

        return blueprint
