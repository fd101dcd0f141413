"""Evaluation: its loss, which checkpoint is the best, and when a training ends early."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.manifest import finished_manifest
from pipelines.training.reporting import Reporter
from services.tokens.tokenization import ChatTokenizer
from tests.pipelines.training.runs import Material, finished
from tests.pipelines.training.test_data import loss_of, prepared, rows_of


def evaluated(rows: list[dict[str, Any]], material: Material, out: Path, batch: int) -> float:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig

    from pipelines.training.trainer import Trainer

    data = Dataset.from_list(rows)
    arguments = SFTConfig(
        output_dir=str(out),
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        prediction_loss_only=True,
        per_device_eval_batch_size=batch,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = Trainer(
        checkpoints=Checkpoints(out, 1, Reporter(rank=1)),
        adapter_only=False,
        args=arguments,
        model=AutoModelForCausalLM.from_pretrained(material.base),
        processing_class=AutoTokenizer.from_pretrained(material.base),
        train_dataset=data,
        eval_dataset=data,
    )
    return float(trainer.evaluate()["eval_loss"])


@pytest.mark.timeout(600)  # loads torch and makes four trainers
def test_the_loss_of_an_evaluation_is_per_learnt_token_whatever_the_batch(
    tmp_path: Path, tokenizer: ChatTokenizer, material: Material
) -> None:
    """The library takes the mean of the batches' means: 7.67, 8.04, 8.19, 8.18 for 1, 2, 4 and 8 of the same data."""
    from transformers import AutoModelForCausalLM
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = rows_of(prepared(tmp_path / "data", tokenizer, material.data, packing=False))
    found = [evaluated(rows, material, tmp_path / str(batch), batch) for batch in (1, 2, 4, 8)]
    model = AutoModelForCausalLM.from_pretrained(material.base).eval()
    wanted = loss_of(model, [DataCollatorForLanguageModeling(pad_token_id=0)(rows)])
    assert found == pytest.approx([wanted] * 4, abs=1e-4)


@pytest.mark.timeout(600)  # starts a process that loads torch
def test_a_training_ends_when_its_loss_falls_no_more_and_saves_its_best_model(
    material: Material, tmp_path: Path
) -> None:
    settings = ("eval_fraction=0.3", "eval_steps=1", "early_stopping=2", "epochs=40", "learning_rate=0.3")
    run = finished(material, tmp_path, *settings)
    evaluations = {event["step"]: event["loss"] for event in run.events("eval")}
    best = min(evaluations, key=lambda step: evaluations[step])
    last = max(evaluations)
    assert last == best + 2 < run.events("plan")[0]["steps"]
    manifest = finished_manifest(tmp_path / "model")
    assert manifest is not None
    assert manifest["metrics"]["best_step"] == best
    assert manifest["metrics"]["eval_loss"] == pytest.approx(evaluations[best])
