"""The one error tree. Every class has a stable code that reaches the browser, the CLI and the API unchanged.

    ChatServerError                  HTTP  code
    ├── ConfigurationError            500  configuration        a setting or an installation is wrong
    ├── ProtocolError                 500  protocol             bytes on the wire are not ours, or of another version
    ├── InvalidRequest                400  invalid_request      a field has a bad type, size or value
    │   ├── PromptTooLong             400  prompt_too_long      what may not be left out exceeds the model's context
    │   ├── TooLarge                  413  content_too_large    more bytes than the server reads in one message
    │   ├── TemplateError             400  template_error       the chat template refuses these messages
    │   ├── ContentRefused            400  content_refused      the operator's moderation refuses the text
    │   └── Unsupported               400  unsupported          the engine lacks a sampling option
    ├── UnknownModel                  404  unknown_model        no worker ever announced this model
    ├── UnknownResponse               404  unknown_response     no response of this user has the id
    ├── NotFound                      404  not_found            no file or batch of this user has the id
    ├── Unauthorized                  401  unauthorized         the API key is missing or not valid
    ├── Forbidden                     403  forbidden            the request belongs to another user
    ├── Conflict                      409  conflict             the id is in use by another user or model
    ├── Gone                          410  gone                 the answer has expired or never existed
    ├── Busy                          429  busy                 no room in queue or memory, or too long a wait
    │   └── UserLimit                 429  user_limit           this user or address has too many requests or sockets
    │       └── QuotaExceeded         429  quota_exceeded       this user has no tokens left for this on this day
    ├── EngineError                   500  engine_error         the engine failed on this request
    │   └── OutOfMemory               500  out_of_memory        the engine ran out of memory on this request
    ├── StorageFull                   507  storage_full         the disk, or what a user may store, has no room for this
    └── Unavailable                   503  unavailable          Redis does not answer, or its disk is full

Three more codes end a request without an exception of their own: `poison` (workers died on it too often), `expired`
(it waited in the queue past its deadline) and `interrupted` (a stream that cannot be rewound lost its tail).
"""

from typing import Any, Self


def shown(value: object) -> str:
    """An untrusted value as an error message shows it: at most 80 characters, and only the type of a collection.

    The `repr` of a value that a client has nested a thousand times would raise RecursionError.
    """
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else f"({type(value).__name__})"


class ChatServerError(Exception):
    """Base of all errors. Fields hold its parts: the message with the wrong value, the remedy, and the place.

    `str(error)` is for terminals and logs: place, message and remedy in one line.
    """

    code = "internal"
    http_status = 500

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",  # what to do, where the message does not say it
        field: str = "",  # of a form or a request
        source: str = "",  # the file or preset that is wrong
        line: int | None = None,  # of a recipe, from 1; 0: of the recipe as a whole
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.field = field
        self.source = source
        self.line = line
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, error: "ChatServerError") -> Self:
        """The same fault as an error of this class: a wrong configuration that a client sent is an InvalidRequest."""
        return cls(error.message, remedy=error.remedy, field=error.field, source=error.source, line=error.line)

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line) if part)
        remedy = f". Remedy: {self.remedy}" if self.remedy else ""
        return f"{place}: {self.message}{remedy}" if place else f"{self.message}{remedy}"

    def as_dict(self) -> dict[str, Any]:
        """The error as a client gets it: code and message, then the other parts that are set.

        `source` is left out: a client knows what it sent.
        """
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        texts = {"remedy": self.remedy, "field": self.field}
        numbers = {"line": self.line, "retry_after_s": self.retry_after_s}
        body.update((name, text) for name, text in texts.items() if text)
        body.update((name, number) for name, number in numbers.items() if number is not None)
        return body


class ConfigurationError(ChatServerError):
    code = "configuration"


class ProtocolError(ChatServerError):
    code = "protocol"


class InvalidRequest(ChatServerError):
    code = "invalid_request"
    http_status = 400


class PromptTooLong(InvalidRequest):
    code = "prompt_too_long"


class TooLarge(InvalidRequest):
    code = "content_too_large"
    http_status = 413


class TemplateError(InvalidRequest):
    code = "template_error"


class ContentRefused(InvalidRequest):
    code = "content_refused"


class Unsupported(InvalidRequest):
    code = "unsupported"


class UnknownModel(ChatServerError):
    code = "unknown_model"
    http_status = 404


class UnknownResponse(ChatServerError):
    code = "unknown_response"
    http_status = 404


class NotFound(ChatServerError):
    code = "not_found"
    http_status = 404


class Unauthorized(ChatServerError):
    code = "unauthorized"
    http_status = 401


class Forbidden(ChatServerError):
    code = "forbidden"
    http_status = 403


class Conflict(ChatServerError):
    code = "conflict"
    http_status = 409


class Gone(ChatServerError):
    code = "gone"
    http_status = 410


class Busy(ChatServerError):
    code = "busy"
    http_status = 429


class UserLimit(Busy):
    code = "user_limit"


class QuotaExceeded(UserLimit):
    code = "quota_exceeded"


class EngineError(ChatServerError):
    code = "engine_error"


class OutOfMemory(EngineError):
    code = "out_of_memory"


class StorageFull(ChatServerError):
    code = "storage_full"
    http_status = 507


class Unavailable(ChatServerError):
    code = "unavailable"
    http_status = 503


def all_errors() -> list[type[ChatServerError]]:
    """Every class of the tree."""
    found: list[type[ChatServerError]] = [ChatServerError]
    for kind in found:
        found += kind.__subclasses__()
    return found
