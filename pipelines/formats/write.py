"""Writes conversations to a file of training data, deterministically. `pipelines/cleaning/finish.py` uses it.

    sharegpt-jsonl, sharegpt-json   {"id", "conversations": [{"from": "human"|"gpt"|"system", "value"}, …], …}
    openai-jsonl                    {"id", "messages": [{"role", "content"}, …], …}
    trl-jsonl                       the same in TRL's shapes, below
    parquet                         the same as columns; `extra` as JSON text

All formats also have "model" and "origin" (the input record's id, if it is another) where known, "source": {"file",
"line"}, and under "extra" all other fields of the input record. `read.py` reads them back unchanged. The file's name
tells the split. What a recipe keeps beside texts is written so:

    a pair      in all formats {"prompt": [messages], "chosen": [message], "rejected": [message]}
    tools       "tools" beside the turns; of a turn "tool_calls" (OpenAI's, their arguments as JSON text; TRL's, as an
                object), "tool_call_id", "name"
    reasoning   of a turn "reasoning_content"
    labels      of a turn "label"; TRL's {"prompt", "completion", "label"}, a line for each answer with a label

Parquet has the columns and fields of these only if the recipe keeps something; `tools` and `tool_calls` are JSON text.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import orjson

from pipelines.records.conversation import Conversation, FullTurn, Turn, with_label
from services.wire.messages import ToolCall

SUFFIXES = {
    "sharegpt-jsonl": ".jsonl",
    "sharegpt-json": ".json",
    "openai-jsonl": ".jsonl",
    "trl-jsonl": ".jsonl",
    "parquet": ".parquet",
}
SHAREGPT_ROLES = {"user": "human", "assistant": "gpt"}
_PAIR = ("prompt", "chosen", "rejected")
ROW_GROUP_CHARS = 8 * 1_048_576
ROW_GROUP_ROWS = 10_000


def suffix(kind: str) -> str:
    """Of a file's name, for a format of OutputOptions."""
    return SUFFIXES[kind]


class Writer:
    """Writes one file. The file is complete and closed when the context ends.

    `full`: the records may hold more than texts.
    """

    def __init__(self, path: Path, kind: str, *, full: bool = False) -> None:
        self._file = path.open("wb")
        self._sink: _Sink
        if kind == "parquet":
            self._sink = _Parquet(self._file, full)
        elif kind == "sharegpt-json":
            self._sink = _JsonArray(self._file)
        else:
            self._sink = _JsonLines(self._file, _LINES[kind])

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
    if conversation.rejected is not None:
        return _pair(conversation, _openai_turn)
    turns = [
        {"from": SHAREGPT_ROLES.get(turn.role, turn.role), "value": turn.text, **_details(turn, _json_call)}
        for turn in conversation.turns
    ]
    return {"id": conversation.id, "conversations": turns, **_about(conversation)}


def openai(conversation: Conversation) -> dict[str, Any]:
    """The record in the shape of OpenAI's messages."""
    if conversation.rejected is not None:
        return _pair(conversation, _openai_turn)
    turns = [_openai_turn(turn) for turn in conversation.turns]
    return {"id": conversation.id, "messages": turns, **_about(conversation)}


def trl(conversation: Conversation) -> Iterator[dict[str, Any]]:
    """The records in TRL's shapes: one, or one for each answer with a label."""
    if conversation.rejected is not None:
        yield _pair(conversation, _trl_turn)
        return
    numbers = [number for number, turn in enumerate(conversation.turns) if _label(turn) is not None]
    for number in numbers:
        alone = numbers == [len(conversation.turns) - 1]
        yield _rated(conversation if alone else conversation.renamed(f"{conversation.id}_{number}"), number)
    if not numbers:
        turns = [_trl_turn(turn) for turn in conversation.turns]
        yield {"id": conversation.id, "messages": turns, **_about(conversation)}


_LINES: dict[str, Callable[[Conversation], Iterator[dict[str, Any]]]] = {
    "sharegpt-jsonl": lambda conversation: iter([sharegpt(conversation)]),
    "openai-jsonl": lambda conversation: iter([openai(conversation)]),
    "trl-jsonl": trl,
}


def _pair(conversation: Conversation, written: Callable[[Turn], dict[str, Any]]) -> dict[str, Any]:
    *prompt, chosen = conversation.turns
    assert conversation.rejected is not None
    answers = {"chosen": [written(chosen)], "rejected": [written(conversation.rejected)]}
    return {"id": conversation.id, "prompt": [written(turn) for turn in prompt], **answers, **_about(conversation)}


def _rated(conversation: Conversation, number: int) -> dict[str, Any]:
    """The answer of this number behind what was said before it."""
    turns = [_trl_turn(with_label(turn, None)) for turn in conversation.turns[: number + 1]]
    answers = {"prompt": turns[:-1], "completion": turns[-1:], "label": _label(conversation.turns[number])}
    return {"id": conversation.id, **answers, **_about(conversation)}


def _label(turn: Turn) -> bool | None:
    return turn.label if isinstance(turn, FullTurn) else None


def _openai_turn(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.text, **_details(turn, _json_call)}


def _trl_turn(turn: Turn) -> dict[str, Any]:
    return {"role": turn.role, "content": turn.text, **_details(turn, _object_call)}


def _details(turn: Turn, written: Callable[[ToolCall], dict[str, Any]]) -> dict[str, Any]:
    if not isinstance(turn, FullTurn):
        return {}
    calls = [written(call) for call in turn.calls]
    named = {"reasoning_content": turn.reasoning, "tool_calls": calls, "tool_call_id": turn.call, "name": turn.name}
    found = {name: value for name, value in named.items() if value}
    return found if turn.label is None else {**found, "label": turn.label}


def _object_call(call: ToolCall) -> dict[str, Any]:
    known = {"id": call.identity} if call.identity else {}
    return {**known, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _json_call(call: ToolCall) -> dict[str, Any]:
    return _object_call(replace(call, arguments=orjson.dumps(call.arguments).decode()))  # type: ignore[arg-type]


def _about(conversation: Conversation) -> dict[str, Any]:
    about: dict[str, Any] = {"model": conversation.model} if conversation.model else {}
    about["source"] = {"file": conversation.source.file, "line": conversation.source.line}
    if conversation.origin:
        about["origin"] = conversation.origin
    if conversation.extra:
        about["extra"] = conversation.extra
    return {"tools": list(conversation.tools), **about} if conversation.tools else about


class _Sink(Protocol):
    def write(self, conversation: Conversation) -> None: ...

    def close(self) -> None: ...


class _JsonLines:
    def __init__(self, file: IO[bytes], records: Callable[[Conversation], Iterator[dict[str, Any]]]) -> None:
        self._file = file
        self._records = records

    def write(self, conversation: Conversation) -> None:
        for record in self._records(conversation):
            self._file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

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
    def __init__(self, file: IO[bytes], full: bool) -> None:
        import pyarrow
        from pyarrow import parquet

        details = ("reasoning_content", "tool_calls", "tool_call_id", "name") if full else ()
        turn = pyarrow.struct(
            [(name, pyarrow.string()) for name in ("role", "content", *details)] + [("label", pyarrow.bool_())] * full
        )
        source = pyarrow.struct([("file", pyarrow.string()), ("line", pyarrow.int64())])
        texts = [(name, pyarrow.string()) for name in ("id", "model", "origin", "extra", *(["tools"] if full else []))]
        lists = [(name, pyarrow.list_(turn)) for name in ("messages", *(_PAIR if full else ()))]
        self._schema = pyarrow.schema([*texts, *lists, ("source", source)])
        self._batch = pyarrow.RecordBatch.from_pylist
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._num_chars = 0

    def write(self, conversation: Conversation) -> None:
        row = openai(conversation)
        for name in row.keys() & {"extra", "tools"}:
            row[name] = orjson.dumps(row[name]).decode()
        for turn in (turn for name in row.keys() & {"messages", *_PAIR} for turn in row[name] if "tool_calls" in turn):
            turn["tool_calls"] = orjson.dumps(turn["tool_calls"]).decode()
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
