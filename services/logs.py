"""Logging of every process: one line per record on stderr, for people or as JSON. Called once in each `__main__`.

    log = logging.getLogger(__name__)
    with about(rid=rid):
        log.warning("lease lost", extra={"epoch": 2})

The field `rid` holds the request id and the field `job` the job's id: a search finds all lines of a request or a job,
whichever process wrote them. No line holds a password or text that users wrote or read.
"""

import _thread
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TextIO

import orjson

# What a record always has; anything else came in by `extra` and is written as a field.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("alembic", "werkzeug", "engineio", "socketio", "urllib3", "httpx", "huggingface_hub")
_NOTHING: Mapping[str, object] = MappingProxyType({})
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=_NOTHING)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Give these fields to every record logged inside. A new thread or greenlet starts without them."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def configure_logging(
    log_format: str = "human", level: str = "INFO", stream: TextIO | None = None, *, process: str
) -> None:
    """Send all records of `level` and above to `stream` (stderr). Replaces any configuration before.

    `process` says in one word what this process does; JSON lines hold it.
    """
    handler = _Lines(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(process) if log_format == "json" else HumanFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


class _Lines(logging.StreamHandler[TextIO]):
    """Its lock is the interpreter's own, also in the web process: a thread that waits for gevent's may never wake."""

    def createLock(self) -> None:  # noqa: N802  # the name that logging calls
        super().createLock()
        self.lock = _thread.RLock()


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {**_about.get(), **{name: value for name, value in vars(record).items() if name not in _STANDARD}}


class HumanFormatter(logging.Formatter):
    """`12:34:56.789 WARNING workers.loop: lease lost rid=…`; local time."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line. `time` is seconds since 1970; `pid` is the process that logged, also after a fork."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
