"""Reads a checkpoint's `generation_config.json`: how its makers sample it, and which tokens end an answer.

`services/models/sampling_defaults.py` and `services/tokens/tokenization.py` ask, so both think alike of a damaged file.
"""

from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError

NAME = "generation_config.json"


def read_generation_config(location: str) -> dict[str, Any]:
    """The file of a folder or hub id; empty if there is none. Raises ConfigurationError for a damaged one."""
    from transformers.utils.hub import cached_file

    try:
        found: str | None = cached_file(location, NAME)
    except OSError:  # the file is optional
        return {}
    return {} if found is None else _parsed(Path(found))


def end_token_ids(location: str) -> set[int]:
    """The tokens that the file names as ends. Raises ConfigurationError for what are no token ids."""
    named = read_generation_config(location).get("eos_token_id")
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if any(type(end) is not int for end in ends):
        raise ConfigurationError(
            f"{NAME} of {location!r}: eos_token_id={named!r:.80} is not a token id or a list of token ids",
            remedy="download the model again, or mend the file",
        )
    return set(ends)


def _parsed(path: Path) -> dict[str, Any]:
    """An answer may never end without the tokens that the file names: so a damaged file is not passed over."""
    try:
        found = orjson.loads(path.read_bytes())
    except (orjson.JSONDecodeError, OSError) as error:
        found = error
    if not isinstance(found, dict):
        why = found if isinstance(found, Exception) else f"it holds a {type(found).__name__}, not an object"
        raise ConfigurationError(
            f"{path} is damaged: {why}", remedy="download the model again, or delete the file if it has none"
        )
    return found
