"""Puts a low-rank adapter on its base. `transformers_engine.py` calls it; importing this loads no torch.

The adapter is merged in memory: the answers are those of the merged model, and no step pays for the adapter.
"""

import importlib.util
from collections.abc import Iterable
from typing import Any

from services.errors import ConfigurationError
from services.models.adapters import ADAPTER_CONFIG
from services.models.base_weights import check_base
from services.models.catalogue import ModelSource


def merged(base: Any, adapter: ModelSource) -> Any:
    """`base` with the adapter in its weights. Raises ConfigurationError for an adapter that is not of this base."""
    _check_peft()
    check_base(adapter)
    from peft import PeftConfig, PeftModelForCausalLM

    config: Any = PeftConfig.from_pretrained(str(adapter.path))
    _check_kind(config, adapter)
    _check_targets(config.target_modules, base, adapter)
    config.inference_mode = True
    adapted = PeftModelForCausalLM(base, config)
    try:
        found = adapted.load_adapter(str(adapter.path), "default", torch_device="cpu")
    except RuntimeError as error:  # sizes that differ, one on each line
        raise _foreign(str(error).splitlines()[-1].strip(), adapter) from None
    _check_complete(found, adapter)
    return adapted.merge_and_unload()


def _check_peft() -> None:
    if importlib.util.find_spec("peft") is None:
        raise ConfigurationError("an adapter needs the package peft: pip install peft, or serve the merged model")


def _check_kind(config: Any, adapter: ModelSource) -> None:
    if config.peft_type != "LORA":
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise ConfigurationError(
            f"adapter {adapter.name!r}: peft_type={kind} in {adapter.path}/{ADAPTER_CONFIG}, and only LORA is served; "
            "merge it into its base and serve that"
        )


def _check_targets(targets: Any, base: Any, adapter: ModelSource) -> None:
    """PEFT is content when one of the names is right. A pattern instead of names is PEFT's to judge."""
    if isinstance(targets, str):
        return
    layers = {name for name, _ in base.named_modules()}
    for target in sorted(targets or ()):
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            raise _foreign(f"target_modules names {target!r}, which is no layer of it", adapter)


def _check_complete(found: Any, adapter: ModelSource) -> None:
    """PEFT leaves out the weights that fit nowhere, and begins with random ones where it has none."""
    _check_none(found.unexpected_keys, "fit nowhere", adapter)
    _check_none(found.missing_keys, "are missing", adapter)


def _check_none(names: Iterable[str], what: str, adapter: ModelSource) -> None:
    listed = sorted(names)
    if listed:
        raise _foreign(f"{len(listed)} of its weights {what}, such as {listed[0]}", adapter)


def _foreign(what: str, adapter: ModelSource) -> ConfigurationError:
    assert adapter.base is not None
    return ConfigurationError(
        f"adapter {adapter.name!r} does not fit {adapter.base.reference!r}: {what}; name the model that it was trained "
        f"on as base_model_name_or_path in {adapter.path}/{ADAPTER_CONFIG}, or copy the adapter again"
    )
