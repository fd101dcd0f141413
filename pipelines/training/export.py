"""Exports a trained model to GGUF, which OpenVINO and llama.cpp read:

    python -m pipelines.training.export FOLDER [--precision q8_0]

The training program starts it for the model that it has made, `chatserver models export` for one that is there. A
process of its own: what a native library does to it leaves the training and its model whole. The exit code is 0 if the
GGUF is served from now on, 3 if the model is served as before; the last line says why.

`FOLDER/gguf/` holds the file and, written last, a manifest with the numbers of the check, or with the reason why there
is no file. All is written beside it and takes its place once whole: what was there is served until then.
"""

import argparse
import contextlib
import importlib.util
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.training.export_check import Check, check_export
from pipelines.training.fitting import model_config
from pipelines.training.gguf_vocabulary import check_vocabulary
from pipelines.training.gguf_writer import check_writable, write_gguf
from pipelines.training.manifest import library_version
from services.errors import ConfigurationError, Conflict
from services.machine.files import seal, sync, try_lock
from services.models.adapters import is_adapter
from services.models.catalogue import resolve
from services.models.exported import EXPORTED, OF_MODEL, PRECISIONS, Exported, find_exported
from services.models.model_folder import MANIFEST, read_manifest
from services.tokens.tokenization import load_tokenizer

TOLD_EXIT = 3  # not 1, with which Python ends when it crashes
_DRAFT, _ASIDE = ".gguf-unfinished", ".gguf-before"
_LIBRARIES = ("gguf", "openvino", "openvino-genai", "torch", "transformers")


def export(folder: Path, precision: str) -> tuple[Exported, Check | None]:
    """Replaces what was exported before, unless that is whole and the new one is refused. Raises ConfigurationError for
    what is no trained model, Conflict while another process exports it, OSError such as for a full disk."""
    digest = read_manifest(folder).digest
    if is_adapter(folder):
        raise ConfigurationError(f"{folder} holds an adapter: export the merged model of that training")
    if importlib.util.find_spec("openvino_genai") is None:
        raise ConfigurationError("openvino, which checks the GGUF, is not installed; run: pip install openvino-genai")
    with _alone(folder):
        _tidy(folder)
        draft = folder / _DRAFT
        try:
            draft.mkdir()
            check, refused = _written(folder, draft, precision)
            before = find_exported(folder)
            if refused and before and before.file:
                return Exported(precision, refused=refused), check
            seal(draft, MANIFEST, _about(digest, precision, check, refused))
            _swap(draft, folder)
        finally:
            _tidy(folder)
        found = find_exported(folder)
    assert found is not None, "it was sealed just now"
    return found, check


def _swap(draft: Path, folder: Path) -> None:
    place = folder / EXPORTED
    if place.exists():
        place.rename(folder / _ASIDE)
    draft.rename(place)
    sync(folder)


def tidy(folder: Path) -> None:
    """Removes what an export that was killed has left, unless another one runs."""
    with contextlib.suppress(Conflict), _alone(folder):
        _tidy(folder)


def _tidy(folder: Path) -> None:
    place, aside = folder / EXPORTED, folder / _ASIDE
    if aside.exists() and not place.exists():  # killed in the middle of the swap
        aside.rename(place)
    for left in (folder / _DRAFT, aside):
        shutil.rmtree(left, ignore_errors=True)


def _written(folder: Path, place: Path, precision: str) -> tuple[Check | None, str]:
    """The check, and the reason why the file is not kept."""
    source, check = resolve(str(folder)), None
    gguf = place / f"{read_manifest(folder).fields.get('name') or source.name}-{precision}.gguf"
    try:
        config = model_config(source)
        check_writable(config)
        tokenizer = load_tokenizer(source)
        write_gguf(gguf, source, config, tokenizer, precision)
        check_vocabulary(gguf, tokenizer)
        check = check_export(gguf, folder, config, tokenizer)
        refused = check.fault
    except ConfigurationError as error:
        refused = error.message
    if refused:
        gguf.unlink(missing_ok=True)
    return check, refused


def _about(digest: str, precision: str, check: Check | None, refused: str) -> dict[str, Any]:
    return {
        OF_MODEL: digest,
        "precision": precision,
        "refused": refused,
        "check": asdict(check) if check else None,
        "created_s": int(time.time()),
        "libraries": {name: library_version(name) for name in _LIBRARIES},
    }


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with try_lock(folder.parent / f".export-{folder.name}.lock") as lock:
        if lock is None:
            raise Conflict(f"another process exports {folder} now; wait until it has ended")
        yield


def main() -> int:
    parser = argparse.ArgumentParser("python -m pipelines.training.export", description="Export a model to GGUF.")
    parser.add_argument("folder", type=Path, help="the folder of a trained model")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    given = parser.parse_args()
    folder: Path = given.folder.resolve()
    try:
        found, check = export(folder, given.precision)
    except (ConfigurationError, Conflict) as error:
        return _refused(folder, error.message)
    except OSError as error:
        return _refused(folder, f"{error.strerror or error}; make room and export it again")
    if found.file is None:
        return _refused(folder, found.refused)
    assert check is not None, "only what was checked is kept"
    size = found.file.stat().st_size / 2**20
    print(f"GGUF: {found.file}, {size:.0f} MiB; {check.in_words()}.", flush=True)
    return 0


def _refused(folder: Path, why: str) -> int:
    print(not_exported(folder, why), flush=True)
    return TOLD_EXIT


def not_exported(folder: Path, why: str) -> str:
    """The line that says why, and what serves the model."""
    before = find_exported(folder)
    if before and before.file:
        return f"Not exported, so the GGUF from before ({before.precision}) is served: {why}."
    return f"No GGUF, so torch serves it on a CPU too: {why}."


if __name__ == "__main__":
    sys.exit(main())
