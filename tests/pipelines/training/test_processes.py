"""The training program in two processes, which share the weights with FSDP: the same training as in one."""

from pathlib import Path

import pytest

from tests.pipelines.training.runs import Material, Run, finished, start, torchrun

pytestmark = pytest.mark.timeout(600)  # each starts three or more processes that load torch


def test_two_processes_train_as_one_does(uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = finished(material, tmp_path, launcher=torchrun(2))
    assert run.events("plan")[0]["world_size"] == 2
    assert run.losses() == pytest.approx(uninterrupted[0].losses(), abs=1e-4)
    last = max(run.losses())
    assert len(list((tmp_path / "checkpoints" / f"checkpoint-{last}").rglob("*.distcp"))) == 2, "both hold a part"
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict()
    theirs = AutoModelForCausalLM.from_pretrained(uninterrupted[1] / "model").state_dict()
    for name, weight in ours.items():
        assert weight.allclose(theirs[name], atol=1e-4), name


@pytest.mark.slow
def test_sigterm_stops_two_processes_after_the_same_step_and_one_goes_on(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    first = start(material, tmp_path, launcher=torchrun(2))
    first.until(lambda event: event["event"] == "step" and event["step"] == 4)
    first.terminate()
    assert first.end() == 33, first.text
    second = finished(material, tmp_path)
    assert second.events("resumed")[0]["step"] == max(first.losses())
    assert {**first.losses(), **second.losses()} == pytest.approx(uninterrupted[0].losses(), abs=1e-4)


def test_a_run_whose_reader_is_gone_saves_too(material: Material, tmp_path: Path) -> None:
    """On a machine that is taken away all programs are told to end: ours died of its next line, and saved nothing."""
    run = start(material, tmp_path, "save_steps=1000", launcher=torchrun(1))
    run.until(lambda event: event["event"] == "step" and event["step"] == 2)
    run.leave()
    assert run.process.wait() == 33
    assert list(tmp_path.glob("checkpoints/checkpoint-*/COMPLETE.json"))


@pytest.mark.slow
def test_two_processes_train_an_adapter_that_each_of_them_holds(material: Material, tmp_path: Path) -> None:
    settings = ("method=lora", "max_steps=4", "save_steps=2", "lora_dropout=0", "learning_rate=0.1")
    alone = finished(material, tmp_path / "alone", *settings)
    together = finished(material, tmp_path / "together", *settings, launcher=torchrun(2))
    assert together.losses() == pytest.approx(alone.losses(), abs=1e-4)


@pytest.mark.slow
def test_all_processes_are_told_when_the_first_refuses(material: Material, tmp_path: Path) -> None:
    run = start(material, tmp_path, "seq_len=16", launcher=torchrun(2))
    assert run.end() == 3, run.text
    assert "no token to learn" in run.events("failed")[0]["message"]


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_stopped(
    uninterrupted: tuple[Run, Path], material: Material, tmp_path: Path
) -> None:
    first = start(material, tmp_path)
    first.until(lambda event: event["event"] == "step" and event["step"] == 4)
    first.terminate()
    assert first.end() == 33, first.text
    second = finished(material, tmp_path, launcher=torchrun(2))
    assert second.events("resumed")[0]["step"] == max(first.losses())
    assert {**first.losses(), **second.losses()} == pytest.approx(uninterrupted[0].losses(), abs=1e-4)
