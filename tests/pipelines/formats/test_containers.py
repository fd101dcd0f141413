"""The files that records come in: archives, tables, Arrow, old line ends."""

import io
import json
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from pipelines.formats import delimited
from pipelines.formats.files import Blocks
from pipelines.formats.records import Parsed, Unreadable
from services.errors import ConfigurationError
from services.machine import disk
from tests.pipelines.formats.inputs import compressed, reading, record
from tests.pipelines.formats.test_exports import ANSWER, QUESTION, in_a_row

RECORDS = [record(f"r{number}") for number in range(5)]
LINES = "\n".join(map(json.dumps, RECORDS))


def zipped(files: dict[str, bytes | str], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


# -- ZIP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["conversations.json"], ["x/conversations-000.json", "x/conversations-001.json"]])
def test_the_archive_of_an_export_is_read_as_it_comes(tmp_path: Path, names: list[str]) -> None:
    files: dict[str, bytes | str] = {
        "chat.html": "<html>",
        "user.json": '{"id": "user"}',
        "message_feedback.json": "[]",
    }
    files |= {name: json.dumps([{**in_a_row(QUESTION, ANSWER), "id": name}]) for name in reversed(names)}
    found = reading(tmp_path, zipped(files), "export.zip")
    assert (found.ids, found.bad) == (names, [])
    assert found.conversations[0].source.file == f"{tmp_path}/export.zip/{names[0]}"


def test_any_other_archive_is_read_file_by_file(tmp_path: Path) -> None:
    csv = "instruction,output\nq,a\n"
    files: dict[str, bytes | str] = {"c/t.csv": csv, "a.jsonl": LINES, "__MACOSX/a.jsonl": "x", "readme.md": "# x"}
    files |= {"b.jsonl.gz": compressed(json.dumps(record("g")).encode(), "gzip"), "d.arrow": arrow(stream=True)}
    found = reading(tmp_path, zipped(files), "in.zip")
    assert found.ids == ["r0", "r1", "r2", "r3", "r4", "g", "alpaca_6", "r0", "r1", "r2", "r3", "r4"]
    assert found.bad == []


def test_a_damaged_file_of_an_archive_costs_what_follows_in_it(tmp_path: Path) -> None:
    data = zipped({"a.jsonl": LINES, "b.jsonl": json.dumps(record("b"))}, zipfile.ZIP_STORED).replace(b'"r4"', b'"r5"')
    found = reading(tmp_path, data, "in.zip")
    assert [reason for reason, _ in found.reasons] == ["damaged"] and "CRC" in found.bad[0]["detail"]
    assert found.ids[-1] == "b"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (zipped({"a.txt": "x", "b.png": b"x"}), "holds no JSON, CSV, Parquet or Arrow file, but a.txt, b.png"),
        (zipped({"folder/": b""}), "holds no JSON, CSV, Parquet or Arrow file, but nothing"),
        (zipped({"a.json": "[]"})[:-30], "no readable zip archive"),
        (zipped({"a.json": zipped({"b.json": "[]"})}), "a zip archive in another archive"),
    ],
    # an archive holds the time at which it was made: two test processes would name it apart
    ids=["no-records", "empty", "cut", "archive-in-archive"],
)
def test_an_archive_without_records_names_what_it_is(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        reading(tmp_path, data, "in.zip")


@pytest.mark.parametrize(("how", "named"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
def test_a_method_that_is_unpacked_without_a_bound_is_refused(tmp_path: Path, how: int, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"a.jsonl is packed with {named}; unpack the archive"):
        reading(tmp_path, zipped({"a.jsonl": LINES}, how), "in.zip")


def test_a_directory_of_an_archive_that_cannot_be_understood_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.jsonl": LINES}))
    data[data.index(b"PK\x01\x02") + 6] = 99  # the version that unpacking needs
    with pytest.raises(ConfigurationError, match=r"no readable zip archive: zip file version 9\.9"):
        reading(tmp_path, bytes(data), "in.zip")


def test_a_damaged_packed_file_costs_what_follows_in_it(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.jsonl": LINES, "b.jsonl": json.dumps(record("b"))}))
    data[len("a.jsonl") + 30] |= 0b110  # a kind of deflated block that does not exist
    found = reading(tmp_path, bytes(data), "in.zip")
    assert [reason for reason, _ in found.reasons] == ["damaged"] and found.ids == ["b"]


def test_what_fills_the_disk_when_it_is_unpacked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda folder: disk.FEW_BYTES - 1)
    with pytest.raises(ConfigurationError, match="is full: free 95 MiB; make room there, or set TMPDIR"):
        reading(tmp_path, compressed(arrow(stream=False), "gzip"), "data.arrow.gz")


def test_a_zstd_window_that_is_not_unpacked_is_no_damage(tmp_path: Path) -> None:
    """`zstd --long=28` is a valid file; the reader called it damaged."""
    window, last_block = bytes([0, (28 - 10) << 3]), bytes([1 | 5 << 3, 0, 0])
    with pytest.raises(ConfigurationError, match="window of more than 128 MiB"):
        reading(tmp_path, bytes.fromhex("28b52ffd") + window + last_block + b"hello", "in.jsonl.zst")


# -- CSV and TSV -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("parts", "name"), [(",", "in.csv"), ("\t", "in.tsv"), (";", "in.csv"), (",", "in.txt")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("how", ["", "gzip"])
def test_a_table_is_read_by_its_header(tmp_path: Path, parts: str, name: str, end: str, how: str) -> None:
    rows = [
        ("", "instruction", "input", "output"),
        ("0", "q", "", f'"a{parts} b"'),
        ("1", '"two\nlines ""x"""', "i", "a"),
    ]
    text = "\ufeff" + end.join(parts.join(row) for row in rows) + end
    found = reading(tmp_path, compressed(text.encode(), how), name)
    assert found.said == [["q", f"a{parts} b"], ['two\nlines "x"\nInput:\ni', "a"]]
    assert (found.lines, found.bad, found.conversations[0].extra) == ([2, 3], [], {})


def test_a_column_of_turns_as_json(tmp_path: Path) -> None:
    turns = json.dumps(RECORDS[0]["conversations"]).replace('"', '""')
    found = reading(tmp_path, f'id,conversations\nr0,"{turns}"\n', "in.csv")
    assert found.ids == ["r0"] and found.said[0][1] == "A record, ]}"


def test_a_broken_row_costs_itself(tmp_path: Path) -> None:
    rows = ["prompt,response", "q,a", "q,a,more", "q", '"q"x,a', "\udcff,a", "", "q,last", '"no end,a']
    found = reading(tmp_path, "\n".join(rows).encode("utf-8", "surrogateescape"), "in.csv")
    assert found.said == [["q", "a"], ["q", "last"]]
    assert found.reasons == [("bad_row", 3), ("bad_row", 4), ("bad_row", 5), ("bad_encoding", 6), ("truncated", 9)]
    assert found.bad[0]["detail"] == "3 fields; the header has 2"


def test_a_table_with_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the column 'prompt' stands twice"):
        reading(tmp_path, "prompt,prompt,response\na,b,c\n", "in.csv")


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"prompt,response,\xff", "the column '.udcff' is no UTF-8; convert the file to UTF-8"),
        (b'prompt,"response"x', "the header cannot be read: .*; the first line must name the columns"),
    ],
)
def test_a_header_that_names_no_columns_is_refused(tmp_path: Path, header: bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        reading(tmp_path, header + b"\na,b,c\n", "in.csv")


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_or_a_row_that_is_too_large_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD_BYTES", 40)
    rows = [
        "prompt,response",
        "q,first",
        "q," + "x" * 40,
        "q,second",
        'q,"' + "x" * 25,
        'y"y' + "y" * 25,
        "q," + "z" * 50,
    ]
    found = reading(tmp_path, "\n".join(rows) + end, "in.csv")
    assert found.said == [["q", "first"], ["q", "second"]]
    assert found.reasons == [("too_large", 3), ("too_large", 5), ("too_large", 7)]
    assert found.bad[0]["detail"].startswith("43 bytes; a record has at most") and "xxx" in found.bad[0]["raw"]


def test_of_a_line_without_an_end_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD_BYTES", 40)
    monkeypatch.setattr(delimited, "MAX_RAW_BYTES", 4)
    pieces = [b"prompt,response\n", b"q," + b"x" * 60, b"x" * 60, b"x\nq,a\n"]
    large, read = delimited.records("in.csv", Blocks(iter(pieces)), ",")
    assert isinstance(large, Unreadable) and (large.reason, large.raw[:4], large.num_bytes) == (
        "too_large",
        b"q,xx",
        124,
    )
    assert isinstance(read, Parsed) and (read.line, read.value["response"]) == (3, "a")


def test_a_row_that_damage_cuts_is_no_record(tmp_path: Path) -> None:
    data = compressed(b"prompt,response\nq,first\nq,the second answer\n", "gzip")
    found = reading(tmp_path, data[:-16], "in.csv.gz")
    assert found.said == [["q", "first"]] and found.reasons == [("truncated", 3)]


def test_json_lines_that_begin_with_a_broken_line_are_no_table(tmp_path: Path) -> None:
    found = reading(tmp_path, f"broken, line, prompt\n{LINES}", "in.jsonl")
    assert len(found.ids) == 5 and found.reasons == [("bad_json", 1)]


# -- Arrow -----------------------------------------------------------------------------------------------------------


def arrow(stream: bool, table: pyarrow.Table | None = None) -> bytes:
    table = table or pyarrow.Table.from_pylist(RECORDS)
    sink = pyarrow.BufferOutputStream()
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with opened(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", ["", "zstd"])
def test_arrow_by_rows(tmp_path: Path, stream: bool, how: str) -> None:
    found = reading(tmp_path, compressed(arrow(stream), how), "data.arrow")
    assert (found.ids, found.lines, found.bad) == (["r0", "r1", "r2", "r3", "r4"], [1, 2, 3, 4, 5], [])


def test_a_cut_arrow_stream_keeps_what_came_before(tmp_path: Path) -> None:
    found = reading(tmp_path, arrow(stream=True)[:-300], "data.arrow")
    assert found.ids[:2] == ["r0", "r1"] and [reason for reason, _ in found.reasons] == ["damaged"]


def alpaca(**columns: pyarrow.Array) -> pyarrow.Table:
    """Two conversations with more columns."""
    return pyarrow.table({"instruction": ["q", "q"], "output": ["first", "second"], **columns})


def unchecked(kind: pyarrow.DataType, first: bytes, second: bytes) -> pyarrow.Array:
    """Two values as a damaged file holds them. Each can be read, or pyarrow raises what Python raises."""
    if pyarrow.types.is_string(kind):
        return pyarrow.Array.from_buffers(kind, 2, pyarrow.array([first, second]).buffers())
    return pyarrow.Array.from_buffers(kind, 2, [None, pyarrow.py_buffer(first + second)])


def test_arrow_rows_that_fail_the_check_of_pyarrow_are_not_read(tmp_path: Path) -> None:
    """A wrong offset ends the process when it is followed; a number with too many digits fails the same check."""
    numbers = unchecked(pyarrow.decimal128(2), (7).to_bytes(16, "little"), (1000).to_bytes(16, "little"))
    found = reading(tmp_path, arrow(stream=True, table=alpaca(n=numbers)), "data.arrow")
    assert (found.ids, found.reasons) == ([], [("damaged", 1)])
    assert found.bad[0]["detail"].startswith("rows 1 to 2: In column 2")


def test_an_arrow_row_that_is_no_utf8_costs_itself(tmp_path: Path) -> None:
    texts = unchecked(pyarrow.string(), b"\xff", b"whole")
    found = reading(tmp_path, arrow(stream=False, table=alpaca(note=texts)), "data.arrow")
    assert (found.said, found.reasons) == ([["q", "second"]], [("bad_encoding", 1)])


@pytest.mark.parametrize("name", ["data.arrow", "data.parquet"])
def test_a_row_with_a_date_that_python_does_not_have_costs_itself(tmp_path: Path, name: str) -> None:
    table = alpaca(at=pyarrow.array([1 << 52, 0], pyarrow.timestamp("ms")))
    if name.endswith("parquet"):
        parquet.write_table(table, tmp_path / "made")
    data = (tmp_path / "made").read_bytes() if name.endswith("parquet") else arrow(stream=True, table=table)
    found = reading(tmp_path, data, name)
    assert (found.said, found.reasons) == ([["q", "second"]], [("bad_row", 1)])
    assert "a value of this row cannot be read" in found.bad[0]["detail"]


def test_an_arrow_file_that_asks_for_more_memory_than_there_is_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object) -> None:
        raise MemoryError("malloc of size 1099511627776 failed")

    monkeypatch.setattr(pyarrow.ipc, "open_stream", refuse)
    with pytest.raises(ConfigurationError, match="no readable Arrow file: malloc of size"):
        reading(tmp_path, arrow(stream=True), "data.arrow")


def test_lines_that_end_as_on_old_macs(tmp_path: Path) -> None:
    assert reading(tmp_path, LINES.replace("\n", "\r")).ids == ["r0", "r1", "r2", "r3", "r4"]


def test_a_column_of_nulls_claims_no_more_rows_than_a_file_may_hold(tmp_path: Path) -> None:
    """A null takes no byte, so a file of 500 bytes could claim as many rows as it liked."""
    sink = pyarrow.BufferOutputStream()
    batch = pyarrow.record_batch({"x": pyarrow.nulls(1 << 24)})
    with pyarrow.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    found = reading(tmp_path, sink.getvalue().to_pybytes(), "in.arrow")
    [line] = found.bad
    assert line["reason"] == "damaged" and line["detail"].startswith(
        f"{1 << 24} rows from row 1 on are claimed, and 0 bytes"
    )


def json_column(values: list[object]) -> pyarrow.Array:
    texts = pyarrow.array([None if value is None else json.dumps(value) for value in values], pyarrow.string())
    return pyarrow.ExtensionArray.from_storage(pyarrow.json_(), texts)


@pytest.mark.parametrize("name", ["in.parquet", "in.arrow"])
def test_texts_and_parts_in_one_column_are_read_as_what_they_are(tmp_path: Path, name: str) -> None:
    """`datasets` writes such a column as JSON: every text was read with its quotes, and accepted."""
    said = ["Good question about trees?", "Trees are tall.", [{"type": "text", "text": "And lakes?"}], "Deep."]
    roles = pyarrow.array(["user", "assistant"] * 2)
    turns = pyarrow.StructArray.from_arrays([roles, json_column(said)], names=["role", "content"])
    messages = pyarrow.ListArray.from_arrays(pyarrow.array([0, 2, 4], pyarrow.int32()), turns)
    table = pyarrow.table({"messages": messages, "score": json_column([None, {"x": 1}])})
    sink = pyarrow.BufferOutputStream()
    if name == "in.parquet":
        parquet.write_table(table, sink)
    else:
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    found = reading(tmp_path, sink.getvalue().to_pybytes(), name)
    assert found.said == [said[:2], ["And lakes?", "Deep."]]
    assert [talk.extra for talk in found.conversations] == [{}, {"score": {"x": 1}}]
