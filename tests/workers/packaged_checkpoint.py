"""The packaged model as a checkpoint of the Hugging Face kind, for engines that read no GGUF."""

from pathlib import Path

from services.models.catalogue import ModelSource
from tests.workers.text_decoders import packaged_source


def build(folder: Path) -> ModelSource:
    """Unpacked to bfloat16, 270 MB, with its tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = packaged_source()
    assert source.gguf is not None, "it comes as a GGUF"
    name = source.gguf.name
    model = AutoModelForCausalLM.from_pretrained(source.location, gguf_file=name, dtype=torch.bfloat16)
    model.hf_quantizer = None  # else save_pretrained refuses, though the weights are plain by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source.location, gguf_file=name).save_pretrained(folder)
    return ModelSource(source.name, "folder", folder)
