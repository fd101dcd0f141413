"""The training program in one process: what it says, what it leaves, how it ends, and how it goes on."""

import json
import queue
import shutil
import signal
import time
from pathlib import Path

import pytest

from pipelines.training.checkpoints import MARKER
from pipelines.training.manifest import finished_manifest
from services.machine.files import fault_of
from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.wire.messages import Message
from tests.pipelines.training.runs import Material, Run, finished, start
from workers.engine import EngineEvent, EngineOptions, Sampling
from workers.transformers_engine import TransformersEngine

pytestmark = pytest.mark.timeout(600)  # each starts processes that load torch
TALK = [Message("user", "What is 3 plus 3? <|im_end|>"), Message("assistant", "3 plus 3 is 6.")]


def test_a_run_tells_its_plan_its_steps_and_its_model(uninterrupted: tuple[Run, Path]) -> None:
    run, out = uninterrupted
    (plan,) = run.events("plan")
    assert plan["examples"] == 40
    assert plan["sequences_per_step"] == plan["per_device"] * plan["accumulation"] == 2
    assert plan["attention"] == "sdpa"
    steps = run.events("step")
    assert [event["step"] for event in steps] == list(range(1, plan["steps"] + 1))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert all(event["tokens_per_s"] > 0 for event in steps)
    (end,) = run.events("finished")
    assert end["model"] == str(out / "model")


def test_what_is_learnt_is_printed_with_its_end_of_turn(uninterrupted: tuple[Run, Path]) -> None:
    assert "'0 plus 0 is 0.<|im_end|>'" in uninterrupted[0].text


def test_the_model_renders_the_ids_it_was_trained_on(uninterrupted: tuple[Run, Path], tokenizer: ChatTokenizer) -> None:
    saved = load_tokenizer(resolve(str(uninterrupted[1] / "model")))
    assert saved.supervised(TALK) == tokenizer.supervised(TALK)
    assert saved.render(TALK[:1]) == tokenizer.render(TALK[:1])
    assert saved.stop_token_ids == tokenizer.stop_token_ids


def test_the_model_answers_in_the_engine_that_serves(uninterrupted: tuple[Run, Path], tokenizer: ChatTokenizer) -> None:
    engine = TransformersEngine(
        resolve(str(uninterrupted[1] / "model")), EngineOptions(slots=1, context_tokens=256, cache_gib=0.1)
    )
    heard: queue.Queue[EngineEvent] = queue.Queue()
    engine.start()
    try:
        sampling = Sampling(max_new_tokens=4, temperature=0.0, stop_token_ids=tokenizer.stop_token_ids)
        engine.submit("r", tokenizer.render(TALK[:1]), sampling, heard.put)
        while (event := heard.get(timeout=60)).outcome is None:
            pass
    finally:
        engine.stop()
    assert event.outcome == "finished"


def test_the_model_stops_at_every_end_of_turn(uninterrupted: tuple[Run, Path], tokenizer: ChatTokenizer) -> None:
    generation = json.loads((uninterrupted[1] / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == list(tokenizer.stop_token_ids)


def test_the_manifest_lists_every_file_and_says_where_the_model_came_from(
    uninterrupted: tuple[Run, Path], material: Material
) -> None:
    folder = uninterrupted[1] / "model"
    manifest = finished_manifest(folder)
    assert manifest is not None
    assert fault_of(folder, "manifest.json") == ""
    assert {"model.safetensors", "tokenizer.json", "config.json", "generation_config.json"} <= set(manifest["files"])
    assert manifest["base"] == str(material.base)
    assert manifest["data"][0]["path"] == str(material.data)
    assert len(manifest["data"][0]["sha256"]) == 64
    assert manifest["config"]["learning_rate"] == 0.01
    assert manifest["libraries"]["trl"]


def test_a_finished_run_is_not_run_again(uninterrupted: tuple[Run, Path], material: Material) -> None:
    again = finished(material, uninterrupted[1])
    assert again.events("finished") == uninterrupted[0].events("finished")
    assert not again.events("step")


def test_changed_data_under_the_same_name_is_no_finished_run(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    """The manifest said that the model was trained on what the file held by then."""
    changed = tmp_path / "data.jsonl"
    changed.write_text(material.data.read_text().replace("plus", "and"))
    run = start(Material(material.base, changed, material.config), uninterrupted[1])
    assert run.end() == 2, run.text
    assert "is the model of another training: the content of data file 1 has changed" in run.text
    run = start(material, uninterrupted[1], "learning_rate=0.02")
    assert run.end() == 2, run.text
    assert "learning_rate was 0.01 and is 0.02" in run.text


def test_the_manifest_says_what_was_proved_of_the_saved_model(uninterrupted: tuple[Run, Path]) -> None:
    manifest = finished_manifest(uninterrupted[1] / "model")
    assert manifest is not None
    assert manifest["proof"]["saved_loss"] == pytest.approx(manifest["proof"]["trained_loss"], abs=1e-4)
    assert manifest["packing"] == {"on": True, "reason": "the model keeps packed conversations apart"}
    assert manifest["counts"]["examples"] == 40


def test_a_model_that_sees_across_is_trained_without_packing_and_says_so(
    tokenizer: ChatTokenizer, material: Material, tmp_path: Path
) -> None:
    base = tmp_path / "opt"
    write_opt(base, tokenizer)
    run = finished(material, tmp_path / "out", f"model={base}", "max_steps=2")
    assert "Packing: off (this model would let packed conversations see each other)" in run.text
    assert run.events("plan")[0]["packing"] is False
    manifest = finished_manifest(tmp_path / "out" / "model")
    assert manifest is not None
    assert manifest["packing"]["on"] is False
    refused = start(material, tmp_path / "asked", f"model={base}", "packing=true")
    assert refused.end() == 2, refused.text
    assert "packing=true: this model would let packed conversations see each other" in refused.text


def write_opt(folder: Path, tokenizer: ChatTokenizer) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    from pipelines.training.models import trained_tokenizer

    config = OPTConfig(
        vocab_size=tokenizer.decoder().get_vocab_size(),
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
    )
    OPTForCausalLM(config).save_pretrained(folder)
    trained_tokenizer(tokenizer).save_pretrained(folder)


def test_a_run_that_ended_before_its_model_was_whole_only_writes_it(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model" / "manifest.json").unlink()
    again = finished(material, tmp_path)
    assert not again.events("step")
    weights = [folder / "model" / "model.safetensors" for folder in (tmp_path, uninterrupted[1])]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_sigterm_saves_and_the_next_start_goes_on_as_if_nothing_had_been(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    first = start(material, tmp_path)
    first.until(lambda event: event["event"] == "step" and event["step"] == 4)
    first.terminate()
    assert first.end() == 33, first.text
    stopped_at = max(first.losses())
    assert stopped_at < max(uninterrupted[0].losses())
    second = finished(material, tmp_path)
    assert second.events("resumed") == [{"event": "resumed", "step": stopped_at}]
    assert {**first.losses(), **second.losses()} == pytest.approx(uninterrupted[0].losses(), abs=1e-5)


def test_a_checkpoint_that_a_kill_cut_short_is_named_and_never_loaded(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    first = killed_while_saving(material, tmp_path)
    second = finished(material, tmp_path, "save_steps=1")
    assert "is not used and removed: it has no COMPLETE.json" in second.text
    resumed = second.events("resumed")
    begun_at = resumed[0]["step"] if resumed else 0
    assert min(second.losses()) == begun_at + 1
    assert {**first.losses(), **second.losses()} == pytest.approx(uninterrupted[0].losses(), abs=1e-5)


def killed_while_saving(material: Material, out: Path) -> Run:
    """A run that SIGKILL ended while a checkpoint was half-written, not the first: begun anew until that is hit."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        run = start(material, out, "save_steps=1")
        run.until(lambda event: event["event"] == "checkpoint")
        while run.process.poll() is None and not half_written(out):
            pass
        run.process.send_signal(signal.SIGKILL)
        run.end()
        if half_written(out):
            return run
        shutil.rmtree(out)
    raise AssertionError("no save was hit")


def half_written(out: Path) -> list[Path]:
    folders = (out / "checkpoints").glob("checkpoint-*")
    return [path for path in folders if any(path.rglob("*.distcp")) and not (path / MARKER).exists()]


def test_a_loss_that_is_no_number_aborts_before_anything_is_saved(
    material: Material, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(material.base)
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    shutil.copytree(material.base, tmp_path / "broken")
    model.save_pretrained(tmp_path / "broken")
    run = start(material, tmp_path / "out", f"model={tmp_path / 'broken'}", "save_steps=1")
    assert run.end() == 3, run.text
    assert "the loss of step 1 is nan" in run.events("failed")[0]["message"]
    assert not list((tmp_path / "out").rglob(MARKER))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("method=qlora",), "needs a CUDA GPU"),
        (("attention=flash",), "flash attention needs a GPU"),
        (("wandb=true",), "pip install wandb"),
        (("model=/nowhere",), "is not a file, a folder or a hub id"),
        (("seq_len=1024", "tokens_per_step=1024"), "seq_len=1024 is more than the 512 positions"),
        (("method=lora", "lora_targets=q_proj,v_prj"), "'v_prj' is no layer of the model"),
        (("method=lora", "lora_targets=embed_tokens"), "embeddings and of its output at once"),
    ],
)
def test_what_cannot_work_here_is_refused_with_the_remedy(
    material: Material, tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    run = start(material, tmp_path, *settings)
    assert run.end() == 2, run.text
    (failed,) = run.events("failed")
    assert failed["code"] == 2
    assert told in failed["message"]
