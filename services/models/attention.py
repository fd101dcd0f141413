"""The attention that a model's code in `transformers` computes with no further package: workers and training ask."""

from typing import Any

from services.models.catalogue import ModelSource
from services.models.gguf_metadata import read_gguf_metadata


def plain_attention(source: ModelSource) -> tuple[str, str]:
    """The name of the attention, and why it is the slower one; the reason is empty for `sdpa`.

    gpt-oss, Gemma 2, Bloom and others have no sdpa. Of a model that cannot be read, whoever loads it tells why.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    configuration = _kind_of_configuration(source)
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(configuration, None) if configuration else None
    if kind is None or kind._supports_sdpa:
        return "sdpa", ""
    return "eager", f"{kind.__name__} has no sdpa"


def _kind_of_configuration(source: ModelSource) -> Any:
    """The class; None if nothing names it. A GGUF's metadata do: to have the library read the file takes seconds."""
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        if source.gguf is None:
            return type(AutoConfig.from_pretrained(source.location))
        return CONFIG_MAPPING[str(read_gguf_metadata(source.gguf)["general.architecture"]).replace("-", "_")]
    except (OSError, ValueError, KeyError, ImportError):
        return None
