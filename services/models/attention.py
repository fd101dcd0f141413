"""The attention that a model's code in `transformers` computes with no further package: workers and training ask."""

from typing import Any

from services.models.catalogue import ModelSource
from services.models.gguf_metadata import read_gguf_metadata


def plain_attention(source: ModelSource) -> tuple[str, str]:
    """The name of the attention, and why it is the slower one; the reason is empty for `sdpa`.

    gpt-oss, Gemma 2, Bloom and others have no sdpa. Of a model that cannot be read, whoever loads it tells why.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(_kind_of_configuration(source), None)
    if kind is None or kind._supports_sdpa:
        return "sdpa", ""
    return "eager", f"{kind.__name__} has no sdpa"


def _kind_of_configuration(source: ModelSource) -> Any:
    """The class. A GGUF's metadata name it; to have the library read them takes seconds."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if source.gguf is not None:
        name = str(read_gguf_metadata(source.gguf).get("general.architecture", "")).replace("-", "_")
        return CONFIG_MAPPING.get(name, None)
    try:
        return type(AutoConfig.from_pretrained(source.location))
    except (OSError, ValueError, KeyError, ImportError):
        return None
