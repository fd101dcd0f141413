"""Fine-tunings: their configuration, the presets, the plan of a batch, the lines that the training program prints.

    config = read_training("vicuna-7b", {"epochs": "1"})      # a preset of infra/training, or a YAML file of your own
    plan_batch(config, num_devices=8).accumulation

The command, the pages, the pipelines and the training program (`python -m pipelines.training`) all use it, so all
refuse the same values with the same words. It needs no torch.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.errors import ConfigurationError
from services.places import PRESETS_DIR
from services.tokens.templates import named_template

EVENT_MARK = "::train "
MOST_ABOVE = 0.125  # of the tokens per step, when a number of devices does not divide them

STOPPED_EXIT = 33  # stopped by SIGTERM with everything saved: start it again and it goes on
REFUSED_EXIT = 2  # the configuration or the data is wrong
ABORTED_EXIT = 3  # training would have produced a broken model


class TrainingConfig(BaseModel):
    """The configuration of one fine-tuning. The defaults are Vicuna's; a preset says where it differs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="Name of the new model.")
    model: str = Field(
        min_length=1, description="Model to train: a packaged or registered name, folder, GGUF or hub id."
    )
    template: str = Field("", description="Chat template; empty: the tokenizer's own, else by the model's name.")
    method: Literal["full", "lora", "qlora"] = Field("full", description="Train all weights, or a low-rank adapter.")

    seq_len: int = Field(2048, ge=16, le=1_048_576, description="Tokens of one training sequence; the rest is cut.")
    tokens_per_step: int = Field(65_536, ge=16, description="Tokens of one optimizer step over all devices.")
    per_device_tokens: int = Field(8_192, ge=16, description="Most tokens that one device takes at once.")
    packing: bool = Field(True, description="Several conversations in one sequence, none of which sees another.")

    epochs: float = Field(3.0, gt=0, le=1000, description="How often the training reads the data.")
    max_steps: int = Field(0, ge=0, description="Steps after which the training ends; 0: after the epochs.")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Highest learning rate, after the warm-up.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="How the learning rate falls.")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Part of the steps in which the learning rate rises.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Weight decay of AdamW.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the order of the data.")

    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 on a GPU that has it.")
    attention: Literal["auto", "flash", "sdpa"] = Field("auto", description="auto: flash attention where it runs.")
    gradient_checkpointing: bool = Field(True, description="Take less memory and about a third more time.")

    lora_r: int = Field(8, ge=1, le=1024, description="Rank of the adapter.")
    lora_alpha: int = Field(16, ge=1, description="Scale of the adapter.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout of the adapter.")
    lora_targets: tuple[str, ...] = Field(("q_proj", "v_proj"), min_length=1, description="Layers with an adapter.")

    save_steps: int = Field(1200, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="Number of complete checkpoints to keep.")
    eval_fraction: float = Field(0.0, ge=0, le=0.5, description="Part of the conversations for evaluation only.")
    eval_steps: int = Field(200, ge=1, description="Steps between evaluations.")
    max_unsupervised: float = Field(
        0.01, ge=0, le=1, description="Largest part of the data that may lack a supervised token; more ends the run."
    )
    wandb: bool = Field(False, description="Report to Weights & Biases.")

    sky: str = Field("train-vicuna.yaml", pattern=r"^[A-Za-z0-9._-]+\.yaml$", description="SkyPilot file in infra/sky.")

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class Batch:
    """The sequences of one optimizer step: `num_devices` × `accumulation` times `per_device`."""

    per_device: int
    accumulation: int
    num_devices: int
    seq_len: int

    @property
    def sequences(self) -> int:
        return self.per_device * self.accumulation * self.num_devices

    @property
    def tokens(self) -> int:
        return self.sequences * self.seq_len


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS_DIR.glob("*.yaml"))


def read_training(preset: str, overrides: Mapping[str, Any] | None = None) -> TrainingConfig:
    """The configuration of a preset or a YAML file. `overrides` replace fields, as text or as values.

    Raises ConfigurationError that names the field, its value and a valid value.
    """
    path = PRESETS_DIR / f"{preset}.yaml" if preset in preset_names() else Path(preset)
    if not path.is_file():
        raise ConfigurationError(
            f"{preset!r} is neither a preset nor a file; presets: {', '.join(preset_names())}; or give a YAML file"
        )
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"not valid YAML: {' '.join(str(error).split())}", source=preset) from None
    if not isinstance(found, dict):
        wrong = f"a configuration has `field: value` lines; this file has a {type(found).__name__}"
        raise ConfigurationError(wrong, source=preset)
    given = {name: _value(name, value) for name, value in (overrides or {}).items()}
    return checked_training({**found, **given}, preset)


def checked_training(fields: Mapping[str, Any], where: str = "configuration") -> TrainingConfig:
    """The configuration of these fields. Raises ConfigurationError with the source `where` for an invalid field."""
    for name in fields:
        if name not in TrainingConfig.model_fields:
            near = difflib.get_close_matches(str(name), TrainingConfig.model_fields, n=1, cutoff=0.0)[0]
            raise ConfigurationError(f"unknown field {name!r}; did you mean {near}?", source=where, field=str(name))
    try:
        config = TrainingConfig(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigurationError(f"{name}={fields.get(name)!r}: {first['msg']}", source=where, field=name) from None
    _check_template(config.template, where)
    if config.tokens_per_step < config.seq_len:
        raise ConfigurationError(
            f"tokens_per_step={config.tokens_per_step} is less than one sequence of seq_len={config.seq_len}",
            source=where,
            field="seq_len",
        )
    return config


def _check_template(name: str, where: str) -> None:
    try:
        if name:
            named_template(name)
    except ConfigurationError as error:
        error.source, error.field = where, "template"
        raise


def _value(name: str, value: Any) -> Any:
    """The value of a text from the command line: `lora_targets=q_proj,v_proj` is a list. Pydantic reads the rest."""
    if name == "lora_targets" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def plan_batch(config: TrainingConfig, num_devices: int) -> Batch:
    """The batch that keeps the tokens per step the same for any number of devices: never fewer, hardly more.

    Raises ConfigurationError when there is no such batch: more devices than sequences, or the tokens exceed the number
    wanted by more than `MOST_ABOVE`.
    """
    wanted = math.ceil(config.tokens_per_step / config.seq_len)
    most = max(config.per_device_tokens // config.seq_len, 1)
    if num_devices < 1:
        raise ConfigurationError(f"a training needs at least one device, not {num_devices}")
    batches = [
        Batch(per_device, math.ceil(wanted / (per_device * num_devices)), num_devices, config.seq_len)
        for per_device in range(1, most + 1)
    ]
    best = min(batches, key=lambda batch: (batch.sequences, -batch.per_device))
    if best.sequences > wanted * (1 + MOST_ABOVE):
        raise ConfigurationError(
            f"{num_devices} devices cannot share {config.tokens_per_step:,} tokens a step, that is {wanted} sequences "
            f"of {config.seq_len}: the least would be {best.tokens:,}. Take {_nearest(config, num_devices)} devices, "
            f"or set tokens_per_step={best.tokens} and the learning rate that goes with it"
        )
    return best


def _nearest(config: TrainingConfig, num_devices: int) -> int:
    """The next smaller number of devices that keeps the tokens per step; 1 always does."""
    for fewer in range(num_devices - 1, 0, -1):
        wanted = math.ceil(config.tokens_per_step / config.seq_len)
        if math.ceil(wanted / fewer) * fewer <= wanted * (1 + MOST_ABOVE):
            return fewer
    return 1


def event_line(event: str, **fields: Any) -> str:
    """The line that the training program prints for other programs."""
    return EVENT_MARK + orjson.dumps({"event": event, **fields}, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def parse_event(line: str) -> dict[str, Any] | None:
    """The event of a printed line that holds the mark; None for a line for people."""
    _, mark, text = line.partition(EVENT_MARK)
    if not mark:
        return None
    try:
        found = orjson.loads(text.strip())
    except orjson.JSONDecodeError:  # a line that was cut: what it told comes again with the next
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
