"""An adapter's folder, its base, and whether that base is still the one that the adapter was trained on."""

import json
import shutil
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.machine.files import seal
from services.models.base_weights import FIELD, check_base, weights_digest
from services.models.catalogue import ModelSource, resolve

WEIGHTS = bytes(range(256)) * 16_384  # 4 MiB: compared by samples


def written_base(folder: Path, weights: bytes = WEIGHTS) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def written_adapter(folder: Path, base: object, digest: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
    if digest:
        seal(folder, "manifest.json", {FIELD: digest})
    return folder


def test_an_adapter_is_a_model_with_a_base(tmp_path: Path) -> None:
    base = written_base(tmp_path / "base")
    found = resolve(str(written_adapter(tmp_path / "july", str(base))))
    assert (found.name, found.kind, found.location, found.base) == (
        "july",
        "adapter",
        str(tmp_path / "july"),
        resolve(str(base)),
    )
    assert resolve(str(written_adapter(tmp_path / "june", "facebook/opt-350m"))).base == resolve("facebook/opt-350m")


def test_a_merged_model_that_keeps_its_adapters_configuration_is_a_plain_model(tmp_path: Path) -> None:
    folder = written_adapter(tmp_path / "merged", "facebook/opt-350m")
    (folder / "config.json").write_text("{}")
    assert resolve(str(folder)).kind == "adapter", "the configuration of its base lies beside it"
    (folder / "model-00001-of-00002.safetensors").touch()
    assert resolve(str(folder)).kind == "folder"


@pytest.mark.parametrize("kind", ["packaged", "folder", "gguf", "hub"])
def test_a_model_is_found_again_by_its_reference(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    written_base(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    named = {"packaged": "smollm2-135m", "folder": "base", "gguf": "m.gguf", "hub": "facebook/opt-350m"}[kind]
    source = resolve(named)
    monkeypatch.chdir("/")
    assert source.kind == kind and resolve(source.reference) == source


def test_a_base_that_is_gone_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder = written_adapter(tmp_path / "july", str(tmp_path / "base"))
    with pytest.raises(ConfigurationError, match=r"july.* changes the model '.*/base', which is not here.*bring that"):
        resolve(str(folder))


@pytest.mark.parametrize("base", [None, "", 7])
def test_an_adapter_without_a_base_is_refused(tmp_path: Path, base: object) -> None:
    with pytest.raises(ConfigurationError, match=r"adapter_config.json: base_model_name_or_path=.* is no model"):
        resolve(str(written_adapter(tmp_path / "july", base)))


def test_a_damaged_configuration_of_an_adapter_is_named(tmp_path: Path) -> None:
    folder = written_adapter(tmp_path / "july", "gpt2")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"adapter_config.json cannot be read .*; copy the adapter again"):
        resolve(str(folder))


def test_an_adapter_on_an_adapter_is_refused(tmp_path: Path) -> None:
    first = written_adapter(tmp_path / "first", "gpt2")
    with pytest.raises(ConfigurationError, match=r"changes '.*/first', which is an adapter itself; merge that first"):
        resolve(str(written_adapter(tmp_path / "second", str(first))))


def test_an_adapter_whose_training_did_not_finish_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    folder = written_adapter(tmp_path / "adapter", "gpt2")
    with pytest.raises(ConfigurationError, match=r"/adapter' is not complete: it has no manifest.json"):
        resolve(str(folder))


def test_a_copy_of_the_base_has_its_weights_wherever_it_lies(tmp_path: Path) -> None:
    base = written_base(tmp_path / "base")
    copy = shutil.copytree(base, tmp_path / "elsewhere")
    (copy / "README.md").write_text("copied")
    assert weights_digest(resolve(str(copy))) == weights_digest(resolve(str(base))) != ""


@pytest.mark.parametrize(
    "changed", [WEIGHTS[: 1 << 21] + bytes(1 << 17) + WEIGHTS[(1 << 21) + (1 << 17) :], WEIGHTS + b"x"]
)
def test_a_base_of_other_weights_is_refused_with_the_remedy(tmp_path: Path, changed: bytes) -> None:
    base = written_base(tmp_path / "base")
    adapter = resolve(str(written_adapter(tmp_path / "july", str(base), weights_digest(resolve(str(base))))))
    check_base(adapter)
    (base / "model.safetensors").write_bytes(changed)
    with pytest.raises(ConfigurationError, match=r"'july' was trained on other weights than '.*/base' has now.*bring"):
        check_base(adapter)


def test_the_weights_of_a_model_that_was_trained_here_are_those_of_its_manifest(tmp_path: Path) -> None:
    """So a change between two samples is noticed, too."""
    base = written_base(tmp_path / "model")
    seal(base, "manifest.json", {})
    before = weights_digest(resolve(str(base)))
    (base / "model.safetensors").write_bytes(WEIGHTS[:8192] + b"x" + WEIGHTS[8193:])
    seal(base, "manifest.json", {})
    assert weights_digest(resolve(str(base))) != before


def test_an_adapter_from_elsewhere_is_taken_at_its_word(tmp_path: Path) -> None:
    base = written_base(tmp_path / "base")
    check_base(resolve(str(written_adapter(tmp_path / "july", str(base)))))


def test_a_model_of_the_hub_is_compared_by_what_the_cache_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = written_base(tmp_path / "models--some--model" / "snapshots" / "abc")
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("abc")
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    same = ModelSource("base", "folder", snapshot)
    assert weights_digest(resolve("some/model")) == weights_digest(same)
