"""Models that are not there, not whole, or have no engine: found without loading one."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from services.doctor import models
from services.serving.trained_models import TrainedModel
from services.settings import Settings
from tests.services.doctor.told import only, told


def checked(model: object, **settings: str) -> tuple[str, str]:
    return only(models.check_model(Settings(model=str(model), **settings), lambda name: None, lambda package: True))


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    for name in ("a", "b"):
        writer.add_tensor(name, np.zeros((64, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint in two files, as `save_pretrained` writes it."""
    made = tmp_path / "mine"
    made.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    for number in (1, 2):
        (made / f"model-{number}.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (made / models.INDEX).write_text(json.dumps({"weight_map": weights}))
    (made / "config.json").write_text("{}")
    (made / "tokenizer.json").write_text("{}")
    return made


def test_the_packaged_model_is_whole() -> None:
    level, message = checked("smollm2-135m")
    assert level == "ok" and "llama, 94 MiB" in message


def test_a_whole_gguf_is_ok_and_one_that_was_cut_off_is_not(gguf: Path) -> None:
    assert checked(gguf)[0] == "ok"
    gguf.write_bytes(gguf.read_bytes()[:-30_000])  # into the second of two tensors of 16 KiB
    level, message = checked(gguf)
    assert level == "wrong" and "small.gguf is cut off" in message
    gguf.write_bytes(b"<html>404</html>" * 10)
    assert "is not a readable GGUF file" in checked(gguf)[1]


@pytest.mark.parametrize("name", ["/nowhere/x.gguf", "models/x.gguf"])
def test_a_gguf_that_is_not_there_is_no_hub_id(name: str) -> None:
    level, message = checked(name)
    assert level == "wrong" and "x.gguf" in message


def test_a_whole_folder_is_ok(folder: Path) -> None:
    level, message = checked(folder)
    assert level == "ok" and f"{folder}, 0 MiB of weights" in message


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("model-2.safetensors", r"lacks model-2.safetensors (1 of 2)"),
        ("tokenizer.json", "has no tokenizer"),
        ("config.json", "neither config.json nor a .gguf"),
    ],
)
def test_half_a_folder_is_wrong(folder: Path, lost: str, words: str) -> None:
    (folder / lost).unlink()
    level, message = checked(folder)
    assert level == "wrong" and words in message


def test_weights_that_were_cut_off_are_wrong(folder: Path) -> None:
    file = folder / "model-2.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    level, message = checked(folder)
    assert level == "wrong" and "model-2.safetensors has" in message and "download it again" in message


def test_a_folder_whose_training_has_not_finished_is_wrong(folder: Path) -> None:
    """Its manifest, written last, says how long each file is."""
    (folder / "manifest.json").write_text(json.dumps({"files": {"model-1.safetensors": {"bytes": 999}}}))
    level, message = checked(folder)
    assert level == "wrong" and "is not complete: model-1.safetensors has" in message


def test_what_only_the_hub_may_know_is_a_note_that_thinks_of_typing_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # other tests may switch it off by then
    (found,) = models.check_model(Settings(model="smolm2-135m"), lambda name: None, lambda package: True)
    assert found.level == "note" and "will download it from the hub" in found.message
    assert "packaged: smollm2-135m" in found.remedy
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert checked("facebook/opt-350m")[0] == "wrong"


def test_half_a_download_in_the_hubs_cache_is_found(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "hub" / "models--ann--mine"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots").mkdir()
    folder.rename(repo / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert checked("ann/mine")[0] == "ok"
    (repo / "snapshots" / "abc" / "model-1.safetensors").unlink()
    level, message = checked("ann/mine")
    assert level == "wrong" and "lacks model-1.safetensors" in message


def test_a_trained_model_is_found_by_its_name(folder: Path) -> None:
    trained = TrainedModel("july", str(folder / "gone"), "base", "job", 0.0)
    find = {"july": trained}.get
    level, message = only(models.check_model(Settings(model="july"), find, lambda package: True))
    assert level == "wrong" and "which is no folder on this machine" in message
    assert told(models.check_trained([trained], set())) == [("ok", "1 registered, 0 of them whole on this machine")]
    assert told(models.check_trained([trained], {"july"}))[0][0] == "warning"


def test_an_adapter_is_as_whole_as_its_base(tmp_path: Path, folder: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)}))
    level, message = checked(str(adapter))
    assert level == "ok" and f"{adapter}, an adapter on {folder}, " in message
    assert models.weights_here(Settings(model=str(adapter))) == models.weights_here(Settings(model=str(folder))) > 0
    (folder / "model-1.safetensors").unlink()
    assert "lacks model-1.safetensors" in checked(str(adapter))[1]


def test_a_machine_without_an_engine_is_told_the_same_as_notes() -> None:
    """An image of the web app alone."""
    none = Settings(model="/nowhere/x.gguf")
    assert only(models.check_engine(none, lambda package: False))[0] == "note"
    assert only(models.check_model(none, lambda name: None, lambda package: False))[0] == "note"


def test_an_engine_that_was_asked_for_must_be_installed() -> None:
    asked = Settings(engine="transformers")
    level, message = only(models.check_engine(asked, lambda package: package != "torch"))
    assert level == "wrong" and "torch is not installed" in message


def test_weights_that_do_not_fit_are_a_warning(gguf: Path) -> None:
    settings = Settings(model=str(gguf), cache_gib=1.0)
    find, has = (lambda name: None), (lambda package: True)
    assert only(models.check_memory(settings, find, 2 * 2**30, has))[0] == "ok"
    assert only(models.check_memory(settings, find, 3 * 2**29, has))[0] == "warning", "its processes need some, too"
    small = settings.model_copy(update={"cache_gib": 0.05})
    assert only(models.check_memory(small, find, 3 * 2**28, has))[0] == "ok"


def test_free_memory_is_the_least_of_the_machines_and_the_containers(tmp_path: Path) -> None:
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    meminfo.write_text("MemTotal: 16 kB\nMemAvailable:    8 kB\n")
    assert models.free_memory_bytes(meminfo, limit) == 8192
    limit.write_text("max\n")
    assert models.free_memory_bytes(meminfo, limit) == 8192
    limit.write_text("4096\n")
    assert models.free_memory_bytes(meminfo, limit) == 4096
