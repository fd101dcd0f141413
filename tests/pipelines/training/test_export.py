"""A trained model is written as GGUF, compared with torch in the engine that serves it, and served only if equal."""

import shutil
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.training import export_check, gguf_writer
from pipelines.training.export import TOLD_EXIT, export, main, tidy
from pipelines.training.held_texts import HELD
from services.machine.files import fault_of, read_marker
from services.models.catalogue import resolve
from services.places import ROOT
from services.tokens.gguf_tokenizer import read_gguf_tokenizer
from services.tokens.tokenization import load_tokenizer
from tests.end_to_end import tiny_model
from tests.end_to_end.family_models import FAMILIES
from tests.end_to_end.system import wait_until
from tests.faults.disk import SmallDisk
from workers import select_engine
from workers.select_engine import choose_engine

pytest.importorskip("openvino_genai")
pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_gpu")]  # torch alone takes seconds

TEXT = "\n".join(text for pair in HELD for text in pair)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_engine, "_cuda_available", lambda: False)


def trained(folder: Path, family: str, **sizes: object) -> Path:
    """A tiny model as a training leaves it, with weights so large that all parts of it count."""
    of_family = "qwen3" if family == "qwen2" else family
    (model,) = (each for each in FAMILIES if each.name == of_family)
    if family == "qwen2":
        model = replace(model, kind="Qwen2", sizes={})
    weights = {} if family == "opt" else {"initializer_range": 0.1}
    model = replace(model, sizes={**model.sizes, **sizes, **weights})
    model.build(folder, TEXT)
    tiny_model.seal(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied."""
    return trained(tmp_path_factory.mktemp("llama") / "model", "llama")


@pytest.fixture
def own_llama(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.mark.parametrize(
    ("family", "precision", "sizes"),
    [
        ("llama", "q8_0", {}),
        ("llama", "f16", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        ("llama", "q8_0", {"head_dim": 32}),
        ("qwen2", "q8_0", {}),
        ("qwen3", "f16", {}),
        ("qwen3", "q8_0", {"head_dim": 32, "tie_word_embeddings": True}),
    ],
)
def test_what_is_exported_answers_as_torch_does(
    tmp_path: Path, family: str, precision: str, sizes: dict[str, object]
) -> None:
    folder = trained(tmp_path / "model", family, **sizes)
    found, check = export(folder, precision)
    assert check is not None and found.refused == "", found
    assert check.tokens > 1000 and check.answered == 128
    assert abs(check.worse) <= 0.01 and check.gap <= export_check.NEAR_TIE


def test_the_tokenizer_of_the_gguf_is_the_models(own_llama: Path) -> None:
    found, _ = export(own_llama, "f16")
    assert found.file is not None
    own, written = load_tokenizer(resolve(str(own_llama))), load_tokenizer(resolve(str(found.file)))
    assert written.chat_template == own.chat_template
    assert written.stop_token_ids == own.stop_token_ids
    for text in (TEXT, "<|eot_id|> typed", "12345  \n\t\nÄ 🙂"):
        ids = own.decoder().encode(text).ids
        assert written.decoder().encode(text).ids == ids
    assert read_gguf_tokenizer(found.file)[0].special_tokens_map["eos_token"] == "<|eot_id|>"


def test_a_llama_whose_heads_were_not_permuted_is_not_served(own_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GGUF keeps the rows that rotate together as neighbours: without that each answer is another one."""
    monkeypatch.setattr(gguf_writer, "_neighbours", lambda rows, heads: rows)
    found, check = export(own_llama, "f16")
    assert check is not None and abs(check.worse) > 0.01
    assert found.file is None and "its perplexity on held texts is" in found.refused
    assert [path.name for path in (own_llama / "gguf").iterdir()] == ["manifest.json"]
    name, reason = choose_engine(resolve(str(own_llama)))
    assert name == "transformers" and found.refused in reason


def test_the_numbers_of_the_check_stand_in_the_manifest(own_llama: Path) -> None:
    found, check = export(own_llama, "q8_0")
    assert check is not None and found.file is not None
    about = read_marker(own_llama / "gguf" / "manifest.json")
    assert about["check"]["perplexity"] == check.perplexity and about["check"]["equal"] == check.equal
    assert (about["precision"], about["refused"]) == ("q8_0", "")
    assert fault_of(own_llama / "gguf", "manifest.json") == ""
    assert fault_of(own_llama, "manifest.json") == ""


@pytest.mark.parametrize(
    ("family", "sizes", "why"),
    [
        ("opt", {}, "its architecture is opt; llama, qwen2 and qwen3 are exported"),
        ("llama", {"attention_bias": True}, "biases"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 10_000.0,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "positions are scaled (rope_type llama3)",
        ),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}, "sliding window"),
    ],
)
def test_what_a_gguf_cannot_hold_is_served_by_torch_and_the_reason_is_told(
    tmp_path: Path, family: str, sizes: dict[str, object], why: str
) -> None:
    folder = trained(tmp_path / "model", family, **sizes)
    found, check = export(folder, "q8_0")
    assert check is None and found.file is None and why in found.refused
    name, reason = choose_engine(resolve(str(folder)))
    assert name == "transformers" and why in reason


def started(folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pipelines.training.export", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_killed_export_leaves_nothing_that_is_served_and_can_be_repeated(own_llama: Path) -> None:
    process = started(own_llama)
    wait_until(lambda: list(own_llama.glob(".gguf-*/*.gguf")), "the first bytes of the GGUF", 120)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    source = resolve(str(own_llama))
    assert source.exported is None and choose_engine(source)[0] == "transformers"
    again = started(own_llama)
    told, _ = again.communicate()
    assert again.returncode == 0 and "greedy tokens before the first other one" in told
    assert not list(own_llama.glob(".gguf-*"))
    assert choose_engine(resolve(str(own_llama)))[0] == "openvino"


def gguf_of(folder: Path) -> bytes:
    weights = resolve(str(folder)).gguf_weights
    return weights.read_bytes() if weights else b""


def test_what_was_exported_is_served_until_another_takes_its_place(
    own_llama: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A worker that serves it starts its engine again from the same file."""
    export(own_llama, "q8_0")
    before = gguf_of(own_llama)

    process = started(own_llama)
    wait_until(lambda: list(own_llama.glob(".gguf-*/*.gguf")), "the first bytes of the GGUF", 120)
    assert gguf_of(own_llama) == before
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert gguf_of(own_llama) == before

    with monkeypatch.context() as patch:
        patch.setattr(gguf_writer, "_neighbours", lambda rows, heads: rows)
        patch.setattr(sys, "argv", ["export", str(own_llama), "--precision", "f16"])
        assert main() == TOLD_EXIT
    assert "Not exported, so the GGUF from before (q8_0) is served: its perplexity" in capfd.readouterr().out
    assert gguf_of(own_llama) == before and not list(own_llama.glob(".gguf-*"))

    found, _ = export(own_llama, "f16")
    assert resolve(str(own_llama)).gguf_weights == found.file and found.precision == "f16"
    assert [path.suffix for path in (own_llama / "gguf").iterdir()].count(".gguf") == 1


def test_what_was_laid_aside_by_an_export_that_was_killed_comes_back(own_llama: Path) -> None:
    export(own_llama, "q8_0")
    before = gguf_of(own_llama)
    (own_llama / "gguf").rename(own_llama / ".gguf-before")
    tidy(own_llama)
    assert gguf_of(own_llama) == before


@pytest.mark.slow
def test_two_exports_of_one_model_do_not_meet(own_llama: Path) -> None:
    process = started(own_llama)
    wait_until(lambda: list(own_llama.glob(".gguf-*/*.gguf")), "the first bytes of the GGUF", 120)
    other = started(own_llama)
    told, _ = other.communicate()
    assert other.returncode == 3 and "another process exports" in told
    process.communicate()
    assert process.returncode == 0 and resolve(str(own_llama)).gguf_weights is not None


def test_a_full_disk_leaves_the_model_as_it_was(llama: Path, tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", num_bytes=4 << 20) as disk:
        folder = Path(shutil.copytree(llama, disk.folder / "model"))
        disk.fill()
        process = started(folder)
        told, _ = process.communicate()
        assert process.returncode == 3, told
        assert "No GGUF, so torch serves it on a CPU too: " in told and "make room and export it again" in told
        assert "Traceback" not in told
        assert not list(folder.glob("*gguf*")) and fault_of(folder, "manifest.json") == ""
        disk.free()
        assert started(folder).wait() == 0


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12}
    folder = trained(tmp_path / "model", "llama", **sizes)
    source = resolve(str(folder))
    tokenizer, config = load_tokenizer(source), gguf_config(folder)
    path = tmp_path / "model.gguf"
    gguf_writer.write_gguf(path, source, config, tokenizer, "f16")  # what is imported and cached is there now
    tracemalloc.start()
    gguf_writer.write_gguf(path, source, config, tokenizer, "f16")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def gguf_config(folder: Path) -> object:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)
