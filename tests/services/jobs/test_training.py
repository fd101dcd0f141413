"""Configurations of fine-tuning, the arithmetic of their batches, and the lines that the program prints."""

import math

import pytest

from services.errors import ConfigurationError
from services.jobs.training import (
    MOST_ABOVE,
    checked_training,
    event_line,
    parse_event,
    plan_batch,
    preset_names,
    read_training,
)

FORERUNNERS = {  # per-device batch, accumulation, devices: the forerunner's own settings
    "vicuna-7b": (4, 1, 8),
    "vicuna-13b": (4, 1, 8),
    "alpaca-7b": (4, 8, 4),
}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_parses(name: str) -> None:
    config = read_training(name)
    assert config.seq_len <= config.tokens_per_step
    assert checked_training(config.model_dump()) == config


@pytest.mark.parametrize("name", FORERUNNERS)
def test_on_the_forerunners_machines_the_batch_is_the_forerunners(name: str) -> None:
    per_device, accumulation, devices = FORERUNNERS[name]
    batch = plan_batch(read_training(name), devices)
    assert (batch.per_device, batch.accumulation) == (per_device, accumulation)
    assert batch.tokens == 65_536


def test_hyperparameters_are_the_forerunners() -> None:
    for name in FORERUNNERS:
        config = read_training(name)
        assert (config.epochs, config.learning_rate, config.schedule) == (3, 2e-5, "cosine")
        assert (config.warmup_ratio, config.weight_decay) == (0.03, 0)
    assert (read_training("vicuna-13b").seq_len, read_training("alpaca-7b").seq_len) == (2048, 512)


@pytest.mark.parametrize("name", preset_names())
@pytest.mark.parametrize("devices", range(1, 65))
def test_tokens_per_step_hold_for_any_number_of_devices_or_it_says_so(name: str, devices: int) -> None:
    """The forerunner's integer division gave an accumulation of 0 on two nodes of eight."""
    config = read_training(name)
    wanted = math.ceil(config.tokens_per_step / config.row_tokens)
    try:
        batch = plan_batch(config, devices)
    except ConfigurationError as error:
        assert math.ceil(wanted / devices) * devices > wanted * (1 + MOST_ABOVE)
        assert "tokens_per_step=" in error.message
        return
    assert batch.accumulation >= 1
    assert batch.per_device >= 1
    assert batch.per_device * config.row_tokens <= max(config.per_device_tokens, config.row_tokens)
    assert config.tokens_per_step <= batch.tokens <= config.tokens_per_step * (1 + MOST_ABOVE)


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16, 32])
def test_a_power_of_two_holds_the_tokens_exactly(devices: int) -> None:
    assert plan_batch(read_training("vicuna-13b"), devices).tokens == 65_536


def test_the_remedy_of_a_number_that_cannot_hold_does_hold() -> None:
    config = read_training("vicuna-7b")
    with pytest.raises(ConfigurationError, match="Take 18 devices, or set tokens_per_step=") as caught:
        plan_batch(config, 24)
    tokens = int(caught.value.message.rpartition("tokens_per_step=")[2].split()[0])
    assert plan_batch(config.model_copy(update={"tokens_per_step": tokens}), 24).tokens == tokens
    assert plan_batch(config, 18).sequences == 36


def test_fields_can_be_given_as_text() -> None:
    config = read_training("vicuna-7b", {"epochs": "1", "packing": "false", "lora_targets": "q_proj, k_proj"})
    assert (config.epochs, config.packing, config.lora_targets) == (1.0, False, ("q_proj", "k_proj"))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("learning_rate", "fast", "learning_rate='fast'"),
        ("seq_len", "0", "seq_len='0'"),
        ("template", "chatgpt", "known: vicuna-v1.1"),
        ("epoch", "1", "did you mean epochs"),
        ("tokens_per_step", "100", "less than one sequence"),
        ("learning_rate", "nan", "learning_rate='nan'"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^vicuna-7b: .*{said}") as caught:
        read_training("vicuna-7b", {field: value})
    assert caught.value.field == {"tokens_per_step": "seq_len"}.get(field, field)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lr", "learning_rate"),
        ("batch_size", "tokens_per_step"),
        ("per_device_train_batch_size", "per_device_tokens"),
        ("max_seq_length", "seq_len"),
        ("num_train_epochs", "epochs"),
        ("lora_rank", "lora_r"),
        ("merge_lora", "save"),
        ("target_modules", "lora_targets"),
        ("model_name_or_path", "model"),
        ("learning-rate", "learning_rate"),
        ("learnig_rate", "learning_rate"),
    ],
)
def test_a_field_by_the_name_that_other_programs_give_it_is_understood(given: str, meant: str) -> None:
    """`lr` was told as `lora_r`, and `batch_size` as `max_steps`: the nearest letters."""
    with pytest.raises(ConfigurationError, match=rf"unknown field '{given}'; did you mean {meant}\?"):
        read_training("vicuna-7b", {given: "1"})


def test_a_field_that_is_near_to_none_names_all() -> None:
    with pytest.raises(ConfigurationError, match="the fields are name, model, template"):
        read_training("vicuna-7b", {"quux": "1"})


def test_a_configuration_without_later_fields_is_one_that_older_builds_read() -> None:
    later = {"packing", "learn", "eval_files", "max_refused", "objective", "kto_beta", "desirable_weight"}
    assert not (later | {"undesirable_weight", "save"}) & set(read_training("vicuna-7b").model_dump())
    chosen = read_training("vicuna-7b", {"learn": "last", "packing": "true"})
    assert (chosen.model_dump()["learn"], chosen.packing) == ("last", True)


def test_a_training_of_an_adapter_leaves_it_beside_the_merged_model_unless_told_otherwise() -> None:
    assert read_training("vicuna-7b").results == ("model",)
    assert read_training("vicuna-7b", {"method": "lora"}).results == ("adapter", "model")
    assert read_training("vicuna-7b", {"method": "lora", "save": "merged"}).results == ("model",)
    assert read_training("vicuna-7b", {"method": "qlora", "save": "adapter"}).results == ("adapter",)
    with pytest.raises(ConfigurationError, match="save='adapter': method=full trains all weights and makes no adapter"):
        read_training("vicuna-7b", {"save": "adapter"})


def test_only_a_whole_model_is_exported() -> None:
    assert read_training("vicuna-7b").export == "none"
    assert "export" not in read_training("vicuna-7b").model_dump()  # an older program refuses the field
    with pytest.raises(ConfigurationError, match="export='q8_0': save=adapter leaves no model to export"):
        read_training("vicuna-7b", {"method": "lora", "save": "adapter", "export": "q8_0"})


@pytest.mark.parametrize("field", ["keep_best", "early_stopping"])
def test_what_compares_evaluations_needs_one(field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field} compares evaluations, and nothing is evaluated"):
        read_training("vicuna-7b", {field: "1"})
    assert read_training("vicuna-7b", {field: "1", "eval_fraction": "0.1"})


@pytest.mark.parametrize("objective", ["answers", "dpo", "kto"])
def test_the_switch_for_thinking_is_a_word_of_the_command_line_for_each_objective(objective: str) -> None:
    fields = {"objective": objective, "tokens_per_step": "65536"}
    found = [read_training("vicuna-7b", {"thinking": word, **fields}).thinking for word in ("false", "true")]
    assert found == [False, True]
    assert "thinking" not in read_training("vicuna-7b").model_dump()  # an older program refuses the field
    with pytest.raises(ConfigurationError, match="did you mean thinking"):
        read_training("vicuna-7b", {"enable_thinking": "false"})


def test_each_objective_has_a_preset_for_this_machine() -> None:
    """Who has pairs or ratings began with an empty file."""
    names = {"answers": "smollm2-135m", "dpo": "smollm2-135m-dpo", "kto": "smollm2-135m-kto"}
    assert {objective: read_training(name).objective for objective, name in names.items()} == {
        objective: objective for objective in names
    }
    steps = {name: plan_batch(read_training(name), 1).sequences for name in names.values()}
    assert steps == {"smollm2-135m": 2, "smollm2-135m-dpo": 8, "smollm2-135m-kto": 16}


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match="alpaca-7b, smollm2-135m, smollm2-135m-dpo, smollm2-135m-kto, vicuna-13b"
    ):
        read_training("vicuna-8b")


def test_a_configuration_survives_its_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = read_training("alpaca-7b", {"method": "lora"})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert read_training(str(tmp_path / "config.yaml")) == config


def test_an_event_is_found_in_a_line_that_others_have_prefixed() -> None:
    line = "(task, pid=12) " + event_line("step", step=3, loss=0.25)
    assert parse_event(line) == {"event": "step", "step": 3, "loss": 0.25}


@pytest.mark.parametrize("line", ["step 3", "::train {", "::train [1]", "::train {}", ""])
def test_other_lines_are_no_events(line: str) -> None:
    assert parse_event(line) is None
