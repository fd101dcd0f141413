"""The layers of a model that a low-rank adapter is put on. `models.py` asks.

PEFT takes a list of names as long as one of them is right, and puts adapters on tied weights that it later merges into
one copy only. Here each name must be of the model, and weights that two layers share get no adapter.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from services.errors import ConfigurationError

ALL_LINEAR = "all-linear"
# The attention's projections of the architectures in use; of a fused one there is but one name.
_ATTENTION = (
    ("q_proj", "v_proj"),
    ("qkv_proj",),
    ("query_key_value",),
    ("c_attn",),
    ("q_lin", "v_lin"),
    ("query", "value"),
    ("Wqkv",),
    ("wq", "wv"),
    ("in_proj", "out_proj"),
)


def adapter_targets(asked: Sequence[str], model: Any) -> list[str] | str:
    """The names for PEFT. Raises ConfigurationError for a name that no layer has, and for tied weights."""
    layers = dict(_layers(model))
    if list(asked) == [ALL_LINEAR]:
        return ALL_LINEAR
    if not asked:
        return _attention(layers)
    for name in asked:
        if not _matching(name, layers):
            raise ConfigurationError(
                f"lora_targets: {name!r} is no layer of the model that can have an adapter; its layers: "
                f"{_names(layers)}; or {ALL_LINEAR}",
                field="lora_targets",
            )
        _check_embeddings(name, layers, model)
    return list(asked)


def has_transposed_layers(model: Any) -> bool:
    """Whether the model keeps its weights as GPT-2 does, (in, out)."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The full name of each layer that PEFT can put an adapter on."""
    import torch

    kinds = (torch.nn.Linear, torch.nn.Embedding)
    for name, module in model.named_modules():
        if name and (isinstance(module, kinds) or type(module).__name__ in ("Conv1D", "Linear4bit")):
            yield name, module


def _matching(name: str, layers: dict[str, Any]) -> list[Any]:
    return [layer for full, layer in layers.items() if full == name or full.endswith(f".{name}")]


def _attention(layers: dict[str, Any]) -> list[str]:
    for names in _ATTENTION:
        if all(_matching(name, layers) for name in names):
            return list(names)
    raise ConfigurationError(
        f"this model's attention has no name that is known here; choose lora_targets among {_names(layers)}, or "
        f"lora_targets={ALL_LINEAR}",
        field="lora_targets",
    )


def _names(layers: dict[str, Any]) -> str:
    return ", ".join(sorted({full.rpartition(".")[2] for full in layers}))


def _check_embeddings(name: str, layers: dict[str, Any], model: Any) -> None:
    """An adapter on one of two layers with the same weight cannot be merged into both, and TRL's loss reads the
    weights of the output layer past its adapter."""
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    chosen = _matching(name, layers)
    if output is None:
        return
    if output.weight is not embedding.weight:
        if output in chosen:
            raise ConfigurationError(
                f"lora_targets: {name!r} is the output layer, whose adapter would not be trained: leave it out, or "
                "train with method=full",
                field="lora_targets",
            )
        return
    if embedding in chosen or output in chosen:
        raise ConfigurationError(
            f"lora_targets: {name!r} has the weights of the model's embeddings and of its output at once, and an "
            "adapter changes only one of them: leave it out, or train with method=full",
            field="lora_targets",
        )
