"""A random model in a GGUF of an architecture that OpenVINO does not read. It loads at once and talks nonsense."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from tokenizers import pre_tokenizers

CONTEXT, VOCABULARY = 128, 320
_HIDDEN, _FEED_FORWARD, _HEADS, _LAYERS = 64, 128, 4, 2


def build(path: Path, architecture: str = "phi3") -> Path:
    """Two layers over bytes; weights large enough that greedy answers vary."""
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(_HIDDEN)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_block_count(_LAYERS)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_HIDDEN // _HEADS)
    _add_vocabulary(writer)
    for name, values in _tensors().items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_vocabulary(writer: GGUFWriter) -> None:
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    special = [f"<|{n}|>" for n in range(VOCABULARY - len(alphabet))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*alphabet, *special])
    writer.add_token_types([TokenType.NORMAL] * len(alphabet) + [TokenType.CONTROL] * len(special))
    writer.add_token_merges(["a b"])  # llama.cpp wants one
    writer.add_eos_token_id(len(alphabet))
    writer.add_bos_token_id(len(alphabet) + 1)
    writer.add_pad_token_id(len(alphabet) + 2)
    writer.add_chat_template("{% for m in messages %}{{ m.role }}: {{ m.content }}<|0|>{% endfor %}assistant: ")


def _tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.5, shape).astype(np.float32)

    ones = np.ones(_HIDDEN, dtype=np.float32)
    tensors = {"token_embd": weights(VOCABULARY, _HIDDEN), "output_norm": ones, "output": weights(VOCABULARY, _HIDDEN)}
    for layer in range(_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm": ones,
            f"blk.{layer}.attn_qkv": weights(3 * _HIDDEN, _HIDDEN),
            f"blk.{layer}.attn_output": weights(_HIDDEN, _HIDDEN),
            f"blk.{layer}.ffn_norm": ones,
            f"blk.{layer}.ffn_up": weights(2 * _FEED_FORWARD, _HIDDEN),
            f"blk.{layer}.ffn_down": weights(_HIDDEN, _FEED_FORWARD),
        }
    return tensors
