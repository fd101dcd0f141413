"""The answers to errors of all routes, in the form that who asks expects: OpenAI's under `/v1/`, ours elsewhere."""

import math
from typing import Any

from flask import Flask, json, jsonify, request
from werkzeug.exceptions import HTTPException

from services.connection.redis_disk import RedisDisk
from services.errors import ChatServerError
from webapp.api.errors import PREFIX, refused, refused_by_http


def answer_errors(app: Flask, disk: RedisDisk) -> None:
    """Attach the handlers. `disk` explains what a full disk of Redis caused."""

    @app.errorhandler(ChatServerError)
    def of_ours(error: ChatServerError) -> Any:
        error = disk.explained(error)
        if request.path.startswith(PREFIX):
            return refused(error)
        wait = {"Retry-After": str(math.ceil(error.retry_after_s))} if error.retry_after_s else {}
        return jsonify(error=error.as_dict()), error.http_status, wait

    @app.errorhandler(HTTPException)
    def of_http(error: HTTPException) -> Any:
        """Errors of HTTP itself. For pages they stay as they are."""
        if request.path.startswith(PREFIX):
            return refused_by_http(error)
        if not request.path.startswith("/api/"):
            return error
        code = ChatServerError.code if error.code == 500 else error.name.lower().replace(" ", "_")
        response: Any = error.get_response()
        response.data = json.dumps({"error": {"code": code, "message": error.description}})
        response.content_type = "application/json"
        return response
