"""What `clean submit` asks for is what `clean run` does."""

from pathlib import Path

import pytest

from services.command.order.clean import _spec


def test_records_of_a_job_name_their_source_as_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job's records named the absolute path of a machine, those of a run the name that was typed."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("name: r\nsteps:\n  - roles\n")
    Path("in.json").write_text("[]")
    spec = _spec(Path("r.yaml"), ["in.json"], "out")
    assert (spec["inputs"], spec["labels"]) == ([str(tmp_path / "in.json")], ["in.json"])
    assert "labels" not in _spec(Path("r.yaml"), [str(tmp_path / "in.json")], "out")
