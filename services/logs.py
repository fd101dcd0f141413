"""Logging of every process: one line per record on stderr, for people or as JSON. Called once in each `__main__`.

    log = logging.getLogger(__name__)
    log.warning("lease lost", extra={"rid": rid})

The request id travels as the field `rid`, so that one request can be followed through all processes by a search.
"""

import logging
import sys
import time
from typing import TextIO

import orjson

# What a record always has; anything else came in by `extra` and is written as a field.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("werkzeug", "engineio", "socketio", "urllib3", "httpx", "huggingface_hub")


def configure_logging(log_format: str = "human", level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send everything from `level` on to `stream` (stderr), replacing what was configured before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else HumanFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class HumanFormatter(logging.Formatter):
    """`12:34:56.789 WARNING workers.loop: lease lost rid=…`; local time."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname} {record.name}: {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line; `time` is seconds since 1970."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
