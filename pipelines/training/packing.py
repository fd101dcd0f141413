"""Whether a model keeps packed conversations apart. `train` asks before it packs.

Packing relies on the positions that begin anew at each conversation. A model that ignores them (OPT), or whose
layers carry a state along the sequence (Mamba, LFM2), lets a conversation see the one before it and learns nonsense
from it. No list of architectures would stay right, so the model itself is asked: two short rows, packed as the trainer
packs them; if the first changes and the logits of the second do too, the model saw across. transformers refuses such
rows itself for some layers, where a kernel is missing that keeps them apart.
"""

from typing import Any

_ROW_TOKENS = 12
_ROUNDINGS = 8.0  # by which two results of the same sums may differ, in steps of the number format


def sees_across(model: Any, dtype: str) -> bool:
    """Whether a token of one packed row reaches the next row, computed in `dtype`. Leaves the model as it was."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            before, after = (_second_row(model, first, getattr(torch, dtype)) for first in (1, 2))
    except ValueError:  # what the library raises for rows that it cannot keep apart
        return True
    finally:
        model.train(was_training)
    step = torch.finfo(getattr(torch, dtype)).eps * before.abs().max()
    return bool((after - before).abs().max() > _ROUNDINGS * step)


def _second_row(model: Any, variant: int, dtype: Any) -> Any:
    """The logits of the second row behind one of two first rows."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    most = model.get_input_embeddings().weight.shape[0]
    first = [(7 * variant + 3 * index) % most for index in range(_ROW_TOKENS)]
    second = [(5 + 2 * index) % most for index in range(_ROW_TOKENS)]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    row = {"input_ids": first + second, "labels": first + second, "seq_lengths": [_ROW_TOKENS, _ROW_TOKENS]}
    batch = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in collate([row]).items()}
    del batch["labels"]
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        return model(**batch, use_cache=False).logits[0, _ROW_TOKENS:].float()
