"""A Llama of two layers with random weights and a tokenizer of 64 words, for the findings about training."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["[pad]", "[end]", "[unk]", "user", "assistant", *(f"w{number}" for number in range(59))]


def make_model() -> LlamaForCausalLM:
    """The same weights at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def make_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[unk]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[pad]", eos_token="[end]", unk_token="[unk]")


def token_rows(lengths: list[int]) -> Dataset:
    """One row of so many tokens each; every token is learnt."""
    rows = [[5 + (row + place) % 59 for place in range(length)] for row, length in enumerate(lengths)]
    return Dataset.from_list([{"input_ids": row, "attention_mask": [1] * len(row), "labels": row} for row in rows])


def preference_rows(prompt_lengths: list[int]) -> Dataset:
    """Prompts of so many words, each with a better and a worse answer of two words."""
    rows = []
    for row, length in enumerate(prompt_lengths):
        prompt = " ".join(f"w{(row + place) % 59}" for place in range(length))
        rows.append({"prompt": prompt, "chosen": " w1 w2", "rejected": " w3 w4"})
    return Dataset.from_list(rows)
