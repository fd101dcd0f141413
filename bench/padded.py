"""Training as the forerunner does it, as a program of its own: each conversation padded to the maximal length.

    python -m bench.padded --config FILE --data FILE --out DIR

Transformers' plain Trainer on the data, model, arithmetic and batch of `python -m pipelines.training`, whose `step`
lines it prints; what differs is that a sequence holds one conversation and padding. Saves nothing.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipelines.training.data import read_samples
from pipelines.training.models import choose_arithmetic, load_model
from pipelines.training.samples import IGNORED
from services.jobs.training import TrainingConfig, event_line, plan_batch, read_training
from services.models.catalogue import resolve
from services.tokens.tokenization import load_tokenizer


def padded_rows(config: TrainingConfig, data: Path) -> list[dict[str, torch.Tensor]]:
    """One row of `seq_len` tokens for each conversation."""
    tokenizer = load_tokenizer(resolve(config.model), template=config.template)
    rows = []
    for sample in read_samples([data], tokenizer, config):
        ids = torch.from_numpy(sample.ids).long()
        rows.append(
            {
                "input_ids": _padded(ids, tokenizer.stop_token_ids[0], config.seq_len),
                "labels": _padded(torch.from_numpy(sample.labels).long(), IGNORED, config.seq_len),
                "attention_mask": _padded(torch.ones_like(ids), 0, config.seq_len),
            }
        )
    return rows


def _padded(values: torch.Tensor, value: int, length: int) -> torch.Tensor:
    return torch.nn.functional.pad(values, (0, length - len(values)), value=value)


class Meter(TrainerCallback):
    """Prints what is no padding per second of each step. The collator counts it."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self._since = 0.0

    def collate(self, rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        self.num_tokens += int(batch["attention_mask"].sum())
        return batch

    def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._since = self._since or time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        now = time.monotonic()
        rate = self.num_tokens / (now - self._since)
        print(event_line("step", step=state.global_step, of=state.max_steps, tokens_per_s=rate), flush=True)
        self.num_tokens, self._since = 0, now


def arguments(config: TrainingConfig, out: Path, *, bf16: bool, cpu: bool) -> TrainingArguments:
    batch = plan_batch(config, 1)
    return TrainingArguments(
        output_dir=str(out),
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=batch.per_device,
        gradient_accumulation_steps=batch.accumulation,
        max_steps=config.max_steps or -1,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        optim="adamw_torch",
        seed=config.seed,
        bf16=bf16,
        use_cpu=cpu,
        gradient_checkpointing=config.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        dataloader_pin_memory=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser("python -m bench.padded", description="Training with padding.")
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    given = parser.parse_args()
    config = read_training(given.config)
    arithmetic = choose_arithmetic(config)
    meter = Meter()
    trainer = Trainer(
        model=load_model(resolve(config.model), config, arithmetic),
        args=arguments(config, given.out, bf16=arithmetic.dtype == "bfloat16", cpu=not arithmetic.cuda),
        train_dataset=padded_rows(config, given.data),
        data_collator=meter.collate,
        callbacks=[meter],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()
