from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from services.errors import ConfigurationError
from services.models.gguf_metadata import read_gguf_metadata, tensor_starts


def test_every_kind_of_value_is_read_as_the_gguf_package_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("a.whole", 2**32 - 1)
    writer.add_int64("a.negative", -5)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_string("a.text", "héllo")
    writer.add_array("a.words", ["x", "yy", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("t", np.zeros((2, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = read_gguf_metadata(path)
    assert data["general.architecture"] == "llama"
    assert (data["a.whole"], data["a.negative"], data["a.float"], data["a.flag"]) == (2**32 - 1, -5, 0.5, True)
    assert (data["a.text"], data["a.words"], data["a.numbers"]) == ("héllo", ["x", "yy", ""], [1, 2, 3])


@pytest.mark.parametrize("content", [b"", b"GGUF", b"NOPE" + b"\0" * 40, b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"bad.gguf is not a readable GGUF .*download it again"):
        read_gguf_metadata(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.gguf"):
        read_gguf_metadata(tmp_path / "none.gguf")


def test_where_tensors_begin_is_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    for number, shape in enumerate(((3,), (5, 7), (2, 3, 4))):
        writer.add_tensor(f"t{number}", np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert tensor_starts(path) == [tensor.data_offset for tensor in GGUFReader(path).tensors]
