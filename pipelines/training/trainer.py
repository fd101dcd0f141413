"""TRL's trainers with our checkpoints, and the callbacks of their steps. `train` makes one; importing this loads torch.

`torch.distributed.checkpoint` writes a checkpoint in one format, whatever the number of processes and however the
weights are spread over them. So any other number of processes can continue from it. The library's own formats need the
same number of processes, and have no moment at which a checkpoint is known to be whole.
"""

import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerState
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from pipelines.training.checkpoints import Checkpoints
from pipelines.training.reporting import Aborted, Reporter

_SCHEDULER = "scheduler.pt"
_STATE = "trainer_state.json"


class _Checkpointed:
    """What a trainer of TRL does otherwise: it saves and loads its state through `Checkpoints`."""

    state: Any
    args: Any
    accelerator: Any
    model_wrapped: Any
    optimizer: Any
    lr_scheduler: Any
    is_world_process_zero: Any
    _save_rng_state: Any
    _prepare_for_training: Any
    get_train_dataloader: Any

    def __init__(self, *, checkpoints: Checkpoints, adapter_only: bool, **options: Any) -> None:
        super().__init__(**options)
        self._checkpoints = checkpoints
        self._options = StateDictOptions(ignore_frozen_params=adapter_only, strict=not adapter_only)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = self._checkpoints.folder(step)
        if self.is_world_process_zero():
            self._checkpoints.begin(step)
        self.accelerator.wait_for_everyone()
        save(self._state(), checkpoint_id=folder / "weights")
        self._save_rng_state(str(folder))
        if self.is_world_process_zero():
            torch.save(self.lr_scheduler.state_dict(), folder / _SCHEDULER)
            self.state.save_to_json(str(folder / _STATE))
        self.accelerator.wait_for_everyone()  # every process has written its part
        if self.is_world_process_zero():
            self._checkpoints.complete(step, self._parts(folder))
        self.accelerator.wait_for_everyone()

    def _parts(self, folder: Path) -> dict[str, int]:
        """The files of all processes: name → the least bytes it must have."""
        sizes: dict[str, int] = {}
        for part in FileSystemReader(folder / "weights").read_metadata().storage_data.values():
            name = f"weights/{part.relative_path}"
            sizes[name] = max(sizes.get(name, 0), part.offset + part.length)
        num = self.args.world_size
        states = [f"rng_state_{rank}.pth" for rank in range(num)] if num > 1 else ["rng_state.pth"]
        return {**sizes, **dict.fromkeys(states, 1)}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Too early: the weights are loaded with the optimizer's state, once both are spread over the processes."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        state = self._state()
        load(state, checkpoint_id=Path(checkpoint) / "weights")
        set_state_dict(
            self.model_wrapped,
            self._plain_optimizer(),
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=self._options,
        )
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / _SCHEDULER, weights_only=True))

    def restore(self, checkpoint: Path, steps: int) -> None:
        """What `train` would restore, for a checkpoint after whose step there is nothing left to train."""
        self._prepare_for_training(steps, self.get_train_dataloader(), str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / _STATE))

    def take_back(self, checkpoint: Path) -> None:
        """The weights of an earlier checkpoint of this run, after `train` or `restore`."""
        self._load_optimizer_and_scheduler(str(checkpoint))

    def gathered_weights(self) -> dict[str, Any]:
        """All trained weights on the CPU of the first process; called by all."""
        options = StateDictOptions(
            full_state_dict=True, cpu_offload=True, ignore_frozen_params=self._options.ignore_frozen_params
        )
        return get_model_state_dict(self.model_wrapped, options=options)

    def _state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model_wrapped, self._plain_optimizer(), options=self._options)
        return {"model": model, "optimizer": optimizer}

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizer
        found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        return found


class Trainer(_Checkpointed, SFTTrainer):  # type: ignore[misc]
    """Learns answers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._evaluated = [0.0, 0.0]  # the summed loss of an evaluation, and its number of learnt tokens

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        num_learnt = float((inputs["labels"][..., 1:] != -100).sum())
        self._evaluated[0] += float(loss) * num_learnt
        self._evaluated[1] += num_learnt
        return loss, logits, labels

    def evaluation_loop(self, *given: Any, **options: Any) -> Any:
        """With the loss per learnt token. The library's is a mean of the batches' means: it changes with their size."""
        self._evaluated = [0.0, 0.0]
        output = super().evaluation_loop(*given, **options)
        sums = self.accelerator.reduce(torch.tensor(self._evaluated, device=self.args.device), reduction="sum")
        output.metrics["eval_loss"] = float(sums[0] / sums[1].clamp(min=1.0))
        return output


class _Judging(_Checkpointed):
    """What the trainers of judged answers share.

    The rows hold token ids already. What the model without training thinks of them is computed before the first step,
    from the model in memory, and kept beside the rows: a second model, or one read anew from the disk, is not needed.
    """

    model: Any
    _metrics: Any

    def __init__(self, **options: Any) -> None:
        # What a metric is a mean over: of each batch since the last log, the number of such answers
        self._numbers: dict[str, dict[str, list[int]]] = {"train": defaultdict(list), "eval": defaultdict(list)}
        super().__init__(**options)

    def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
        return dataset

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._weigh(self._metrics[self._mode])
        self._numbers[self._mode].clear()
        super().log(logs, start_time)  # type: ignore[misc]  # of TRL's trainer, which stands behind this class

    def _weigh(self, metrics: dict[str, list[float]]) -> None:
        """The library takes the mean over batches; a last batch of one answer would count as much as a full one."""
        for name, values in metrics.items():
            weights = self._numbers[self._mode][self._counted(name)]
            if values and len(values) == len(weights):
                values[:] = [sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)]

    def _counted(self, metric: str) -> str:
        """The kind of answers that a metric is a mean over."""
        return "all"

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"


class PreferenceTrainer(_Judging, DPOTrainer):  # type: ignore[misc]
    """Learns to prefer one answer to another (DPO: Rafailov et al. 2023, arXiv 2305.18290)."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        self._numbers[self._mode]["all"].append(len(inputs["input_ids"]) // 2)
        return super()._compute_loss(model, inputs, return_outputs)


class RatingTrainer(_Judging, KTOTrainer):  # type: ignore[misc]
    """Learns from single answers that are good or bad (KTO: Ethayarajh et al. 2024, arXiv 2402.01306).

    KTO compares the reward of an answer with how far the model went from its beginning: the KL divergence, measured at
    answers to other prompts, which the rows bring along. The library measures it in each device's batch, so the loss
    changes with what a device takes at once. Here it is measured once over all answers of a step, and once over all of
    an evaluation; and each answer of a step counts alike, also where an epoch ends with a smaller batch.
    """

    def __init__(self, **options: Any) -> None:
        self._divergence = 0.0
        self._mean_size = 1.0  # answers of a batch of the present step
        arguments, size = options["args"], options["args"].per_device_train_batch_size
        # The library refuses a batch of one, whose KL term it could not measure. Ours is not measured in a batch.
        arguments.per_device_train_batch_size = max(size, 2)
        super().__init__(**options)
        arguments.per_device_train_batch_size = self._train_batch_size = size

    def get_batch_samples(self, *given: Any) -> Any:
        """The batches of one step."""
        batches, num_items = super().get_batch_samples(*given)
        num = self._measure(batches)
        self._mean_size = num / (max(len(batches), 1) * self.args.world_size)
        return batches, num_items

    def evaluation_loop(self, dataloader: Any, *given: Any, **options: Any) -> Any:
        self.model.eval()
        self._measure(dataloader)
        return super().evaluation_loop(dataloader, *given, **options)

    def _weigh(self, metrics: dict[str, list[float]]) -> None:
        """The library's margin knows only batches that hold good and bad answers."""
        super()._weigh(metrics)
        means = {kind: metrics.get(f"rewards/{kind}") for kind in ("chosen", "rejected")}
        if means["chosen"] and means["rejected"]:
            metrics["rewards/margins"] = [means["chosen"][0] - means["rejected"][0]]

    def _measure(self, batches: Iterable[dict[str, Any]]) -> float:
        """Set the KL divergence to that over these batches of all processes. Returns the number of their answers."""
        sums = torch.zeros(2, device=self.args.device)
        for batch in map(self._prepare_inputs, batches):
            with torch.no_grad(), self.compute_loss_context_manager():
                ratios = super()._compute_kl_logps(self.model_wrapped, batch) - batch["ref_KL_logps"]
            sums += torch.stack([ratios.sum(), torch.tensor(float(len(ratios)), device=ratios.device)])
        total, num = self.accelerator.reduce(sums, reduction="sum").tolist()
        self._divergence = total / max(num, 1.0)
        return float(num)

    def _compute_kl_logps(self, model: Any, batch: dict[str, Any]) -> Any:
        """What the library takes the mean of, once it subtracted the reference's: the divergence, for each answer."""
        return batch["ref_KL_logps"].double() + self._divergence

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        labels = inputs["label"]
        numbers = self.accelerator.reduce(torch.stack([labels.sum(), (~labels).sum()]), reduction="sum")
        for name, number in zip(("chosen", "rejected"), numbers.tolist(), strict=True):
            if number:  # else the library notes no value
                self._numbers[self._mode][name].append(number)
        loss = super()._compute_loss(model, inputs, return_outputs)
        return loss * len(labels) / self._mean_size if self.model.training else loss

    def _counted(self, metric: str) -> str:
        return metric.rpartition("/")[2]


class StopSignal:
    """Remembers SIGTERM until the step is done. Each process hears the signal at another moment."""

    def __init__(self) -> None:
        self._heard = False
        signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard = True

    @property
    def heard(self) -> bool:
        """Whether this process heard it."""
        return self._heard

    def heard_by_any(self, device: torch.device) -> bool:
        """The same answer in all processes; called by all of them after the same step."""
        if not torch.distributed.is_initialized():
            return self._heard
        flag = torch.tensor(int(self._heard), device=device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())


class BestCheckpoint(TrainerCallback):
    """Saves after each evaluation with a lower loss than all before, and keeps that checkpoint.

    With a patience it ends the training after so many evaluations without a lower loss. What it knows is in the
    trainer's state, so a run that goes on after its end knows it too.
    """

    def __init__(self, checkpoints: Checkpoints, patience: int, report: Reporter) -> None:
        self._checkpoints = checkpoints
        self._patience = patience
        self._report = report

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self._checkpoints.best = state.best_global_step

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        loss = others["metrics"]["eval_loss"]
        if state.best_metric is None or loss < state.best_metric:
            state.best_metric, state.best_global_step = loss, state.global_step
            self._checkpoints.best = state.global_step
            control.should_save = True
        elif self.is_over(state, args.eval_steps):
            self._report.say(f"No lower loss than that of step {state.best_global_step}: the training ends here.")
            control.should_save = control.should_training_stop = True

    def is_over(self, state: Any, eval_steps: int) -> bool:
        waited = state.global_step - (state.best_global_step or 0)
        return bool(self._patience) and waited >= self._patience * eval_steps


class Progress(TrainerCallback):
    """Prints steps and evaluations. Ends a run that shall stop, and a run whose loss is not a number."""

    def __init__(self, report: Reporter, stop: StopSignal) -> None:
        self.stopped = False
        self.loss: float | None = None  # the last that was told
        self.evaluation: dict[str, Any] = {}  # the last one
        self._report = report
        self._stop = stop
        self._since = (0, 0.0)  # (step, time) of the first step of this start
        self._tokens = (0.0, 0.0)  # (tokens, time) when last told

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        now = time.monotonic()
        self._since = (state.global_step, now)
        self._tokens = (0.0, now)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if self._stop.heard_by_any(args.device) and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True
        if control.should_save:
            control.should_log = True  # a loss that is no number is seen before anything is saved

    def on_log(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        logs = others["logs"]
        if "eval_loss" in logs:
            self.evaluation = {"step": state.global_step, "loss": logs["eval_loss"], **_rewards(logs, "eval_")}
            self._report.event("eval", **self.evaluation)
        elif "loss" in logs:
            self._check(state.global_step, logs)
            self.loss = logs["loss"]
            self._tell_step(state, logs)

    def _check(self, step: int, logs: dict[str, Any]) -> None:
        for name in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise Aborted(
                    f"the {name} of step {step} is {logs[name]}: the weights are lost. Lower learning_rate, or look "
                    "at the data; the checkpoints before this step are whole"
                )

    def _tell_step(self, state: Any, logs: dict[str, Any]) -> None:
        now = time.monotonic()
        tokens, then = self._tokens
        self._tokens = (logs.get("num_tokens", tokens), now)
        first, begun = self._since
        done = state.global_step - first
        self._report.event(
            "step",
            step=state.global_step,
            of=state.max_steps,
            loss=logs["loss"],
            lr=logs["learning_rate"],
            grad_norm=logs.get("grad_norm"),
            epoch=state.epoch,
            tokens_per_s=round((self._tokens[0] - tokens) / max(now - then, 1e-9), 1),
            eta_s=round((now - begun) / max(done, 1) * (state.max_steps - state.global_step), 1),
            **_rewards(logs),
        )


_REWARDS = {
    "margin": "rewards/margins",
    "accuracy": "rewards/accuracies",
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "kl": "kl",
}  # name in our events → in TRL's logs


def _rewards(logs: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """How clearly good answers are preferred to bad ones, and how often; nothing for a training on answers alone."""
    found = ((name, f"{prefix}{key}") for name, key in _REWARDS.items())
    return {name: round(logs[key], 4) for name, key in found if key in logs}
