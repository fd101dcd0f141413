"""The configuration of a fine-tuning, its presets, the size of its batches, and the events that its program prints.

    config = read_training("vicuna-7b", {"epochs": "1"})      # a preset of infra/training, or a YAML file of your own
    plan_batch(config, num_devices=8).accumulation

The command and the pages that submit, the pipelines that launch, and the training program itself
(`python -m pipelines.training`) read configurations with this module, so that all refuse the same values with the same
message. Needs no torch.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from services.errors import ConfigurationError
from services.field_errors import in_words
from services.models.exported import PRECISIONS
from services.models.model_folder import ADAPTER, MODEL
from services.places import PRESETS_DIR
from services.tokens.templates import named_template

_LATER = frozenset(
    {
        "objective",
        "dpo_beta",
        "kto_beta",
        "desirable_weight",
        "undesirable_weight",
        "packing",
        "learn",
        "lora_targets",
        "eval_files",
        "keep_best",
        "early_stopping",
        "max_refused",
        "save",
        "export",
        "thinking",
    }
)  # fields, or their defaults, that builds before 2026-12 do not know
_OTHER_NAMES = {  # what other programs call a field
    "lr": "learning_rate",
    "batch_size": "tokens_per_step",
    "train_batch_size": "tokens_per_step",
    "global_batch_size": "tokens_per_step",
    "gradient_accumulation_steps": "tokens_per_step",
    "micro_batch_size": "per_device_tokens",
    "per_device_batch_size": "per_device_tokens",
    "per_device_train_batch_size": "per_device_tokens",
    "max_length": "seq_len",
    "max_seq_length": "seq_len",
    "max_seq_len": "seq_len",
    "sequence_len": "seq_len",
    "sequence_length": "seq_len",
    "cutoff_len": "seq_len",
    "context_length": "seq_len",
    "model_max_length": "seq_len",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "steps": "max_steps",
    "num_steps": "max_steps",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "lr_scheduler_type": "schedule",
    "warmup": "warmup_ratio",
    "warmup_steps": "warmup_ratio",
    "wd": "weight_decay",
    "random_seed": "seed",
    "bf16": "precision",
    "fp16": "precision",
    "dtype": "precision",
    "torch_dtype": "precision",
    "attn_implementation": "attention",
    "flash_attention": "attention",
    "use_flash_attn": "attention",
    "sample_packing": "packing",
    "rank": "lora_r",
    "lora_rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "target_modules": "lora_targets",
    "lora_target_modules": "lora_targets",
    "adapter": "method",
    "finetuning_type": "method",
    "base_model": "model",
    "model_name": "model",
    "model_name_or_path": "model",
    "chat_template": "template",
    "val_set_size": "eval_fraction",
    "eval_split": "eval_fraction",
    "kto_chosen_weight": "desirable_weight",
    "kto_rejected_weight": "undesirable_weight",
    "patience": "early_stopping",
    "early_stopping_patience": "early_stopping",
    "load_best_model_at_end": "keep_best",
    "save_total_limit": "keep_checkpoints",
    "merge_lora": "save",
    "merge_adapter": "save",
    "quantize": "export",
    "quantization_method": "export",
    "save_gguf": "export",
    "train_on_input": "learn",
    "mask_history": "learn",
    "enable_thinking": "thinking",
    "report_to": "wandb",
}

EVENT_MARK = "::train "
PREFERENCES_RATE = 0.1  # of a preset's learning rate for answers, where it trains on pairs of answers
MOST_ABOVE = 0.125  # by how much a step may exceed the tokens per step when the devices do not divide them

STOPPED_EXIT = 33  # SIGTERM stopped the program, which saved everything: started again, it continues
REFUSED_EXIT = 2  # the configuration or the data is wrong
ABORTED_EXIT = 3  # training would have produced a broken model


@dataclass(frozen=True)
class RowSize:
    """What a device holds at once for one row of a training's data, in sequences of `seq_len` tokens.

    A step holds `least` rows at least, which `words` name before `seq_len`.
    """

    sequences: int
    least: int
    words: str


ROW_SIZES = {
    "answers": RowSize(1, 1, "one sequence of"),
    "dpo": RowSize(2, 1, "one pair of answers, twice"),
    "kto": RowSize(1, 2, "the two rated answers that its KL term needs, twice"),
}  # objective → size. An answer to another prompt, which kto reads beside each, is read before it and without gradients


class TrainingConfig(BaseModel):
    """The configuration of one fine-tuning. The defaults are those of Vicuna; a preset gives what differs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The name of the trained model.")
    model: str = Field(
        min_length=1,
        description="The model to train: a packaged or registered name, a folder, a GGUF file or a hub id.",
    )
    template: str = Field(
        "",
        description="The name of a chat template. Empty: the tokenizer's own template, "
        "else the one that the model's name suggests.",
    )
    method: Literal["full", "lora", "qlora"] = Field(
        "full", description="full: train all weights. lora, qlora: train a low-rank adapter."
    )

    objective: Literal["answers", "dpo", "kto"] = Field(
        "answers",
        description="answers: learn the answers of conversations. dpo: learn to prefer the chosen answer of each pair. "
        "kto: learn from single answers that are rated good or bad.",
    )
    dpo_beta: float = Field(
        0.1, gt=0, le=10, description="How closely a training of objective=dpo stays at the model it began with."
    )
    kto_beta: float = Field(
        0.1, gt=0, le=10, description="How closely a training of objective=kto stays at the model it began with."
    )
    desirable_weight: float = Field(
        1.0, gt=0, le=1000, description="How much each good answer counts in a training of objective=kto."
    )
    undesirable_weight: float = Field(
        1.0, gt=0, le=1000, description="How much each bad answer counts in a training of objective=kto."
    )

    seq_len: int = Field(
        2048, ge=16, le=1_048_576, description="Tokens of one training sequence. A longer conversation is cut."
    )
    tokens_per_step: int = Field(65_536, ge=16, description="Tokens of one optimizer step over all devices.")
    per_device_tokens: int = Field(
        8_192, ge=16, le=4_194_304, description="The most tokens that one device computes at once."
    )
    packing: Literal["auto"] | bool = Field(
        "auto",
        description="Put several conversations in one sequence. "
        "auto: if the model keeps them apart; true: refuse a model that does not.",
    )
    learn: Literal["all", "last"] = Field(
        "all", description="all: learn each answer of a conversation. last: learn the last one only."
    )

    thinking: bool | None = Field(
        None,
        description="How the chat template's switch for reasoning is set, as serving sets it. Empty: as the template "
        "has it. false: reasoning in the data is left out.",
    )

    epochs: float = Field(3.0, gt=0, le=1000, description="How often the model sees the data.")
    max_steps: int = Field(0, ge=0, description="End the training after this many steps. 0: after the epochs.")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="The highest learning rate, reached after the warm-up.")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="How the learning rate falls.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="The share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="The weight decay of AdamW.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="The seed of the order of the data.")

    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="auto: bf16 on a GPU that supports it, else fp32."
    )
    attention: Literal["auto", "flash", "sdpa"] = Field(
        "auto", description="auto: flash attention where it runs, else sdpa."
    )
    gradient_checkpointing: bool = Field(True, description="Use less memory and about a third more time.")

    lora_r: int = Field(8, ge=1, le=1024, description="The rank of the adapter.")
    lora_alpha: int = Field(16, ge=1, description="The scale of the adapter.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="The dropout of the adapter.")
    lora_targets: tuple[str, ...] = Field(
        (),
        description="The layers that get an adapter, or all-linear. Empty: those of the attention that the model's "
        "architecture names.",
    )

    save: Literal["both", "merged", "adapter"] = Field(
        "both",
        description="What a lora or qlora training leaves. merged: a model as large as the base. adapter: some "
        "megabytes that are served on the base. both: the two.",
    )
    export: Literal["auto", "none", "q8_0", "f16"] = Field(
        "none",
        description="Write the model as GGUF too, which the engines for CPUs read. auto: q8_0, where the training "
        "machine has no GPU.",
    )
    save_steps: int = Field(1200, ge=1, description="Steps between two checkpoints.")
    keep_checkpoints: int = Field(3, ge=1, description="How many complete checkpoints are kept.")
    eval_fraction: float = Field(
        0.0, ge=0, le=0.5, description="The share of the conversations that is evaluated and never trained on."
    )
    eval_steps: int = Field(200, ge=1, description="Steps between two evaluations.")
    eval_files: int = Field(
        0, ge=0, description="How many of the data files, counted from the last, are evaluated and never trained on."
    )
    keep_best: bool = Field(False, description="Save the model of the evaluation with the lowest loss, not of the end.")
    early_stopping: int = Field(
        0, ge=0, description="End the training after this many evaluations without a lower loss. 0: never."
    )
    max_refused: float = Field(
        0.01, ge=0, le=1, description="End the training if more than this share of the records cannot be trained on."
    )
    max_unsupervised: float = Field(
        0.01,
        ge=0,
        le=1,
        description="End the training if more than this share of the data has no supervised token.",
    )
    wandb: bool = Field(False, description="Report to Weights & Biases.")

    sky: str = Field(
        "train-vicuna.yaml",
        pattern=r"^[A-Za-z0-9._-]+\.yaml$",
        description="The file in infra/sky that SkyPilot launches.",
    )

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the fields that older builds refuse, where they say nothing."""
        fields: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in _LATER or getattr(self, name) != TrainingConfig.model_fields[name].default
        }

    @property
    def row_tokens(self) -> int:
        """The most tokens of what one step counts: a sequence, or the two of a pair of answers."""
        return self.seq_len * ROW_SIZES[self.objective].sequences

    @property
    def results(self) -> tuple[str, ...]:
        """The folders that the training leaves in its `--out`; the last one is written last."""
        if self.method == "full" or self.save == "merged":
            return (MODEL,)
        return (ADAPTER,) if self.save == "adapter" else (ADAPTER, MODEL)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


@dataclass(frozen=True)
class Batch:
    """The sequences of one optimizer step: `num_devices` × `accumulation` × `per_device`."""

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
    """The configuration of a preset or a YAML file. `overrides` (text or values) replace some of its fields.

    Raises ConfigurationError that names the field, its value and the remedy.
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
            raise ConfigurationError(f"unknown field {name!r}; {_meant(str(name))}", source=where, field=str(name))
    try:
        config = TrainingConfig(**fields)
    except ValidationError as error:
        problems = error.errors()
        name = str(problems[0]["loc"][0])
        words = _either([in_words(problem) for problem in problems if problem["loc"][0] == name])
        raise ConfigurationError(f"{name}={fields.get(name)!r}: {words}", source=where, field=name) from None
    _check_template(config.template, where)
    _check_evaluation(config, where)
    _check_save(config, where)
    if config.tokens_per_step < config.row_tokens * ROW_SIZES[config.objective].least:
        raise ConfigurationError(
            f"tokens_per_step={config.tokens_per_step} is less than {ROW_SIZES[config.objective].words} "
            f"seq_len={config.seq_len}",
            source=where,
            field="seq_len",
        )
    return config


def _either(words: list[str]) -> str:
    """One sentence for the problems of a field that may have several kinds of values."""
    first, *others = dict.fromkeys(words)
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])


def _meant(name: str) -> str:
    """What somebody who wrote this unknown field may want: a field by the name that others give it, or a near one."""
    plain = name.strip().lower().replace("-", "_")
    near = difflib.get_close_matches(plain, [*TrainingConfig.model_fields, *_OTHER_NAMES], n=1, cutoff=0.7)
    if near:
        return f"did you mean {_OTHER_NAMES.get(near[0], near[0])}?"
    return f"the fields are {', '.join(TrainingConfig.model_fields)}"


def _check_evaluation(config: TrainingConfig, where: str) -> None:
    if (config.keep_best or config.early_stopping) and not (config.eval_files or config.eval_fraction):
        name = "keep_best" if config.keep_best else "early_stopping"
        raise ConfigurationError(
            f"{name} compares evaluations, and nothing is evaluated: set eval_fraction, or give --eval-data",
            source=where,
            field=name,
        )


def _check_template(name: str, where: str) -> None:
    try:
        if name:
            named_template(name)
    except ConfigurationError as error:
        error.source, error.field = where, "template"
        raise


def _check_save(config: TrainingConfig, where: str) -> None:
    if config.method == "full" and config.save == "adapter":
        raise ConfigurationError(
            "save='adapter': method=full trains all weights and makes no adapter; set method=lora, or leave save out",
            source=where,
            field="save",
        )
    if config.export in PRECISIONS and MODEL not in config.results:
        raise ConfigurationError(
            f"export={config.export!r}: save=adapter leaves no model to export; set save=both, or leave export out",
            source=where,
            field="export",
        )


def _value(name: str, value: Any) -> Any:
    """The value that a command line means: splits `q_proj,v_proj` of `lora_targets`; pydantic parses all others."""
    if name == "lora_targets" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def plan_batch(config: TrainingConfig, num_devices: int) -> Batch:
    """The batch with the same tokens per step for any number of devices: never fewer tokens, and hardly more.

    Raises ConfigurationError when no such batch exists: the devices are more than the sequences, or each possible batch
    has more than `MOST_ABOVE` tokens too many.
    """
    wanted = math.ceil(config.tokens_per_step / config.row_tokens)
    most = max(config.per_device_tokens // config.row_tokens, 1)
    if num_devices < 1:
        raise ConfigurationError(f"a training needs at least one device, not {num_devices}")
    batches = [
        Batch(per_device, math.ceil(wanted / (per_device * num_devices)), num_devices, config.row_tokens)
        for per_device in range(1, most + 1)
    ]
    best = min(batches, key=lambda batch: (batch.sequences, -batch.per_device))
    if best.sequences > wanted * (1 + MOST_ABOVE):
        raise ConfigurationError(
            f"{num_devices} devices cannot share {config.tokens_per_step:,} tokens a step, that is {wanted} sequences "
            f"of {config.row_tokens}: the least would be {best.tokens:,}. "
            f"Take {_nearest(config, num_devices)} devices, "
            f"or set tokens_per_step={best.tokens} and the learning rate that goes with it"
        )
    return best


def _nearest(config: TrainingConfig, num_devices: int) -> int:
    """The next smaller number of devices for which a batch exists; for 1 device one always does."""
    for fewer in range(num_devices - 1, 0, -1):
        wanted = math.ceil(config.tokens_per_step / config.row_tokens)
        if math.ceil(wanted / fewer) * fewer <= wanted * (1 + MOST_ABOVE):
            return fewer
    return 1


def event_line(event: str, **fields: Any) -> str:
    """The line that the training program prints for one event, for programs to read."""
    return EVENT_MARK + orjson.dumps({"event": event, **fields}, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def parse_event(line: str) -> dict[str, Any] | None:
    """The event in a printed line, wherever in the line its mark stands; None for a line for people."""
    _, mark, text = line.partition(EVENT_MARK)
    if not mark:
        return None
    try:
        found = orjson.loads(text.strip())
    except orjson.JSONDecodeError:  # a line that was cut; the next event repeats what it said
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None
