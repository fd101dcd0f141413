"""Reading: every format and compression, and every kind of damage with its reason and its line."""

import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import fsspec
import orjson
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pipelines.cleaning.object_store import ObjectStore
from pipelines.formats import json_records
from pipelines.formats.read import read
from pipelines.records.ledger import Ledger
from services.errors import ConfigurationError
from services.jobs.recipe import InputOptions
from tests.pipelines.formats.inputs import Reading, compressed, reading, record

NAMES = ["r0", "r1", "r2", "r3", "r4"]
RECORDS = [record(name) for name in NAMES]
ARRAY, PRETTY = json.dumps(RECORDS), json.dumps(RECORDS, indent=2)
LINES = "\n".join(map(json.dumps, RECORDS)) + "\n"
PRETTY_LINES = [2, 15, 28, 41, 54]


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@pytest.mark.parametrize("text", [ARRAY, PRETTY, LINES, LINES.strip(), LINES.replace("\n", "\r\n")])
@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_json_is_told_by_its_content(tmp_path: Path, text: str, how: str, name: str) -> None:
    found = reading(tmp_path, compressed(text.encode(), how), name)
    assert (found.ids, found.bad) == (NAMES, [])
    assert found.conversations[0].turns[0].text == RECORDS[0]["conversations"][0]["value"]


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
@pytest.mark.parametrize("name", ["conversations", "messages"])
def test_parquet_by_rows(tmp_path: Path, how: str, name: str) -> None:
    rows = [{"id": r["id"], name: r["conversations"], "plugins": None, "n": 1.5} for r in RECORDS]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "made", row_group_size=2)
    found = reading(tmp_path, compressed((tmp_path / "made").read_bytes(), how))
    assert (found.ids, found.lines, found.bad) == (NAMES, [1, 2, 3, 4, 5], [])
    assert found.conversations[0].extra == {"n": 1.5}


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    assert reading(tmp_path, PRETTY).lines == PRETTY_LINES
    assert reading(tmp_path, LINES.replace("\n", "\n\n")).lines == [1, 3, 5, 7, 9]
    assert reading(tmp_path, b"\xef\xbb\xbf" + ARRAY.replace("]}, {", "]}\n,\n{").encode()).lines == [1, 3, 5, 7, 9]
    assert reading(tmp_path, b"\xef\xbb\xbf\n" + LINES.encode()).lines == [2, 3, 4, 5, 6]


def test_values_printed_over_many_lines_one_after_another(tmp_path: Path) -> None:
    alone = reading(tmp_path, json.dumps(RECORDS[0], indent=2))
    assert (alone.ids, alone.bad) == (["r0"], [])
    several = reading(tmp_path, "\n".join(json.dumps(r, indent=2) for r in RECORDS))
    assert (several.ids, several.lines, several.bad) == (NAMES, [1, 14, 27, 40, 53], [])


@pytest.mark.parametrize("text", ["", "  \n ", "[]", " [ ] \n"])
def test_nothing_is_no_record_and_no_error(tmp_path: Path, text: str) -> None:
    found = reading(tmp_path, text)
    assert (found.ids, found.bad, found.counts.records_in) == ([], [], 0)


BROKEN = {  # the text of r2, changed: the reason
    "missing comma": ('"r2",', '"r2" ', "bad_json"),
    "missing quote": ('"r2",', '"r2,', "bad_json"),
    "one quote too many": ('"r2",', '"r2"",', "bad_json"),
    "no such escape": ('"r2"', r'"r\2"', "bad_json"),
    "raw control character": ('"r2"', '"r\t2"', "bad_json"),
    "minus infinity": ('"r2"', "-Infinity", "not_finite"),
    "too great a number": ('"r2"', "1e999", "not_finite"),
    "a very long number": ('"r2"', "1" * 5000, "not_finite"),
    "a key twice": ('"r2"', '"r1", "id": "r2"', "duplicate_key"),
    "too deep to read": ('"r2"', "[" * 3000 + "]" * 3000, "too_deep"),
    "too deep to write": ('"r2"', '"r2", "deep": ' + "[" * 250 + "]" * 250, "too_deep"),
    "no UTF-8": ('"r2"', '"r\udcff"', "bad_encoding"),
    "id of no type": ('"r2"', "[1]", "bad_shape"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("text", [ARRAY, PRETTY, LINES])
def test_a_broken_record_costs_itself_and_keeps_its_text(tmp_path: Path, text: str, case: str) -> None:
    before, after, reason = BROKEN[case]
    data = text.replace(before, after).encode("utf-8", "surrogateescape")
    found = reading(tmp_path, data)
    line = {ARRAY: 1, PRETTY: 28, LINES: 3}[text]
    assert found.reasons == [(reason, line)]
    assert found.ids == ["r0", "r1", "r3", "r4"]
    [bad] = found.bad
    assert bad["step"] == "read" and bad["source"][0].endswith("in.json") and bad["detail"]
    assert bad["raw"].startswith("{") and bad["raw"].endswith("}")
    assert orjson.dumps(bad)


@pytest.mark.parametrize("text", [ARRAY, PRETTY])
def test_in_an_array_a_record_without_its_end_costs_itself(tmp_path: Path, text: str) -> None:
    at = text.index("r2") + 40
    found = reading(tmp_path, text[:at] + ', "' + text[at:])
    assert [reason for reason, _ in found.reasons] == ["bad_json"]
    assert found.ids == ["r0", "r1", "r3", "r4"]


def test_the_first_record_may_be_the_broken_one(tmp_path: Path) -> None:
    for text in (ARRAY, PRETTY, LINES):
        found = reading(tmp_path, text.replace('"r0",', '"r0" '))
        assert [reason for reason, _ in found.reasons] == ["bad_json"]
        assert found.ids == NAMES[1:]


def test_a_number_that_is_none_is_no_reason_to_lose_a_record(tmp_path: Path) -> None:
    """pandas writes NaN where a table has no value: the record was rejected for a score that nobody had given."""
    found = reading(tmp_path, json.dumps([{**record("r0"), "score": float("nan"), "of": {"x": [float("nan"), 1]}}]))
    assert (found.bad, found.conversations[0].extra) == ([], {"score": None, "of": {"x": [None, 1]}})
    assert found.counts.changed == {"not_a_number": 2}


def test_half_a_surrogate_pair_is_kept_as_a_replacement_character(tmp_path: Path) -> None:
    for text in (ARRAY, PRETTY, LINES):
        found = reading(tmp_path, text.replace("A record", "A \\ud83d \\ud83d\\ude00 record"))
        assert (found.ids, found.bad) == (NAMES, [])
        assert found.conversations[0].turns[1].text == "A � 😀 record, ]}"
        assert found.counts.changed["lone_surrogate"] == 5


def test_what_is_no_object_is_named(tmp_path: Path) -> None:
    found = reading(tmp_path, '[1, "x", null, [2], true]')
    assert [reason for reason, _ in found.reasons] == ["not_an_object"] * 5
    assert found.bad[3]["detail"] == "a record is an object, this is a list"
    assert reading(tmp_path, "hello\nworld").reasons == [("bad_json", 1), ("bad_json", 2)]


@pytest.mark.parametrize("text", [ARRAY, PRETTY])
def test_an_array_that_was_cut_gives_what_it_holds_and_says_where_it_ends(tmp_path: Path, text: str) -> None:
    inside = reading(tmp_path, text[: text.index("r3") + 30])
    assert (inside.ids, [reason for reason, _ in inside.reasons]) == (NAMES[:3], ["truncated"])
    assert '"r3"' in inside.bad[0]["raw"]
    between = reading(tmp_path, text.rstrip("]\n"))
    assert (between.ids, [reason for reason, _ in between.reasons]) == (NAMES, ["truncated"])


def test_a_line_that_was_cut_is_named_so(tmp_path: Path) -> None:
    found = reading(tmp_path, LINES[:-20])
    assert (found.ids, found.reasons) == (NAMES[:4], [("truncated", 5)])


@pytest.mark.parametrize("text", [ARRAY, PRETTY])
def test_what_follows_an_array_is_told_and_its_records_are_read(tmp_path: Path, text: str) -> None:
    found = reading(tmp_path, text + text)
    assert (found.ids, [reason for reason, _ in found.reasons]) == (NAMES * 2, ["trailing_data"])
    found = reading(tmp_path, text + "\nend")
    assert (found.ids, [reason for reason, _ in found.reasons]) == (NAMES, ["trailing_data"])
    assert found.bad[0]["raw"] == "end"


@pytest.mark.parametrize("how", ["gzip", "zstd"])
@pytest.mark.parametrize("array", [False, True])
def test_a_compressed_stream_that_was_cut_gives_what_can_be_read(tmp_path: Path, how: str, array: bool) -> None:
    many = [record(f"{number}{number * 7919 % 9973}") for number in range(20_000)]
    text = json.dumps(many, indent=1) if array else "\n".join(map(json.dumps, many))
    data = compressed(text.encode(), how)
    found = reading(tmp_path, data[: len(data) // 2])
    assert 5_000 < len(found.ids) < 15_000
    assert found.ids == [r["id"] for r in many[: len(found.ids)]]
    assert found.reasons == [("truncated", 2 + 13 * len(found.ids) if array else 1 + len(found.ids))]
    assert "ends in the middle" in found.bad[0]["detail"]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_damage_in_a_compressed_stream_is_told_with_what_was_not_read(tmp_path: Path, how: str) -> None:
    many = [record(f"{number}{number * 7919 % 9973}") for number in range(20_000)]
    data = compressed("\n".join(map(json.dumps, many)).encode(), how)
    half = len(data) // 2
    found = reading(tmp_path, data[:half] + data[half:][::-1])
    assert 4_000 < len(found.ids) < 20_000
    assert found.ids[:4_000] == [r["id"] for r in many[:4_000]]
    assert found.reasons[-1][0] == "damaged"
    assert "compressed bytes were not read" in found.bad[-1]["detail"]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_compressed_stream_may_have_several_members(tmp_path: Path, how: str) -> None:
    data = b"".join(compressed(f"{json.dumps(r)}\n".encode(), how) for r in RECORDS)
    assert reading(tmp_path, data).ids == NAMES
    assert reading(tmp_path, data + b"garbage").reasons == [("damaged", {"gzip": 6, "zstd": 5}[how])]


def test_gzip_may_be_padded(tmp_path: Path) -> None:
    assert reading(tmp_path, compressed(LINES.encode(), "gzip") + b"\0" * 512).bad == []


def test_a_damaged_row_group_is_one_reject_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [
        {"id": f"c{n}", "messages": [{"role": "user", "content": f"text {n * 7919 % 9973} " * 20}]} for n in range(30)
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet", row_group_size=10, compression="zstd")
    data = bytearray((tmp_path / "in.parquet").read_bytes())
    chunk = parquet.ParquetFile(tmp_path / "in.parquet").metadata.row_group(1).column(2)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    found = reading(tmp_path, bytes(data))
    assert found.ids == [f"c{n}" for n in [*range(10), *range(20, 30)]]
    assert found.reasons == [("damaged", 11)]
    assert "rows 11 to 20" in found.bad[0]["detail"]


def test_a_parquet_text_that_is_no_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pyarrow.array([b"good", b"bad \xff", b"good"]).cast(pyarrow.string(), safe=False)
    table = pyarrow.table({"instruction": texts, "output": ["x", "y", "z"]})
    parquet.write_table(table, tmp_path / "in.parquet")
    found = Reading(tmp_path / "in.parquet")
    assert (found.ids, found.reasons) == (["alpaca_0", "alpaca_2"], [("bad_encoding", 2)])


@pytest.mark.parametrize("text", [ARRAY, PRETTY, LINES])
def test_a_record_over_the_limit_is_passed_over(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 2_000_000)
    found = reading(tmp_path, text.replace('"r2"', '"%s"' % ('\\"{' * 1_500_000)))
    assert found.ids == ["r0", "r1", "r3", "r4"]
    assert [reason for reason, _ in found.reasons] == ["too_large"]
    assert len(found.bad[0]["raw"]) == 1_048_576
    assert "1048576 of 45" in found.bad[0]["detail"]


@pytest.mark.parametrize("kind", ["array", "pretty", "lines", "one value"])
def test_memory_is_bounded_however_long_the_input(tmp_path: Path, kind: str) -> None:
    indent = 2 if kind in ("pretty", "one value") else None
    text = json.dumps(record("r") | {"more": "x" * 5_000}, indent=indent).encode()
    path = tmp_path / "in"
    with path.open("wb") as file:
        file.write(b"[" if kind in ("array", "pretty") else b"")
        for number in range(6_000):
            between = b"," if kind in ("array", "pretty") else b"\n"
            file.write((between if number else b"") + text)
        file.write(b"]" if kind in ("array", "pretty") else b"")
    tracemalloc.start()
    ledger = Ledger("read")
    number = sum(1 for _ in read(str(path), InputOptions(), ledger, pytest.fail))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 6_000
    assert peak < 12_000_000 < path.stat().st_size / 2


def test_object_storage_through_fsspec() -> None:
    with fsspec.open("memory://bucket/in.jsonl.gz", "wb") as file:
        file.write(compressed(LINES.encode(), "gzip"))
    found = Reading("memory://bucket/in.jsonl.gz")
    assert found.ids == NAMES
    assert found.conversations[0].source.file == "memory://bucket/in.jsonl.gz"


@pytest.mark.parametrize("opened", [Reading, ObjectStore])
def test_a_bucket_without_s3fs_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, opened: Callable[[str], object]
) -> None:
    """The newest s3fs may need another fsspec than the pinned one."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(vars(sys.modules["fsspec.registry"])["_registry"], "s3", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        opened("s3://bucket/x.json")
    assert "pip install -e '.[s3]'" in caught.value.message


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.json", "there is no such file"),
        ("", "is a folder"),
        ("foo://bucket/x.json", "Protocol not known: foo"),
        ("gs://bucket/x.json", "pip install gcsfs"),
        ("memory://nowhere/x.json", "there is no such file"),
    ],
)
def test_what_cannot_be_opened_names_the_remedy(tmp_path: Path, name: str, told: str) -> None:
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(ConfigurationError, match=told) as caught:
        Reading(path)
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("data", "name", "told"),
    [
        (b"PK\x03\x04....", "in.zip", "no readable zip archive"),
        (b"SQLite format 3\0", "in.db", "an SQLite database"),
        (b"<!DOCTYPE html>\n<html></html>", "chat.html", "a web page"),
        ("{}".encode("utf-16-le"), "in.json", "UTF-16"),
        (b"ARROW1 and then nothing", "in.arrow", "no readable Arrow file"),
        (b"BZh91AY", "in.bz2", "bzip2"),
        (b"\xfd7zXZ\0", "in.xz", "compressed with xz"),
        ("[]".encode("utf-16"), "in.json", "UTF-16"),
        (b"[]", "in.json.gz", "not compressed as its name says"),
        (b"PAR1 and then nothing", "in.parquet", "no readable Parquet"),
        (compressed(b"PAR1" + bytes(99_999), "gzip")[:-9], "in.parquet.gz", "ends in the middle"),
    ],
)
def test_what_is_of_no_readable_kind_names_the_remedy(tmp_path: Path, data: bytes, name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        reading(tmp_path, data, name)


def test_a_bracket_in_the_place_of_a_comma_costs_no_record(tmp_path: Path) -> None:
    """All that follows is one valid list then, and was rejected as one record that is none."""
    found = reading(tmp_path, ARRAY.replace("}, {", "}[ {", 1).encode())
    assert found.ids == NAMES


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([ARRAY, PRETTY, LINES]), st.data())
def test_whatever_is_damaged_the_sums_match_and_all_before_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    """A cut, or bytes put over the text anywhere; no damage invents a record out of what somebody said."""
    raw = text.encode()
    at = data.draw(st.integers(raw.index(b'"id"') + 4, len(raw)))  # before, nothing tells what a record begins with
    over = data.draw(st.sampled_from([b'"', b"\\", b"{", b"}", b"]", b"[", b",", b"\n", b"\xff", b"\0", b"", b'","']))
    cut = data.draw(st.booleans())
    damaged = raw[:at] + over + (b"" if cut else raw[at + len(over) :])
    found = reading(tmp_path_factory.mktemp("damaged"), damaged)
    num_whole = sum(raw.find(b'"r%d"' % n, 0, at) >= 0 for n in range(5)) - 1
    assert found.ids[: max(num_whole, 0)] == NAMES[: max(num_whole, 0)]
    if not cut:
        assert len(set(found.ids) & set(NAMES)) >= 3
