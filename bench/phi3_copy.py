"""Writes a Llama GGUF down as one of architecture phi3: the same model, under a name that OpenVINO does not read.

`bench.gguf_engines` calls it. Phi-3 keeps query, key and value in one matrix, gate and up in another, and rotates
halves where a Llama's GGUF rotates neighbours. Rows are moved whole, then quantised as is asked.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, ReaderTensor
from gguf.quants import dequantize, quantize

_OF_THE_WRITER = ("GGUF.", "general.architecture", "general.quantization_version")
_JOINED = ("attn_k", "attn_v", "ffn_gate")  # into the matrix of another


def write_phi3(llama: Path, target: Path, kind: GGMLQuantizationType) -> Path:
    reader, writer = GGUFReader(llama), GGUFWriter(target, "phi3")
    for name, field in reader.fields.items():
        if not name.startswith(_OF_THE_WRITER):
            kinds = [*field.types, None]
            writer.add_key_value(name.replace("llama.", "phi3.", 1), field.contents(), kinds[0], kinds[1])
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    heads = [int(reader.fields[f"llama.attention.head_count{kind}"].contents()) for kind in ("", "_kv")]
    for tensor in tensors.values():
        if not any(joined in tensor.name for joined in _JOINED):
            name, rows = _written(tensor, tensors, *heads)
            if tensor.tensor_type == GGMLQuantizationType.F32:
                writer.add_tensor(name, rows)
            else:
                writer.add_tensor(name, quantize(dequantize(rows, tensor.tensor_type), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _written(tensor: ReaderTensor, tensors: dict[str, ReaderTensor], heads: int, kv_heads: int) -> tuple[str, Any]:
    """The name and the rows of a tensor of Phi-3's."""
    name = tensor.name
    if "attn_q" in name:
        key, value = (tensors[name.replace("attn_q", other)].data for other in ("attn_k", "attn_v"))
        rows = [_halves(tensor.data, heads), _halves(key, kv_heads), value]
        return name.replace("attn_q", "attn_qkv"), np.concatenate(rows)
    if "ffn_up" in name:
        return name, np.concatenate([tensors[name.replace("ffn_up", "ffn_gate")].data, tensor.data])
    return name, tensor.data


def _halves(rows: Any, heads: int) -> Any:
    """Rows of each head, those that rotate together no longer neighbours but half a head apart."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
