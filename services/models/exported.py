"""The GGUF that was exported from a trained model, for engines that read GGUF: `gguf/` in the model's folder.

`pipelines/training/export.py` writes it: the file first, its check next, the manifest last. So a GGUF without its
manifest was not finished, and one whose manifest names another model is of weights that are gone. `catalogue.py` looks
for it; `chatserver models` shows it.
"""

from dataclasses import dataclass
from pathlib import Path

from services.machine.files import fault_of_sizes, read_marker, sha256_of
from services.models.model_folder import MANIFEST

EXPORTED = "gguf"  # the folder
PRECISIONS = ("q8_0", "f16")  # of the weights: 8 bits and a scale for each 32, or 16 bits
OF_MODEL = "model"  # the field of its manifest that has the SHA-256 of the model's


@dataclass(frozen=True)
class Exported:
    """`file` is None where the model is served without a GGUF: `refused` says why.

    `settled`: an export of this very model came to its end, with a GGUF that is whole or with a reason against one.
    """

    precision: str = ""
    file: Path | None = None
    refused: str = ""
    settled: bool = False


def find_exported(folder: Path) -> Exported | None:
    """What was exported from the model in this folder; None if nothing was."""
    place = folder / EXPORTED
    if not place.is_dir():
        return None
    try:
        about = read_marker(place / MANIFEST)
        of_this_model = about.get(OF_MODEL) == sha256_of(folder / MANIFEST)
    except FileNotFoundError:
        return Exported(refused="its export to GGUF was not finished")
    except (OSError, ValueError) as error:
        return Exported(refused=f"its GGUF cannot be used: {error}")
    precision = str(about.get("precision", ""))
    if not of_this_model:
        return Exported(precision, refused="its GGUF was exported from other weights")
    if refused := str(about.get("refused", "")):
        return Exported(precision, refused=refused, settled=True)
    if fault := fault_of_sizes(place, about["files"]):
        return Exported(precision, refused=f"its GGUF is not whole: {fault}")
    file = next((place / name for name in about["files"] if name.endswith(".gguf")), None)
    return Exported(precision, file, settled=True)
