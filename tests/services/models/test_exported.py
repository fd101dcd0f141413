"""A GGUF beside a model is served only as it was exported, whole, from the weights that are there."""

import os
from pathlib import Path

import pytest

from services.machine.files import seal, sha256_of
from services.models.catalogue import resolve
from services.models.exported import find_exported
from tests.end_to_end.tiny_model import seal as seal_model
from tests.workers import tiny_gguf
from workers import select_engine
from workers.select_engine import choose_engine


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_engine, "_cuda_available", lambda: False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "july"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    seal_model(folder)
    return folder


def exported(model: Path, *, refused: str = "") -> Path:
    """As `pipelines/training/export.py` leaves it. OpenVINO's families are told by the file's metadata."""
    place = model / "gguf"
    place.mkdir()
    file = place / "tiny-q8_0.gguf"
    if not refused:
        tiny_gguf.build(file, "llama")
    about = {"model": sha256_of(model / "manifest.json"), "precision": "q8_0", "refused": refused}
    seal(place, "manifest.json", about)
    return file


def test_a_folder_without_an_export_has_none(model: Path) -> None:
    assert find_exported(model) is None
    assert resolve(str(model)).gguf_weights is None


@pytest.mark.usefixtures("no_gpu")
def test_a_worker_takes_the_gguf_and_everything_else_from_the_folder(model: Path) -> None:
    file = exported(model)
    source = resolve(str(model))
    assert source.gguf_weights == file
    assert (source.gguf, source.kind, source.location) == (None, "folder", str(model))
    name, reason = choose_engine(source)
    assert name == "openvino"
    assert "july is a GGUF of architecture llama (q8_0, exported from it), which openvino reads" in reason


@pytest.mark.usefixtures("no_gpu")
def test_a_refused_export_is_served_by_torch_and_the_reason_is_told(model: Path) -> None:
    exported(model, refused="its greedy answers part from torch's")
    name, reason = choose_engine(resolve(str(model)))
    assert name == "transformers" and "(its greedy answers part from torch's)" in reason


def test_an_export_of_other_weights_is_not_served(model: Path) -> None:
    exported(model)
    manifest = model / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"steps": 3', '"steps": 4'))
    found = find_exported(model)
    assert found is not None and found.file is None and found.refused == "its GGUF was exported from other weights"


def test_an_export_that_was_cut_off_is_not_served(model: Path) -> None:
    os.truncate(exported(model), 1000)
    found = find_exported(model)
    assert found is not None and found.file is None
    assert found.refused.startswith("its GGUF is not whole: tiny-q8_0.gguf has 1,000 bytes")


def test_an_export_without_its_manifest_was_not_finished(model: Path) -> None:
    exported(model)
    (model / "gguf" / "manifest.json").unlink()
    found = find_exported(model)
    assert found is not None and found.file is None and found.refused == "its export to GGUF was not finished"


def test_a_damaged_manifest_is_named(model: Path) -> None:
    exported(model)
    (model / "gguf" / "manifest.json").write_text("{}")
    found = find_exported(model)
    assert found is not None and found.refused == "its GGUF cannot be used: it lists no files"
