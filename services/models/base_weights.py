"""Whether the model under an adapter is the one that the adapter was trained on.

The training program notes a digest of the base's weights in the adapter's manifest; an engine compares it before it
puts the adapter on a base. The digest is of samples: to read 14 GB twice would double the time of a worker's start, and
a training changes nearly every value of the layers that it trains.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError
from services.machine.files import read_marker
from services.models.catalogue import ModelSource
from services.models.model_folder import MANIFEST

FIELD = "base_weights"  # of the adapter's manifest
_SAMPLES, _SAMPLE_BYTES = 256, 4096  # of each file


def check_base(adapter: ModelSource) -> None:
    """Raises ConfigurationError when the base's weights have changed. An adapter from elsewhere notes no weights."""
    assert adapter.base is not None and adapter.path is not None, f"{adapter.name} is no adapter"
    manifest = adapter.path / MANIFEST
    noted = read_marker(manifest).get(FIELD) if manifest.exists() else None
    if noted and noted != (found := weights_digest(adapter.base)):
        raise ConfigurationError(
            f"adapter {adapter.name!r} was trained on other weights than {adapter.base.reference!r} has now (digest "
            f"{noted[:12]}, now {found[:12] or 'none'}): bring the former model back, train the adapter anew on this "
            "one, or serve the merged model of that training"
        )


def weights_digest(base: ModelSource) -> str:
    """Of the weights that a training or an engine has loaded from here; empty where there are none of a known kind."""
    place = base.path or _snapshot(base.hub_id)
    digest, files, checksums = sha256(), _weights(place), _checksums(place)
    for file in files:
        if checksum := checksums.get(file.name):
            digest.update(checksum.encode())
        else:
            _add_samples(digest, file)
    return digest.hexdigest() if files else ""


def _checksums(place: Path) -> dict[str, str]:
    """Of the files of a model that was trained here."""
    if not (place / MANIFEST).is_file():
        return {}
    return {name: str(file.get("sha256", "")) for name, file in read_marker(place / MANIFEST)["files"].items()}


def _snapshot(hub_id: str) -> Path:
    """The folder in the hub's cache that has been loaded from."""
    from transformers.utils.hub import cached_file

    found: str | None = cached_file(hub_id, "config.json")
    assert found is not None, "it raises when the file is not there"
    return Path(found).parent


def _weights(place: Path) -> list[Path]:
    """The files that transformers prefers."""
    if place.is_file():
        return [place]
    return sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin"))


def _add_samples(digest: Any, file: Path) -> None:
    size = file.stat().st_size
    digest.update(f"{size}\n".encode())
    with file.open("rb") as opened:
        for start in range(0, size, max(size // _SAMPLES, _SAMPLE_BYTES)):
            opened.seek(start)
            digest.update(opened.read(_SAMPLE_BYTES))
