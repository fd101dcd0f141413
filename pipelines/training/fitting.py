"""Whether a configuration fits a model's own limits. `train` and `preview` ask before anything costs time.

A model with learned positions fails far inside a library when a sequence is longer than its table; one with rotary
positions says nothing and learns positions that it never saw.
"""

from dataclasses import dataclass
from typing import Any

from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.models.catalogue import ModelSource
from services.models.gguf_metadata import read_gguf_metadata


@dataclass(frozen=True)
class Limits:
    """What a model has room for; 0 where it sets no limit."""

    positions: int = 0
    vocabulary: int = 0  # token ids that have an embedding


def limits_of(source: ModelSource) -> Limits:
    """Raises ConfigurationError for a model that is not there or is none."""
    if source.base is not None:
        raise ConfigurationError(
            f"model={source.reference!r} is an adapter on {source.base.reference!r}; train on that model, or on the "
            "merged model of the adapter's own training",
            field="model",
        )
    if source.gguf:
        return Limits(_positions_of_gguf(source))  # its tokenizer and its weights are one file
    found = model_config(source)
    return Limits(most_positions(found), int(getattr(found.get_text_config(), "vocab_size", 0) or 0))


def check_fits(limits: Limits, config: TrainingConfig) -> None:
    """Raises ConfigurationError for sequences that are longer than the model's positions."""
    if limits.positions and config.seq_len > limits.positions:
        raise ConfigurationError(
            f"seq_len={config.seq_len} is more than the {limits.positions} positions of the model {config.model}; "
            f"set seq_len={limits.positions} or less",
            field="seq_len",
        )


def model_config(source: ModelSource) -> Any:
    """The configuration of transformers for a model that is no GGUF."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source.location)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigurationError(f"the model {source.location!r} cannot be loaded for training: {error}") from None


def most_positions(config: Any) -> int:
    """The positions that a model has, with those that its rotary scaling adds; 0 if it has no limit."""
    text = config.get_text_config()
    if getattr(text, "alibi", False):
        return 0
    own = int(getattr(text, "max_position_embeddings", None) or 0)
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if not factor:
        return own
    return max(own, int(factor * (original or own)))


def _positions_of_gguf(source: ModelSource) -> int:
    assert source.gguf is not None
    metadata = read_gguf_metadata(source.gguf)
    return int(metadata.get(f"{metadata['general.architecture']}.context_length", 0))
