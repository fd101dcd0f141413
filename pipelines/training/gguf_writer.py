"""Writes a trained model's folder as a GGUF, one tensor at a time, so that a model need not fit into memory.

`export.py` calls it. Names, metadata and quantisation are those of the package `gguf`. The file of a Llama keeps the
rows of a head that rotate together as neighbours, where the checkpoint has them half a head apart; Qwen's stay.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.training.gguf_vocabulary import add_vocabulary
from services.errors import ConfigurationError
from services.models.catalogue import ModelSource
from services.tokens.tokenization import ChatTokenizer

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # `model_type` of the checkpoint; the file's name for it is the same
_PERMUTED = {"llama": (".q_proj.weight", ".k_proj.weight")}


def check_writable(config: Any) -> None:
    """Raises ConfigurationError for a model that engines would compute otherwise from a GGUF, or not at all."""
    if config.model_type not in ARCHITECTURES:
        *first, last = ARCHITECTURES
        raise ConfigurationError(f"its architecture is {config.model_type}; {', '.join(first)} and {last} are exported")
    scaling = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if scaling != "default":
        raise ConfigurationError(f"its positions are scaled (rope_type {scaling}), which openvino leaves out")
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        raise ConfigurationError("some of its layers attend to a sliding window, which openvino leaves out")
    for name in ("attention_bias", "mlp_bias"):
        if getattr(config, name, False):
            raise ConfigurationError(f"it has biases that openvino leaves out ({name})")


def write_gguf(path: Path, source: ModelSource, config: Any, tokenizer: ChatTokenizer, precision: str) -> None:
    """`precision`: q8_0 or f16; vectors stay in f32. Raises ConfigurationError, or OSError such as for a full disk."""
    from gguf import GGUFWriter

    writer = GGUFWriter(path, config.model_type)
    try:
        _add_metadata(writer, source, config, precision)
        add_vocabulary(writer, tokenizer, config.vocab_size)
        with _Checkpoint(Path(source.location), config) as checkpoint:
            for name, shape in checkpoint.shapes():
                _announce(writer, name, shape, _kind_of(shape, precision))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for values in checkpoint.values():
                writer.write_tensor_data(_encoded(values, _kind_of(values.shape, precision)))
    finally:
        writer.close()


def _add_metadata(writer: "GGUFWriter", source: ModelSource, config: Any, precision: str) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_name(source.name)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_file_type({"q8_0": LlamaFileType.MOSTLY_Q8_0, "f16": LlamaFileType.MOSTLY_F16}[precision])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _kind_of(shape: Any, precision: str) -> "GGMLQuantizationType":
    """How a tensor of this shape is stored."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(shape) < 2:
        return GGMLQuantizationType.F32
    wanted = GGMLQuantizationType[precision.upper()]
    return wanted if shape[-1] % GGML_QUANT_SIZES[wanted][0] == 0 else GGMLQuantizationType.F16


def _announce(writer: "GGUFWriter", name: str, shape: list[int], kind: "GGMLQuantizationType") -> None:
    import numpy as np
    from gguf import GGML_QUANT_SIZES

    values, size = GGML_QUANT_SIZES[kind]
    writer.add_tensor_info(name, shape, np.dtype(np.float32), int(np.prod(shape)) // values * size, raw_dtype=kind)


def _encoded(values: Any, kind: "GGMLQuantizationType") -> Any:
    from gguf.quants import quantize

    return quantize(values, kind)


class _Checkpoint:
    """The tensors of a folder of safetensors, under their names in a GGUF and in one order."""

    def __init__(self, folder: Path, config: Any) -> None:
        from gguf import MODEL_ARCH, get_tensor_name_map

        self._folder = folder
        self._config = config
        self._names = get_tensor_name_map(MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
        self._files = ExitStack()
        self._tensors: list[tuple[str, Any]] = []  # its own name, the open file that has it

    def __enter__(self) -> "_Checkpoint":
        from safetensors import safe_open

        for path in sorted(self._folder.glob("*.safetensors")):
            file = self._files.enter_context(safe_open(path, framework="pt"))
            self._tensors += [(name, file) for name in file.keys() if not self._is_tied(name)]  # noqa: SIM118
        return self

    def __exit__(self, *raised: object) -> None:
        self._files.close()

    def _is_tied(self, name: str) -> bool:
        return name == "lm_head.weight" and bool(self._config.tie_word_embeddings)

    def shapes(self) -> Iterator[tuple[str, list[int]]]:
        for name, file in self._tensors:
            written = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
            if written is None:
                raise ConfigurationError(f"its tensor {name} has no place in a GGUF of {self._config.model_type}")
            yield written, list(file.get_slice(name).get_shape())

    def values(self) -> Iterator[Any]:
        """Each as float32."""
        for name, file in self._tensors:
            values = file.get_tensor(name).float().numpy()
            yield _neighbours(values, self._heads(name)) if self._heads(name) else values

    def _heads(self, name: str) -> int:
        """Of a matrix whose rows change their places; 0 for others."""
        query, key = _PERMUTED.get(self._config.model_type, ("", ""))
        if query and name.endswith(query):
            return int(self._config.num_attention_heads)
        return int(self._config.num_key_value_heads) if key and name.endswith(key) else 0


def _neighbours(rows: Any, heads: int) -> Any:
    """Rows of each head, those that rotate together no longer half a head apart but neighbours."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)
