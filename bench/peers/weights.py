"""The packaged weights for those who do not read them as they are: `python -m bench.peers.weights folder GGUF OUT`.

`__main__.py` runs it once in a process of its own, which gives back its memory. `folder` writes a checkpoint's folder,
the weights unpacked to the number type that is asked for, with the tokenizer and the chat template that the GGUF names.
`q8_0` and `q4_0` quantise the same weights again, since llama.cpp has no batched kernel for Q4_1.
"""

import argparse
import json
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from services.machine.files import write
from services.tokens.gguf_tokenizer import read_gguf_tokenizer

COMPLETE = "COMPLETE"  # written last
_OF_THE_WRITER = ("GGUF.", "general.architecture", "general.quantization_version", "general.file_type")
KINDS = {"q8_0": GGMLQuantizationType.Q8_0, "q4_0": GGMLQuantizationType.Q4_0}


def write_folder(file: Path, folder: Path, dtype: str) -> None:
    """A folder that every `transformers` loads, also an old one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=getattr(torch, dtype))
    model.config.quantization_config = None  # else the model refuses to be saved
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer, ends = read_gguf_tokenizer(file)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | tokenizer.special_tokens_map, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False, "eos_token_id": sorted(ends)}))
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = dtype
    config |= {"rope_theta": config["rope_parameters"]["rope_theta"]}  # where transformers 4 looks for it
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write(folder / COMPLETE, b"")


def write_quantized(file: Path, target: Path, kind: GGMLQuantizationType) -> None:
    """The same model with each quantised tensor as `kind`."""
    reader = GGUFReader(file)
    draft = target.with_suffix(".draft")
    writer = GGUFWriter(draft, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(_OF_THE_WRITER):
            kinds = [*field.types, None]
            writer.add_key_value(name, field.contents(), kinds[0], kinds[1])
    for tensor in reader.tensors:
        if tensor.tensor_type in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            writer.add_tensor(tensor.name, tensor.data)
        else:
            writer.add_tensor(tensor.name, quantize(dequantize(tensor.data, tensor.tensor_type), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["folder", *KINDS])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of a folder")
    given = parser.parse_args()
    if given.what == "folder":
        write_folder(given.gguf, given.out, given.dtype)
    else:
        write_quantized(given.gguf, given.out, KINDS[given.what])


if __name__ == "__main__":
    main()
