"""What a batch has written: what was committed counts, and nothing else does."""

from pathlib import Path

from pipelines.batches.ledger import AnsweredLine, BatchLedger


def test_what_a_dead_process_wrote_behind_its_commit_is_cut_off(tmp_path: Path) -> None:
    ledger = BatchLedger(tmp_path)
    ledger.checked(3, 1000)
    ledger.commit([AnsweredLine(b"a\n", failed=False), AnsweredLine(b"b\n", failed=True)], 2, 20)
    for path in (ledger.output, ledger.errors):
        with path.open("ab") as file:
            file.write(b"half a li")
    again = BatchLedger(tmp_path)
    assert (again.output.read_bytes(), again.errors.read_bytes()) == (b"a\n", b"b\n")
    assert again.place == ledger.place and (again.place.number, again.place.offset) == (2, 20)
    again.commit([AnsweredLine(b"c\n", failed=False)], 3, 30, "done")
    assert BatchLedger(tmp_path).output.read_bytes() == b"a\nc\n"
    assert (again.place.answered, again.place.failed, again.place.ended) == (2, 1, "done")


def test_what_the_user_has_is_not_kept_a_second_time(tmp_path: Path) -> None:
    """Also by the process that goes on for one which died between the two."""
    (tmp_path / "input.jsonl").write_bytes(b"{}\n")
    ledger = BatchLedger(tmp_path)
    ledger.commit([AnsweredLine(b"a\n", failed=False)], 1, 3, "done")
    ledger.published("file-1", "")
    again = BatchLedger(tmp_path)
    again.let_go()
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    assert (again.place.published, again.place.output_file, again.place.answered) == (True, "file-1", 1)


def test_one_process_at_a_time_works_on_a_batch(tmp_path: Path) -> None:
    with BatchLedger.lock(tmp_path) as first, BatchLedger.lock(tmp_path) as second:
        assert first is not None and second is None
    with BatchLedger.lock(tmp_path) as third:
        assert third is not None
