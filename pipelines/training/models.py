"""Loads the model to train, chooses its number format and attention, and writes the trained model and its adapter.

`train` calls it. Importing this module loads no torch; its functions do.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.training.adapters import adapter_targets, has_transposed_layers
from pipelines.training.reporting import Aborted
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.models.adapters import is_adapter
from services.models.attention import plain_attention
from services.models.catalogue import ModelSource, resolve
from services.models.sampling_defaults import named_sampling
from services.tokens.tokenization import ChatTokenizer

_PROVED_ROWS, _PROVED_TOKENS = 4, 256
# By how much the losses of the trained and the saved model may differ: by the rounding of the weights that are saved,
# and, where the base was in four bits while it was trained, by what that changed. [is qlora][is float32]
_ROUNDING = ((0.05, 1e-3), (0.5, 0.5))


@dataclass(frozen=True)
class Arithmetic:
    """The number format and the attention that the device computes with, and why."""

    cuda: bool
    dtype: str  # bfloat16 or float32
    dtype_reason: str
    attention: str  # a name that transformers knows
    attention_reason: str

    @property
    def flash(self) -> bool:
        return self.attention.startswith("flash")


def choose_arithmetic(config: TrainingConfig) -> Arithmetic:
    """Raises ConfigurationError when what was asked for does not run here."""
    import torch

    cuda = torch.cuda.is_available()
    torch.set_float32_matmul_precision("high")  # TF32, on GPUs that have it
    if config.method == "qlora":
        _check_qlora(cuda)
    dtype, dtype_reason = _choose_dtype(config.precision, cuda)
    attention, attention_reason = _choose_attention(config, cuda, dtype)
    return Arithmetic(cuda, dtype, dtype_reason, attention, attention_reason)


def load_model(source: ModelSource, config: TrainingConfig, arithmetic: Arithmetic) -> Any:
    """The base model. Trained whole, its weights are float32 and computed with in `dtype`; else they stay in `dtype`.

    Raises ConfigurationError when it cannot be read.
    """
    import torch

    dtype = torch.float32 if config.method == "full" else getattr(torch, arithmetic.dtype)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": arithmetic.attention}
    if config.method == "qlora":
        options["quantization_config"] = _four_bits()
        options["device_map"] = {"": torch.cuda.current_device()}
    return _plain_base(source, options)


def adapter_of(config: TrainingConfig, model: Any) -> Any:
    """The low-rank adapter to train; None when all weights are trained. Raises ConfigurationError for wrong targets."""
    if config.method == "full":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=adapter_targets(config.lora_targets, model),
        fan_in_fan_out=has_transposed_layers(model),
        task_type="CAUSAL_LM",
    )


def save_model(
    folder: Path, state: Mapping[str, Any], model: Any, source: ModelSource, config: TrainingConfig, dtype: str
) -> None:
    """Write what was trained as a plain model of safetensors; an adapter is merged into the unquantized base."""
    import torch

    kind = getattr(torch, dtype)
    plain = _rebuilt(model, state) if config.method == "full" else _merged(source, config, state, kind)
    plain.to(kind)
    plain.config.use_cache = True
    plain.save_pretrained(folder, max_shard_size="5GB")


def save_adapter(folder: Path, state: Mapping[str, Any], model: Any, source: ModelSource) -> None:
    """Write what was trained as PEFT does. The base is named as every machine with the same files finds it."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, state_dict=dict(state), save_embedding_layers=False)
    plain = {name: weight.contiguous() for name, weight in weights.items()}
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy(model.peft_config["default"])
    config.base_model_name_or_path, config.inference_mode = source.reference, True
    config.save_pretrained(folder)


def rows_to_prove(rows: Any) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of a few short rows of prepared data, to compare the trained model with the saved one."""
    found = []
    for row in map(_as_answer, (rows[index] for index in range(min(len(rows), 8 * _PROVED_ROWS)))):
        length = min((row.get("seq_lengths") or [len(row["input_ids"])])[0], _PROVED_TOKENS)
        ids, labels = row["input_ids"][:length], row["labels"][:length]
        if any(label >= 0 for label in labels[1:]):
            found.append((ids, labels))
    return found[:_PROVED_ROWS]


def _as_answer(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A judged answer, or of a pair the one that is preferred, as an answer to learn."""
    if "prompt_ids" not in row:
        return row
    prompt, answer = row["prompt_ids"], row["chosen_ids"] if "chosen_ids" in row else row["completion_ids"]
    return {"input_ids": [*prompt, *answer], "labels": [*([-100] * len(prompt)), *answer]}


def loss_on(model: Any, rows: Sequence[tuple[list[int], list[int]]], device: Any) -> float:
    """Per learnt token, each row for itself."""
    import torch

    total, num = 0.0, 0
    model.eval()
    with torch.no_grad():
        for ids, labels in rows:
            logits = model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0, :-1].float()
            wanted = torch.tensor(labels[1:], device=device)
            total += torch.nn.functional.cross_entropy(logits, wanted, reduction="sum").item()
            num += int((wanted >= 0).sum())
    return total / max(num, 1)


def check_saved(
    folder: Path,
    rows: Sequence[tuple[list[int], list[int]]],
    trained: float,
    config: TrainingConfig,
    source: ModelSource,
    dtype: str,
) -> float:
    """The loss of the saved model, or of its adapter on the base, on these rows.

    Raises Aborted when it is not that of the trained one.
    """
    saved = loss_on(_saved(folder, source, dtype), rows, "cpu")
    allowed = _ROUNDING[config.method == "qlora"][dtype == "float32"] * max(1.0, trained)
    if not abs(saved - trained) <= allowed:
        raise Aborted(
            f"the saved {folder.name} has the loss {saved:.4f} on {len(rows)} rows of the data, and the trained one "
            f"{trained:.4f}: what was trained is not what was saved. The checkpoints are whole; {folder} has no "
            "manifest, so nothing serves it"
        )
    return saved


def _saved(folder: Path, source: ModelSource, dtype: str) -> Any:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if is_adapter(folder):
        return PeftModel.from_pretrained(_plain_base(source, {"dtype": getattr(torch, dtype)}), str(folder))
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")


def save_generation_config(folder: Path, tokenizer: ChatTokenizer, source: ModelSource) -> None:
    """With all ids that end an answer, so that every engine stops where the training did, and the base's sampling."""
    from transformers import GenerationConfig

    ends = list(tokenizer.stop_token_ids)
    named: dict[str, Any] = named_sampling(source)
    if named:
        named["do_sample"] = True  # without it the library refuses to save the others
    config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[0], **named)  # type: ignore[no-untyped-call]
    config.save_pretrained(folder)


def trained_tokenizer(tokenizer: ChatTokenizer) -> Any:
    """The tokenizer that serves, as one of transformers: its own backend, and the template that rendered the data."""
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer.decoder(), clean_up_tokenization_spaces=False, **tokenizer.named_tokens()
    )
    made.chat_template = tokenizer.chat_template
    if made.pad_token is None:
        made.pad_token = tokenizer.decoder().id_to_token(tokenizer.stop_token_ids[0])
    return made


def _plain_base(source: ModelSource, options: Mapping[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    extra = {"gguf_file": source.gguf.name} if source.gguf else {}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(source.location, **options, **extra)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(f"the model {source.location!r} cannot be loaded for training: {error}") from None
    if source.gguf:  # its weights are plain by now, though the library goes on to call it quantized
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    return model


def _rebuilt(model: Any, state: Mapping[str, Any]) -> Any:
    """A model of the same configuration with these weights. The one that trained may be spread over devices."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(model.config)  # type: ignore[no-untyped-call]
    plain.load_state_dict(dict(state), assign=True, strict=False)
    plain.tie_weights()
    left = [name for name, weight in plain.named_parameters() if weight.is_meta]
    assert not left, f"weights that were not gathered: {left}"
    return plain


def _merged(source: ModelSource, config: TrainingConfig, state: Mapping[str, Any], dtype: Any) -> Any:
    from peft import get_peft_model

    base = _plain_base(source, {"dtype": dtype})
    adapted = get_peft_model(base, adapter_of(config, base))
    result = adapted.load_state_dict(dict(state), strict=False)
    assert not result.unexpected_keys, f"weights of the adapter that fit nowhere: {result.unexpected_keys}"
    return adapted.merge_and_unload()


def _four_bits() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _check_qlora(cuda: bool) -> None:
    if not cuda:
        raise ConfigurationError("method=qlora computes with 4-bit weights, which needs a CUDA GPU; use method=lora")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError("method=qlora needs the package bitsandbytes; run: pip install bitsandbytes")


def _choose_dtype(asked: str, cuda: bool) -> tuple[str, str]:
    import torch

    if asked != "auto":
        return {"bf16": "bfloat16", "fp32": "float32"}[asked], "asked for"
    if not cuda:
        return "float32", "a CPU trains in it"
    fast = torch.cuda.is_bf16_supported(including_emulation=False)
    return ("bfloat16", "this GPU computes it") if fast else ("float32", "this GPU lacks bfloat16")


def _choose_attention(config: TrainingConfig, cuda: bool, dtype: str) -> tuple[str, str]:
    flash, reason = _flash(cuda, dtype) if config.attention != "sdpa" else ("", "asked for")
    if flash:
        return flash, reason
    if config.attention == "flash":
        raise ConfigurationError(f"attention=flash: {reason}; use attention=auto")
    plain, lacks = plain_attention(resolve(config.model))
    if lacks and config.attention == "sdpa":
        raise ConfigurationError(f"attention=sdpa: {lacks}; use attention=auto", field="attention")
    return plain, f"{reason}; {lacks}" if lacks else reason


def _flash(cuda: bool, dtype: str) -> tuple[str, str]:
    """The name of the flash attention that runs here, or nothing, and why."""
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    if not cuda:
        return "", "flash attention needs a GPU"
    if dtype != "bfloat16":
        return "", f"flash attention does not compute in {dtype}"
    if is_flash_attn_3_available():
        return "flash_attention_3", "flash-attn 3 is installed"
    if is_flash_attn_2_available():
        return "flash_attention_2", "flash-attn 2 is installed"
    return "", "flash-attn is not installed: pip install flash-attn for speed"
