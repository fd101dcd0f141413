"""How a model's answers are sampled where a request leaves an option open. Workers and the training program ask.

The model says it itself, as for other servers: a checkpoint in `generation_config.json`, a GGUF file in its metadata.
A packaged model has them in the catalogue. What the model does not say is as in `SamplingDefaults`.
"""

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from services.errors import InvalidRequest
from services.models.catalogue import ModelSource, packaged_models
from services.models.generation_config import NAME as GENERATION_CONFIG
from services.models.generation_config import read_generation_config
from services.models.gguf_metadata import read_gguf_metadata
from services.wire.messages import SamplingDefaults
from services.wire.parsing import parse_sampling

log = logging.getLogger("chatserver.worker")

_NAMES = tuple(field.name for field in fields(SamplingDefaults))
_GGUF_KEYS = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "penalty_repeat"}


def named_sampling(source: ModelSource) -> dict[str, float]:
    """The options that the model names. A value that no request may have is left out, and the log says so."""
    found: Mapping[str, Any]
    if source.base is not None and not (Path(source.location) / GENERATION_CONFIG).is_file():
        return named_sampling(source.base)  # an adapter from elsewhere may bring none
    if source.kind == "packaged":
        found = next(model.sampling for model in packaged_models() if model.name == source.name)
    elif source.gguf is not None:
        metadata = read_gguf_metadata(source.gguf)
        found = {name: _plain(metadata.get(f"general.sampling.{key}")) for name, key in _GGUF_KEYS.items()}
    else:
        config = read_generation_config(source.location)
        found = {name: config.get(name) for name in _NAMES}
    return {name: value for name, value in found.items() if value is not None and _is_possible(name, value)}


def sampling_defaults(source: ModelSource, supports: frozenset[str], vocab_size: int) -> SamplingDefaults:
    """What applies to this model on an engine with these options: what the engine refuses would fail every request."""
    named = named_sampling(source)
    if named.get("top_k", 0) > vocab_size:
        log.warning("the model asks for top_k %d; all %d tokens are drawn from", named.pop("top_k"), vocab_size)
    kept = {name: value for name, value in named.items() if name in supports}
    if left_out := named.keys() - kept:
        log.warning("this engine cannot set %s, which the model asks for", ", ".join(sorted(left_out)))
    made: Any = SamplingDefaults
    defaults: SamplingDefaults = made(**kept)
    return defaults


def _plain(value: Any) -> Any:
    """0.6, which a file with 32 bits has as 0.60000002."""
    return round(value, 6) if isinstance(value, float) else value


def _is_possible(name: str, value: Any) -> bool:
    try:
        parse_sampling({name: value})
    except InvalidRequest as error:
        log.warning("the model's own default is not used: %s", error)
        return False
    return True
