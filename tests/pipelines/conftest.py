"""One tiny model for all tests of the training program: two layers, random weights, the packaged model's tokenizer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from tests.pipelines.training.runs import ForkedProgram, Material, Run, finished, write_base

CONFIG = """\
name: tiny
model: {base}
seq_len: 128
tokens_per_step: 256
per_device_tokens: 128
epochs: 1
learning_rate: 0.01
save_steps: 3
gradient_checkpointing: false
"""


@pytest.fixture(autouse=True)
def no_training_outlives_its_test() -> Iterator[None]:
    yield
    ForkedProgram.kill_all()


@pytest.fixture(scope="session")
def tokenizer() -> ChatTokenizer:
    return load_tokenizer(resolve("smollm2-135m"))


@pytest.fixture(scope="session")
def material(tokenizer: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("material")
    write_base(folder / "base", tokenizer)
    write_conversations(folder / "data.jsonl", 40)
    (folder / "config.yaml").write_text(CONFIG.format(base=folder / "base"))
    return Material(folder / "base", folder / "data.jsonl", folder / "config.yaml")


@pytest.fixture(scope="session")
def uninterrupted(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """One process that nothing disturbs, and its folder."""
    out = tmp_path_factory.mktemp("uninterrupted")
    return finished(material, out), out


def write_conversations(path: Path, num: int) -> None:
    with path.open("w") as file:
        for index in range(num):
            answer = f"{index} plus {index} is {2 * index}." + " Indeed." * (index % 5)
            turns = [("user", f"What is {index} plus {index}?"), ("assistant", answer)]
            messages = [{"role": role, "content": content} for role, content in turns]
            file.write(json.dumps({"id": f"c{index}", "messages": messages}) + "\n")
