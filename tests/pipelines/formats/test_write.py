"""Writing: the documented records, the same bytes each time, and all of it read back."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats import write
from pipelines.formats.write import SUFFIXES, Writer, suffix
from pipelines.records.conversation import ROLES, Conversation, Source, Turn
from tests.pipelines.formats.inputs import Reading, compressed

CONVERSATION = Conversation(
    "c1_2",
    (Turn("system", "s"), Turn("user", 'q "é" 😀\n'), Turn("assistant", "a"), Turn("tool", "t")),
    Source("in.json", 7),
    origin="c1",
    model="m",
    extra={"title": "t"},
)
BARE = Conversation("c2", (Turn("user", "q"),), Source("in.json", 9))


def written(folder: Path, kind: str, conversations: Sequence[Conversation]) -> Path:
    path = folder / f"out{suffix(kind)}"
    with Writer(path, kind) as writer:
        for conversation in conversations:
            writer.write(conversation)
    return path


def test_the_record_in_the_sharegpt_shape(tmp_path: Path) -> None:
    path = written(tmp_path, "sharegpt-jsonl", [CONVERSATION, BARE])
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert first == {
        "id": "c1_2",
        "conversations": [
            {"from": "system", "value": "s"},
            {"from": "human", "value": 'q "é" 😀\n'},
            {"from": "gpt", "value": "a"},
            {"from": "tool", "value": "t"},
        ],
        "model": "m",
        "source": {"file": "in.json", "line": 7},
        "origin": "c1",
        "extra": {"title": "t"},
    }
    assert list(second) == ["id", "conversations", "source"]


def test_the_record_in_the_openai_shape(tmp_path: Path) -> None:
    [line] = written(tmp_path, "openai-jsonl", [BARE]).read_text("utf-8").splitlines()
    assert json.loads(line) == {
        "id": "c2",
        "messages": [{"role": "user", "content": "q"}],
        "source": {"file": "in.json", "line": 9},
    }


@pytest.mark.parametrize("conversations", [[], [BARE], [CONVERSATION, BARE]])
def test_the_array_is_json_indented_by_two(tmp_path: Path, conversations: list[Conversation]) -> None:
    text = written(tmp_path, "sharegpt-json", conversations).read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert len(json.loads(text)) == len(conversations)


def test_parquet_is_written_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr(write, "ROW_GROUP_ROWS", 10)
    path = written(tmp_path, "parquet", [CONVERSATION] * 25)
    table = parquet.ParquetFile(path)
    assert table.num_row_groups == 3
    assert str(table.schema_arrow.field("messages").type).endswith("struct<role: string, content: string>>")
    assert Reading(path).conversations == [CONVERSATION] * 25


@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_same_conversations_are_the_same_bytes(tmp_path: Path, kind: str) -> None:
    first = written(tmp_path, kind, [CONVERSATION, BARE] * 50).read_bytes()
    assert written(tmp_path, kind, [CONVERSATION, BARE] * 50).read_bytes() == first


TEXT = st.text(max_size=40)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CONVERSATIONS = st.lists(
    st.builds(
        Conversation,
        id=st.text(min_size=1, max_size=10),
        turns=st.lists(st.builds(Turn, st.sampled_from([*ROLES, "tool"]), TEXT), max_size=4).map(tuple),
        source=st.builds(Source, TEXT, st.integers(0, 2**40)),
        origin=TEXT,
        model=TEXT,
        extra=st.dictionaries(TEXT | st.sampled_from(["source", "extra", "origin", "turns"]), JSON, max_size=3),
    ),
    max_size=4,
)


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@settings(max_examples=40, deadline=None)
@given(conversations=CONVERSATIONS)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, kind: str, how: str, conversations: list[Conversation]
) -> None:
    path = written(tmp_path_factory.mktemp("out"), kind, conversations)
    path.write_bytes(compressed(path.read_bytes(), how))
    found = Reading(path)
    assert found.bad == []
    assert found.conversations == conversations
