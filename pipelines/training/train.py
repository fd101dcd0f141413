"""One fine-tuning from its configuration to its model, as `python -m pipelines.training` runs it in every process.

out/checkpoints/checkpoint-N/   whole once COMPLETE.json is there
out/adapter/, out/model/        whole once manifest.json is there; `save` says which of them are written
"""

import gc
import importlib.util
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.data import Prepared
from pipelines.training.exporting import export_result
from pipelines.training.fitting import Limits, check_fits, limits_of
from pipelines.training.identity import Identity, base_digest, digests_of
from pipelines.training.manifest import finished_manifest, write_manifest
from pipelines.training.models import (
    Arithmetic,
    adapter_of,
    check_saved,
    choose_arithmetic,
    load_model,
    loss_on,
    rows_to_prove,
    save_adapter,
    save_generation_config,
    save_model,
    trained_tokenizer,
)
from pipelines.training.objectives import DataSource, Objective, describe, objective_of
from pipelines.training.packing import sees_across
from pipelines.training.prepared_cache import PreparedCache, key_of
from pipelines.training.reporting import Reporter, Stopped
from services.errors import ConfigurationError
from services.jobs.training import Batch, TrainingConfig, plan_batch
from services.models import base_weights
from services.models.catalogue import ModelSource, resolve
from services.models.model_folder import ADAPTER, MANIFEST
from services.tokens.tokenization import ChatTokenizer, load_tokenizer

_MOST_STEP_EVENTS = 2000
_Answer = TypeVar("_Answer")
CACHED_BYTES = 4 * 1_048_576  # of data: from here on tokenizing again costs more than keeping
_TIMEOUT = timedelta(hours=2)  # that processes wait for the one that reads the data


class Training:
    """One process's view of the run."""

    def __init__(self, config: TrainingConfig, data: Mapping[str, str], out: Path, report: Reporter) -> None:
        """`data`: the sha256 of each file. Raises ConfigurationError for what cannot work here."""
        self._config = config
        self._data = data
        self._out = out
        self._report = report
        self._source: ModelSource = resolve(config.model)
        if config.wandb and importlib.util.find_spec("wandb") is None:
            raise ConfigurationError("wandb=true needs the package wandb; run: pip install wandb")
        self._arithmetic: Arithmetic = choose_arithmetic(config)
        self._limits: Limits = limits_of(self._source)
        check_fits(self._limits, config)
        self._tokenizer: ChatTokenizer = load_tokenizer(self._source, template=config.template)
        self._processes = Processes(self._arithmetic.cuda)
        self._model: Any = None
        self._objective: Objective = objective_of(config)
        self._packing_reason = self._objective.unpacked or "not asked for"
        if self._objective.unpacked:
            self._config = config.model_copy(update={"packing": False})
        elif config.packing:
            self._decide_packing()
        identity = Identity.of(config, list(data.values()), base_digest(self._source))
        self._identity = identity.packed(bool(self._config.packing))
        self._batch: Batch = plan_batch(self._unflattened(), self._processes.num)

    def run(self) -> None:
        """Raises Stopped when SIGTERM came, Aborted when going on would do harm."""
        from pipelines.training.trainer import StopSignal

        stop = StopSignal()
        scratch = tempfile.mkdtemp(prefix="chatserver-train-") if self._processes.first_here else ""
        try:
            prepared = self._processes.from_first_here(lambda: self._prepare(Path(scratch)))
            self._tell_plan(prepared)
            self._train(prepared, stop)
            self._export(stop)
        finally:
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)

    def _decide_packing(self) -> None:
        """Ask the model whether it keeps packed conversations apart. Raises ConfigurationError if it must and cannot.

        A single process goes on with the model that was asked; several load theirs anew, each its part.
        """
        across = self._processes.from_first(self._sees_across)
        if not across:
            self._packing_reason = "the model keeps packed conversations apart"
            return
        self._packing_reason = "this model would let packed conversations see each other"
        if self._config.packing is True:
            raise ConfigurationError(
                f"packing=true: {self._packing_reason}, and learn from what no user ever sees together; "
                "set packing=false, or leave it at auto",
                field="packing",
            )
        self._config = self._config.model_copy(update={"packing": False})

    def _sees_across(self) -> bool:
        model = load_model(self._source, self._config, self._arithmetic)
        if self._arithmetic.cuda:
            model = model.to("cuda")
        if self._processes.num == 1:
            self._model = model
        return sees_across(model, self._arithmetic.dtype)

    def _unflattened(self) -> TrainingConfig:
        """Without flash attention a device takes one sequence at a time: several become one row, whose mask is a
        square over all of their tokens."""
        if self._arithmetic.flash or not self._config.packing:
            return self._config
        return self._config.model_copy(update={"per_device_tokens": self._config.seq_len})

    def _prepare(self, scratch: Path) -> Prepared:
        paths = [Path(name) for name in self._data]
        if sum(path.stat().st_size for path in paths) < CACHED_BYTES:
            return self._prepared_in(scratch)
        cache = PreparedCache(Path(tempfile.gettempdir()) / f"chatserver-prepared-{os.geteuid()}")
        facts = {
            "run": self._identity.note(),
            "sequences": self._batch.sequences,
            "vocabulary": self._limits.vocabulary,
        }
        return cache.get(key_of(self._tokenizer, facts), self._prepared_in)

    def _prepared_in(self, folder: Path) -> Prepared:
        paths = [Path(name) for name in self._data]
        load = partial(load_tokenizer, self._source, template=self._config.template)
        source = DataSource(paths, self._tokenizer, self._limits.vocabulary, load)
        found = self._objective.prepare(source, self._config, self._batch.sequences, folder)
        if digests_of(paths) != self._data:
            raise ConfigurationError("the data changed while it was read; start the training again")
        return found

    def _tell_plan(self, prepared: Prepared) -> None:
        numbers, counts = self._arithmetic, prepared.counts
        self._report.say(f"Attention: {numbers.attention} ({numbers.attention_reason}).")
        self._report.say(f"Numbers: {numbers.dtype} ({numbers.dtype_reason}).")
        self._report.say(f"{self._tokenizer.template_reason}")
        self._report.say(f"Packing: {'on' if self._config.packing else 'off'} ({self._packing_reason}).")
        describe(self._objective, counts, self._config, self._report)
        self._report.event(
            "plan",
            **counts.as_event(),
            packing=bool(self._config.packing),
            packing_reason=self._packing_reason,
            steps=self._steps(prepared),
            sequences_per_step=self._batch.sequences,
            per_device=self._batch.per_device,
            accumulation=self._batch.accumulation,
            world_size=self._processes.num,
            attention=numbers.attention,
            attention_reason=numbers.attention_reason,
            dtype=numbers.dtype,
        )

    def _steps(self, prepared: Prepared) -> int:
        return prepared.steps(self._config, self._batch.sequences)

    def _train(self, prepared: Prepared, stop: Any) -> None:
        from pipelines.training.trainer import Progress

        checkpoints = Checkpoints(
            self._out / "checkpoints", self._config.keep_checkpoints, self._report, identity=self._identity
        )
        step = self._processes.from_first(checkpoints.newest)
        progress = Progress(self._report, stop)
        trainer = self._trainer(prepared, checkpoints, progress)
        self._go_on(trainer, checkpoints.folder(step) if step else None, step or 0, self._steps(prepared))
        if progress.stopped:
            raise Stopped(f"stopped after step {trainer.state.global_step} with everything saved; start it again")
        if trainer.eval_dataset is not None and progress.evaluation.get("step") != trainer.state.global_step:
            trainer.evaluate()
        self._take_best(trainer, checkpoints, progress)
        self._save(trainer, prepared, progress)

    def _take_best(self, trainer: Any, checkpoints: Checkpoints, progress: Any) -> None:
        best, last = trainer.state.best_global_step, trainer.state.global_step
        if best is None or best == last or not self._keeps_best:
            return
        trainer.take_back(checkpoints.folder(best))
        progress.evaluation = {"step": best, "loss": trainer.state.best_metric}
        self._report.say(f"The model is that of step {best}, whose evaluation had the lowest loss.")

    @property
    def _keeps_best(self) -> bool:
        return self._config.keep_best or self._config.early_stopping > 0

    def _go_on(self, trainer: Any, checkpoint: Path | None, step: int, steps: int) -> None:
        if checkpoint:
            self._report.say(f"Going on from {checkpoint.name}.")
            self._report.event("resumed", step=step)
        if step < steps and not (checkpoint and self._stopped_early(checkpoint)):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        else:
            assert checkpoint is not None, "a run has at least one step"
            trainer.restore(checkpoint, steps)
            trainer.state.global_step = trainer.state.max_steps = step

    def _stopped_early(self, checkpoint: Path) -> bool:
        """Whether this checkpoint was the last of a run whose loss fell no more."""
        state = orjson.loads((checkpoint / "trainer_state.json").read_bytes())
        waited = state["global_step"] - (state.get("best_global_step") or 0)
        patience = self._config.early_stopping
        return bool(patience) and waited >= patience * self._config.eval_steps

    def _trainer(self, prepared: Prepared, checkpoints: Checkpoints, progress: Any) -> Any:
        from datasets import load_from_disk
        from transformers import PrinterCallback

        from pipelines.training.trainer import BestCheckpoint

        evaluated = prepared.folder / "eval"
        arguments = self._arguments(self._steps(prepared), evaluated.exists())
        model = self._model or load_model(self._source, self._config, self._arithmetic)
        trainer = self._objective.trainer()(
            checkpoints=checkpoints,
            adapter_only=self._config.method != "full",
            args=arguments,
            model=model,
            processing_class=trained_tokenizer(self._tokenizer),
            train_dataset=load_from_disk(str(prepared.folder / "train")),
            eval_dataset=load_from_disk(str(evaluated)) if evaluated.exists() else None,
            peft_config=adapter_of(self._config, model),
            callbacks=[progress],
        )
        if self._keeps_best:
            trainer.add_callback(BestCheckpoint(checkpoints, self._config.early_stopping, self._report))
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _arguments(self, steps: int, evaluates: bool) -> Any:
        config = self._config
        if config.wandb:
            os.environ.setdefault("WANDB_DIR", str(self._out))
        return self._objective.arguments(config)(
            output_dir=str(self._out / "checkpoints"),
            run_name=config.name,
            report_to="wandb" if config.wandb else "none",
            disable_tqdm=True,
            max_length=config.seq_len,
            per_device_train_batch_size=self._batch.per_device,
            per_device_eval_batch_size=self._batch.per_device,
            gradient_accumulation_steps=self._batch.accumulation,
            max_steps=steps,
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
            warmup_steps=math.ceil(steps * config.warmup_ratio),
            weight_decay=config.weight_decay,
            optim="adamw_torch",
            seed=config.seed,
            data_seed=config.seed,
            bf16=self._arithmetic.dtype == "bfloat16",
            use_cpu=not self._arithmetic.cuda,
            gradient_checkpointing=config.gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=max(1, math.ceil(steps / _MOST_STEP_EVENTS)),
            logging_nan_inf_filter=False,
            save_steps=config.save_steps,
            eval_strategy="steps" if evaluates else "no",
            eval_steps=config.eval_steps,
            prediction_loss_only=True,
            ddp_backend="gloo" if launched() and not self._arithmetic.cuda else None,
            ddp_timeout=int(_TIMEOUT.total_seconds()),
            ddp_find_unused_parameters=False,
            **self._sharding(),
        )

    def _sharding(self) -> dict[str, Any]:
        """FSDP2 spreads all weights that are trained; an adapter is small enough to be on every device."""
        if self._processes.num == 1 or self._config.method != "full":
            return {}
        return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"}}

    def _save(self, trainer: Any, prepared: Prepared, progress: Any) -> None:
        rows = rows_to_prove(trainer.train_dataset)
        trained = loss_on(trainer.model_wrapped, rows, trainer.args.device)
        weights = trainer.gathered_weights()
        metrics = {
            "loss": progress.loss,
            "eval_loss": progress.evaluation.get("loss"),
            "steps": trainer.state.global_step,
            "tokens": prepared.counts.tokens,
        }
        if self._keeps_best:
            metrics["best_step"] = trainer.state.best_global_step
        outcome = Outcome(weights, trainer.model, rows, trained, metrics, prepared.counts.as_event())
        self._processes.from_first(lambda: self._write(outcome))

    def _export(self, stop: Any) -> None:
        """The model is whole before: it is told as finished only now, since then nobody waits any more."""
        self._model = None
        gc.collect()  # trainer and optimizer hang in cycles, and the export needs their memory
        folder = self._out / self._config.results[-1]
        self._processes.from_first(
            lambda: export_result(folder, self._config, self._report, stopped=lambda: bool(stop.heard))
        )
        tell_finished(folder, self._report)

    def _write(self, outcome: "Outcome") -> None:
        for name in self._config.results:
            self._write_result(self._out / name, outcome)

    def _write_result(self, folder: Path, outcome: "Outcome") -> None:
        """The model or the adapter, as the folder is called."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        dtype, about_base = self._arithmetic.dtype, {}
        if folder.name == ADAPTER:
            save_adapter(folder, outcome.weights, outcome.model, self._source)
            about_base = {base_weights.FIELD: base_weights.weights_digest(self._source)}
        else:
            save_model(folder, outcome.weights, outcome.model, self._source, self._config, dtype)
        trained_tokenizer(self._tokenizer).save_pretrained(folder)
        save_generation_config(folder, self._tokenizer, self._source)
        saved = check_saved(folder, outcome.rows, outcome.loss, self._config, self._source, dtype)
        rows = len(outcome.rows)
        self._report.say(
            f"The saved {folder.name} has the loss {saved:.4f} on {rows} rows, the trained one {outcome.loss:.4f}."
        )
        facts = {
            **about_base,
            "run": self._identity.note(),
            "packing": {"on": bool(self._config.packing), "reason": self._packing_reason},
            "counts": outcome.counts,
            "proof": {"rows": rows, "trained_loss": outcome.loss, "saved_loss": saved},
        }
        stops = list(self._tokenizer.stop_token_ids)
        write_manifest(folder, self._config, self._data, outcome.metrics, stops, facts)


@dataclass(frozen=True)
class Outcome:
    """What a run has made. `loss`: of the trained `model` on `rows`, which the saved one must have too."""

    weights: Mapping[str, Any]  # those that were trained, on the CPU
    model: Any
    rows: Sequence[tuple[list[int], list[int]]]
    loss: float
    metrics: Mapping[str, Any]
    counts: Mapping[str, Any]


class Processes:
    """The processes of the run, one per device: the rank of this process, and how all of them agree."""

    def __init__(self, cuda: bool) -> None:
        from accelerate import PartialState

        options: dict[str, Any] = {}
        if launched():
            options = {"backend": "nccl" if cuda else "gloo", "timeout": _TIMEOUT}
        state = PartialState(cpu=not cuda, **options)
        self.num: int = state.num_processes
        self.first: bool = state.is_main_process
        self.first_here: bool = state.is_local_main_process  # on this machine
        self._rank: int = state.process_index
        self._local_rank: int = state.local_process_index

    def wait(self) -> None:
        from accelerate import PartialState

        PartialState().wait_for_everyone()

    def from_first(self, ask: Callable[[], _Answer]) -> _Answer:
        """What the first process answers; its exception is raised in all."""
        return self._shared(ask, asks=self.first, whose=0)

    def from_first_here(self, ask: Callable[[], _Answer]) -> _Answer:
        """What the first process of this machine answers; its exception is raised in all of them."""
        return self._shared(ask, asks=self.first_here, whose=self._rank - self._local_rank)

    def _shared(self, ask: Callable[[], _Answer], *, asks: bool, whose: int) -> _Answer:
        from accelerate.utils import gather_object

        answer: _Answer | None = None
        error: Exception | None = None
        if asks:
            try:
                answer = ask()
            except Exception as raised:  # noqa: BLE001 - raised below, in all: else the others would wait for ever
                error = raised
        answers = gather_object([(answer, error)])
        raised_by = [found for _, found in answers if found is not None]
        if raised_by:
            raise raised_by[0]
        shared: _Answer = answers[whose][0]
        return shared


def launched() -> bool:
    """Whether a launcher started this process as one of several, or as the only one."""
    return "LOCAL_RANK" in os.environ


def tell_finished(folder: Path, report: Reporter) -> None:
    manifest = finished_manifest(folder)
    assert manifest is not None, f"{folder / MANIFEST} was written just now"
    metrics = manifest["metrics"]
    report.say(f"The {folder.name} is in {folder}.")
    report.event("finished", step=metrics["steps"], of=metrics["steps"], model=str(folder), loss=metrics["loss"])
