"""Measures a trained model as torch serves it on a CPU against its export to GGUF: `python -m bench.exported`.

The model is the packaged one, unpacked to a folder as a training of it leaves one, and exported by the program that a
training starts. Each engine runs in its process, as a worker has it, and stays loaded; in each round each gets the
same prompts, none of which comes twice. Tokens per second of the engine's own processor time are comparable on a
machine that does other work meanwhile.
"""

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.gguf_engines import compare, prompts_of, rival
from pipelines.training.export import export
from pipelines.training.models import save_generation_config, trained_tokenizer
from services.machine.files import seal
from services.models.catalogue import ModelSource, resolve
from services.models.exported import PRECISIONS
from services.models.model_folder import MANIFEST
from services.tokens.tokenization import load_tokenizer


def as_trained(folder: Path) -> Path:
    """The packaged model with plain weights."""
    import torch
    from transformers import AutoModelForCausalLM

    packaged = resolve("smollm2-135m")
    assert packaged.gguf is not None
    model = AutoModelForCausalLM.from_pretrained(packaged.location, gguf_file=packaged.gguf.name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(packaged)
    trained_tokenizer(tokenizer).save_pretrained(folder)
    save_generation_config(folder, tokenizer, packaged)
    seal(folder, MANIFEST, {"name": packaged.name, "base": packaged.name, "metrics": {}, "data": []})
    return folder


def exported(folder: Path, precision: str) -> ModelSource:
    found, check = export(folder, precision)
    assert found.file is not None and check is not None, found.refused
    print(f"{precision}: {found.file.stat().st_size / 2**20:.0f} MiB, {check.in_words()}", flush=True)
    return replace(resolve(str(folder)), name=precision)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        source = exported(as_trained(Path(made) / "model"), arguments.precision)
        ours, other = (stack.enter_context(rival(each, source, Path(made))) for each in ("openvino", "transformers"))
        for each in (ours, other):
            each.answer(prompts_of(source, 2), 8)  # warm
        compare(ours, other, source, arguments)


if __name__ == "__main__":
    main()
