"""Inputs for the tests of readers: records, and bytes compressed and read."""

from pathlib import Path
from typing import Any

import orjson
import pyarrow
from hypothesis import strategies as st

from pipelines.formats.read import read
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions

DEEP = orjson.loads("[" * 400 + "]" * 400)  # can be read, and not written again


def record(name: str) -> dict[str, Any]:
    """Its text spells the beginning of a record, as somebody's question may."""
    return {
        "id": name,
        "conversations": [
            {"from": "human", "value": f'What is {{"id": "{name}"}}, {{\n  "id"? 你好 😀 \\'},
            {"from": "gpt", "value": "A record, ]}"},
        ],
    }


OTHER_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, 2.5, "", "x", "[1]", "[{}]", [], {}, [None], [[]], ["x", "y"], [{}], {"x": 1}, {"text": []}, DEEP]
)


def damaged(value: Any, draw: Any) -> Any:
    """The value with another somewhere inside, where a program's next version may have it."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 3)):
        place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        changed = dict(value) if isinstance(value, dict) else list(value)
        changed[place] = damaged(value[place], draw)
        return changed
    return draw(OTHER_VALUES)


def compressed(data: bytes, how: str) -> bytes:
    if not how:
        return data
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, how) as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


class Reading:
    """What became of one input. The sums match, always."""

    def __init__(self, path: Path | str, shape: Any = "auto", branches: Any = "shown") -> None:
        ledger = Ledger("read")
        self.bad: list[dict[str, Any]] = []
        self.conversations: list[Conversation] = list(
            read(str(path), InputOptions(format=shape, branches=branches), ledger, self.bad.append)
        )
        self.counts = ledger.counts
        assert self.counts.records_in == self.counts.records_out + self.counts.rejected.total()
        assert self.counts.records_out == len(self.conversations)
        assert self.counts.rejected.total() + self.counts.cut.total() == len(self.bad)
        assert all(line["raw"] for line in self.bad if line["reason"] in self.counts.cut)

    @property
    def ids(self) -> list[str]:
        return [conversation.id for conversation in self.conversations]

    @property
    def said(self) -> list[list[str]]:
        """The texts of each conversation."""
        return [[turn.text for turn in conversation.turns] for conversation in self.conversations]

    @property
    def lines(self) -> list[int]:
        return [conversation.source.line for conversation in self.conversations]

    @property
    def reasons(self) -> list[tuple[str, int]]:
        return [(line["reason"], line["source"][1]) for line in self.bad]


def reading(
    folder: Path, data: bytes | str, name: str = "in.json", shape: Any = "auto", branches: Any = "shown"
) -> Reading:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return Reading(path, shape, branches)
