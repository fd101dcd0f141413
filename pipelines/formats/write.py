"""Writes conversations to a file of training data, deterministically. `pipelines/cleaning/finish.py` uses it.

    sharegpt-jsonl, sharegpt-json   {"id", "conversations": [{"from": "human"|"gpt"|"system", "value"}, …], …}
    openai-jsonl                    {"id", "messages": [{"role", "content"}, …], …}
    parquet                         the same as columns; `extra` as JSON text

All formats also have "model" and "origin" (the input record's id, if it is another) where known, "source": {"file",
"line"}, and under "extra" all other fields of the input record. `read.py` reads them back unchanged. The file's name
tells the split.
"""

from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import orjson

from pipelines.records.conversation import Conversation

SUFFIXES = {"sharegpt-jsonl": ".jsonl", "sharegpt-json": ".json", "openai-jsonl": ".jsonl", "parquet": ".parquet"}
SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}
ROW_GROUP_CHARS = 8 * 1_048_576
ROW_GROUP_ROWS = 10_000


def suffix(kind: str) -> str:
    """Of a file's name, for a format of OutputOptions."""
    return SUFFIXES[kind]


class Writer:
    """Writes one file. The file is complete and closed when the context ends."""

    def __init__(self, path: Path, kind: str) -> None:
        self._file = path.open("wb")
        self._sink: _Sink
        if kind == "parquet":
            self._sink = _Parquet(self._file)
        elif kind == "sharegpt-json":
            self._sink = _JsonArray(self._file)
        else:
            self._sink = _JsonLines(self._file, sharegpt if kind == "sharegpt-jsonl" else openai)

    def write(self, conversation: Conversation) -> None:
        self._sink.write(conversation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._sink.close()


def sharegpt(conversation: Conversation) -> dict[str, Any]:
    """The record in the ShareGPT shape."""
    turns = [{"from": SHAREGPT_ROLES.get(turn.role, turn.role), "value": turn.text} for turn in conversation.turns]
    return {"id": conversation.id, "conversations": turns, **_about(conversation)}


def openai(conversation: Conversation) -> dict[str, Any]:
    """The record in the shape of OpenAI's messages."""
    turns = [{"role": turn.role, "content": turn.text} for turn in conversation.turns]
    return {"id": conversation.id, "messages": turns, **_about(conversation)}


def _about(conversation: Conversation) -> dict[str, Any]:
    about: dict[str, Any] = {"model": conversation.model} if conversation.model else {}
    about["source"] = {"file": conversation.source.file, "line": conversation.source.line}
    if conversation.origin:
        about["origin"] = conversation.origin
    if conversation.extra:
        about["extra"] = conversation.extra
    return about


class _Sink(Protocol):
    def write(self, conversation: Conversation) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, file: IO[bytes], record: Any) -> None:
        self._file = file
        self._record = record

    def write(self, conversation: Conversation) -> None:
        self._file.write(orjson.dumps(self._record(conversation), option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        pass


class _JsonArray:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._before = b"[\n  "

    def write(self, conversation: Conversation) -> None:
        text = orjson.dumps(sharegpt(conversation), option=orjson.OPT_INDENT_2)
        self._file.write(self._before + text.replace(b"\n", b"\n  "))  # no string holds a raw newline
        self._before = b",\n  "

    def close(self) -> None:
        self._file.write(b"[]\n" if self._before.startswith(b"[") else b"\n]\n")


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        import pyarrow
        from pyarrow import parquet

        turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
        source = pyarrow.struct([("file", pyarrow.string()), ("line", pyarrow.int64())])
        texts = [(name, pyarrow.string()) for name in ("id", "model", "origin", "extra")]
        self._schema = pyarrow.schema([*texts, ("messages", pyarrow.list_(turn)), ("source", source)])
        self._batch = pyarrow.RecordBatch.from_pylist
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._num_chars = 0

    def write(self, conversation: Conversation) -> None:
        row = openai(conversation)
        if "extra" in row:
            row["extra"] = orjson.dumps(row["extra"]).decode()
        self._rows.append(row)
        self._num_chars += conversation.num_chars()
        if self._num_chars >= ROW_GROUP_CHARS or len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(self._batch(self._rows, schema=self._schema))
        self._rows, self._num_chars = [], 0

    def close(self) -> None:
        self._flush()
        self._writer.close()
