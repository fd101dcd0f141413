"""Tiny random models of six families, each with a tokenizer and a chat template in the manner of its family."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.tokens.family_templates import FAMILY_TEMPLATES
from services.tokens.templates import TEMPLATES
from tests.services.tokens.chat_tokenizers import LLAMA3

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last and not add_generation_prompt %}"
    "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


@dataclass(frozen=True)
class FamilyModel:
    """`kind` names the configuration in transformers. `thinks`: its template has a place for reasoning."""

    name: str
    kind: str
    template: str
    marks: tuple[str, ...]
    ends: tuple[str, ...]  # eos_token, and what else the generation configuration names
    thinks: bool = False
    rstrip: bool = False
    steps: int = 60  # until it knows its few answers by heart
    sizes: dict[str, Any] = field(default_factory=dict)

    def build(self, folder: Path, texts: str) -> Path:
        """A folder as a model's makers publish it. The tokenizer knows the words of `texts`, and every byte."""
        import torch
        import transformers

        tokenizer = self._tokenizer(texts)
        ends = [tokenizer.convert_tokens_to_ids(end) for end in self.ends]
        named = {"pad_token_id": ends[-1], "eos_token_id": ends[0], "bos_token_id": ends[-1]}
        sizes = {name: size for name, size in {**SIZES, **self.sizes}.items() if size is not None}
        config = getattr(transformers, f"{self.kind}Config")(vocab_size=len(tokenizer), **sizes, **named)
        torch.manual_seed(1)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        make: Callable[..., Any] = transformers.GenerationConfig
        make(eos_token_id=ends).save_pretrained(folder)
        return folder

    def _tokenizer(self, texts: str) -> Any:
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend.train_from_iterator(
            [texts], trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
        )
        own = [mark for mark in self.marks if "think" in mark]
        special = [AddedToken(mark, rstrip=self.rstrip, normalized=False) for mark in self.marks if mark not in own]
        backend.add_tokens([AddedToken(mark, normalized=False) for mark in own])
        backend.add_special_tokens([*special, *(AddedToken(end, normalized=False) for end in self.ends)])
        make: Callable[..., Any] = PreTrainedTokenizerFast
        bos = "<s>" if "<s>" in self.marks else None
        return make(tokenizer_object=backend, bos_token=bos, eos_token=self.ends[0], chat_template=self.template)


_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 64}
FAMILIES = (
    FamilyModel(
        "llama", "Llama", LLAMA3,
        ("<s>", "<|start_header_id|>", "<|end_header_id|>"), ("<|eot_id|>", "<|end_of_text|>"),
    ),
    FamilyModel(
        "qwen3", "Qwen3", FAMILY_TEMPLATES["qwen3"], ("<|im_start|>", "<think>", "</think>"),
        ("<|im_end|>", "<|endoftext|>"), thinks=True, sizes={"head_dim": 16},
    ),
    FamilyModel(
        "gemma", "Gemma3Text", FAMILY_TEMPLATES["gemma"], ("<start_of_turn>",), ("<eos>", "<end_of_turn>"),
        sizes={"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16},
    ),
    FamilyModel(
        "phi-3", "Phi3", FAMILY_TEMPLATES["phi-3"], ("<|user|>", "<|assistant|>", "<|system|>"),
        ("<|end|>", "<|endoftext|>"), rstrip=True,
    ),
    FamilyModel(
        "gpt-oss", "GptOss", CHANNELS, ("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        ("<|return|>", "<|endoftext|>"), thinks=True, steps=150, sizes=_EXPERTS,
    ),
    FamilyModel(
        "opt", "OPT", TEMPLATES["alpaca"].jinja, ("<s>",), ("</s>", "<pad>"),
        sizes={"word_embed_proj_dim": 64, "ffn_dim": 128, "num_key_value_heads": None},
    ),
)  # fmt: skip
