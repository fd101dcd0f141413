"""Training on pairs of answers: which records are pairs, what is learnt of them, and what the program does."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.training import preferences
from pipelines.training.data import Prepared
from pipelines.training.judged import EMPTY, LONG_PROMPT, Unusable
from pipelines.training.preferences import lines_of_pairs, prepare_pairs, read_pair
from pipelines.training.reporting import Aborted
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig, checked_training
from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from tests.pipelines.training.runs import Material, Run, finished, start, torchrun
from tests.services.tokens.test_families import CHATML, QWEN3, text
from tests.services.tokens.test_tool_turns import CLOCK, OBJECTS, reference

ASK = {"role": "user", "content": "Which is better?"}
GOOD, BAD = {"role": "assistant", "content": "This one."}, {"role": "assistant", "content": "That one, perhaps."}
SHAPES: dict[str, dict[str, Any]] = {
    "texts": {"prompt": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
    "messages": {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
    "whole conversations": {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "whole conversations beside the prompt's text": {
        "prompt": ASK["content"],
        "chosen": [ASK, GOOD],
        "rejected": [ASK, BAD],
    },
    "OpenAI's": {"input": {"messages": [ASK]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
}


def configured(**fields: Any) -> TrainingConfig:
    about = {"name": "tiny", "model": "smollm2-135m", "objective": "dpo", "seq_len": 128, "tokens_per_step": 512}
    return checked_training({**about, **fields})


def prepared(folder: Path, tokenizer: ChatTokenizer, records: list[Any], **fields: Any) -> Prepared:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return prepare_pairs([path], tokenizer, configured(**fields), folder)


def rows_of(found: Prepared) -> list[dict[str, list[int]]]:
    from datasets import load_from_disk

    return list(load_from_disk(str(found.folder / "train")))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_in_use_is_the_same_pair(shape: str) -> None:
    pair = read_pair(SHAPES[shape])
    assert pair.prompt == (Message("user", "Which is better?"),)
    assert (pair.chosen.content, pair.rejected.content) == ("This one.", "That one, perhaps.")


def test_the_rounds_before_the_last_question_are_part_of_the_prompt() -> None:
    earlier = [{"role": "system", "content": "Be brief."}, ASK, GOOD]
    pair = read_pair({"chosen": [*earlier, ASK, GOOD], "rejected": [*earlier, ASK, BAD]})
    assert [message.role for message in pair.prompt] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        (preferences.EQUAL, {"prompt": "Hello", "chosen": "Hi.", "rejected": "Hi."}),
        (EMPTY, {"prompt": "Hello", "chosen": "Hi.", "rejected": []}),
        (EMPTY, {"prompt": "Hello", "chosen": " ", "rejected": "Hi."}),
        (preferences.SHAPE, {"prompt": "Hello", "completion": "Hi.", "label": True, "chosen": 1, "rejected": 2}),
        (preferences.SHAPE, {"chosen": [ASK, GOOD], "rejected": [{"role": "user", "content": "Else?"}, BAD]}),
        (preferences.SHAPE, {"prompt": [ASK], "chosen": [GOOD], "rejected": [ASK]}),
        (preferences.SHAPE, {"chosen": [GOOD], "rejected": [BAD]}),
        (preferences.SHAPE, [ASK]),
    ],
)
def test_a_record_without_two_answers_to_one_prompt_has_its_reason(reason: str, record: Any) -> None:
    with pytest.raises(Unusable) as caught:
        read_pair(record)
    assert caught.value.reason == reason


def test_prompt_and_answers_are_the_tokens_of_serving_and_of_supervised_training(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    (row,) = rows_of(prepared(tmp_path, tokenizer, [SHAPES["texts"]]))
    ask = [Message("user", "Which is better?")]
    assert row["prompt_ids"] == tokenizer.render(ask)
    for column, said in (("chosen_ids", "This one."), ("rejected_ids", "That one, perhaps.")):
        whole = tokenizer.supervised([*ask, Message("assistant", said)])
        assert row[column] == [token for token, learnt in zip(whole.ids, whole.mask, strict=True) if learnt]


def test_a_pair_that_the_cut_makes_equal_or_leaves_no_room_for_is_counted_and_dropped(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    same = "word " * 200
    records = [
        SHAPES["texts"],
        {"prompt": "Hello", "chosen": same + "a", "rejected": same + "b"},
        {"prompt": "word " * 200, "chosen": "a", "rejected": "b"},
    ]
    found = prepared(tmp_path, tokenizer, records, max_refused=1)
    assert found.counts.refused == {preferences.EQUAL_WHEN_CUT: 1, LONG_PROMPT: 1}
    assert len(rows_of(found)) == found.num_sequences == 1


def test_too_many_records_that_are_no_pairs_abort_with_their_places(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(Aborted, match=r"pairs\.jsonl:2: the two answers are equal; 1 of 2 records \(50.0%\) cannot be"):
        prepared(tmp_path, tokenizer, [SHAPES["texts"], {"prompt": "Hello", "chosen": "Hi.", "rejected": "Hi."}])


def test_data_of_conversations_is_refused_with_the_shape_that_is_wanted(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no pair of answers.*give records with chosen and rejected"):
        prepared(tmp_path, tokenizer, [{"messages": [ASK, GOOD]}])


def test_a_step_holds_at_least_one_pair() -> None:
    with pytest.raises(ConfigurationError, match="less than one pair of answers, twice seq_len=128"):
        configured(tokens_per_step=200)


# -- tools and reasoning ---------------------------------------------------------------------------------------------

LOOK = {"role": "user", "content": "What time is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"city": "Bonn"}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
NOON, LATE = {"role": "assistant", "content": "It is noon."}, {"role": "assistant", "content": "Late."}
WITH_TOOLS: dict[str, dict[str, Any]] = {
    "a prompt with a call and its result": {"prompt": [LOOK, CALLS, RESULT], "chosen": [NOON], "rejected": [LATE]},
    "answers that begin with the same call": {
        "prompt": [LOOK], "chosen": [CALLS, RESULT, NOON], "rejected": [CALLS, RESULT, LATE],
    },
    "whole conversations": {"chosen": [LOOK, CALLS, RESULT, NOON], "rejected": [LOOK, CALLS, RESULT, LATE]},
    "OpenAI's": {
        "input": {"messages": [LOOK, CALLS, RESULT], "tools": [CLOCK]},
        "preferred_output": [NOON], "non_preferred_output": [LATE],
    },
}  # fmt: skip


def serving(own: str) -> ChatTokenizer:
    return ChatTokenizer(reference(own))


def only_row(folder: Path, chat: ChatTokenizer, record: dict[str, Any], **fields: Any) -> dict[str, str]:
    (row,) = rows_of(prepared(folder, chat, [record], seq_len=600, tokens_per_step=2400, **fields))
    return {name: text(chat, ids) for name, ids in row.items() if name.endswith("_ids")}


@pytest.mark.parametrize("shape", WITH_TOOLS)
def test_the_prompt_of_a_pair_has_its_tools_calls_and_results_as_serving_renders_them(
    tmp_path: Path, shape: str
) -> None:
    """They were dropped, or the record was: the model learnt to answer without having looked."""
    chat = serving(OBJECTS)
    row = only_row(tmp_path, chat, {"tools": [CLOCK], **WITH_TOOLS[shape]})
    call = CallMessage("assistant", "", calls=(ToolCall("clock", {"city": "Bonn"}, "c1"),))
    result = ResultMessage(cast(Any, "tool"), "12:00", call="c1")
    served = chat.render([Message("user", "What time is it?"), call, result], tools=[CLOCK])
    assert row["prompt_ids"] == text(chat, served)
    assert '<call>clock {"city": "Bonn"}</call>' in row["prompt_ids"] and "12:00" in row["prompt_ids"]
    assert (row["chosen_ids"], row["rejected_ids"]) == ("It is noon.<|im_end|>", "Late.<|im_end|>")


def test_a_call_can_be_what_is_preferred(tmp_path: Path) -> None:
    record = {"prompt": [LOOK], "chosen": [CALLS], "rejected": [LATE], "tools": json.dumps([CLOCK])}
    row = only_row(tmp_path, serving(OBJECTS), record)
    assert row["chosen_ids"] == '<call>clock {"city": "Bonn"}</call><|im_end|>'


def test_tools_for_which_the_template_has_no_place_refuse_a_pair_with_that_reason(tmp_path: Path) -> None:
    plain = {"prompt": "Hello", "chosen": "Hi.", "rejected": "No."}
    records = [plain, {**plain, "tools": [CLOCK]}, {**plain, "tools": "clock"}]
    found = prepared(tmp_path, serving(CHATML), records, max_refused=1)
    assert found.counts.refused == {"no_place_for_tools": 1, "bad_shape": 1}
    assert "no place for the tools' definitions" in found.counts.told[0]
    assert "tools is 'clock', which is no JSON" in found.counts.told[1]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_the_reasoning_of_both_answers_is_compared(tmp_path: Path, name: str) -> None:
    """The two answers say the same; one thought better. Such pairs were refused as equal."""
    record = {"prompt": [LOOK], "chosen": [{**NOON, name: "Twelve."}], "rejected": [{**NOON, name: "Hm."}]}
    row = only_row(tmp_path, serving(QWEN3), record)
    assert row["chosen_ids"] == "<think>\nTwelve.\n</think>\n\nIt is noon.<|im_end|>"
    assert row["rejected_ids"] == "<think>\nHm.\n</think>\n\nIt is noon.<|im_end|>"


def test_answers_that_differ_only_in_what_the_template_leaves_out_are_equal(tmp_path: Path) -> None:
    record = {"prompt": [LOOK], "chosen": [{**NOON, "reasoning": "Twelve."}], "rejected": [NOON]}
    different = {"prompt": [LOOK], "chosen": [{**NOON, "reasoning": "Twelve."}], "rejected": [LATE], "images": [1]}
    found = prepared(tmp_path, serving(CHATML), [record, different], max_refused=1)
    assert found.counts.refused == {preferences.EQUAL: 1}
    assert found.counts.left_out == {"reasoning": 1}
    assert found.counts.unused == {"images": 1}
    told = "\n".join(lines_of_pairs(found.counts, configured()))
    assert "1 records have reasoning for which the chat template has no place" in told
    assert "1 records have images, which changes nothing here." in told


def test_the_switch_for_thinking_sets_the_prompt_of_a_pair(tmp_path: Path) -> None:
    chat = serving(QWEN3)
    record = {"prompt": [LOOK], "chosen": [{**NOON, "reasoning": "Twelve."}], "rejected": [LATE]}
    row = only_row(tmp_path, chat, record, thinking=False)
    served = chat.render([Message("user", "What time is it?")], thinking=False)
    assert row == {
        "prompt_ids": text(chat, served), "chosen_ids": "It is noon.<|im_end|>", "rejected_ids": "Late.<|im_end|>",
    }  # fmt: skip


# -- the program --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pairs(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Material:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    with path.open("w") as file:
        for index in range(24):
            prompt = f"What is {index} plus {index}?"
            answers = {"chosen": f"{2 * index}." + " Indeed." * (index % 4), "rejected": "I do not know."}
            file.write(json.dumps({"prompt": prompt, **answers}) + "\n")
    return Material(material.base, path, material.config)


WAYS = {
    "full": ("objective=dpo", "epochs=2", "tokens_per_step=1024", "eval_fraction=0.2", "learning_rate=0.001"),
    "lora": (
        "objective=dpo",
        "epochs=4",
        "tokens_per_step=1024",
        "eval_fraction=0.2",
        "learning_rate=0.01",
        "method=lora",
    ),
}


@pytest.fixture(scope="session", params=[pytest.param("full", marks=pytest.mark.slow), "lora"])
def preferred(
    request: pytest.FixtureRequest, pairs: Material, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Run, Path]:
    out = tmp_path_factory.mktemp(f"preferred-{request.param}")
    return request.param, finished(pairs, out, *WAYS[request.param]), out


@pytest.mark.timeout(600)
def test_the_reference_is_the_model_that_it_began_with_and_the_margin_grows(preferred: tuple[str, Run, Path]) -> None:
    """The first loss is ln 2: nothing is preferred yet. A reference read from elsewhere gives another."""
    _, run, _ = preferred
    steps = run.events("step")
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert steps[0]["margin"] == 0
    assert steps[0]["grad_norm"] > 0, "no weight is frozen that shall learn"
    assert steps[-1]["loss"] < 0.9 * steps[0]["loss"]
    assert steps[-1]["margin"] > steps[0]["margin"]
    (evaluation,) = run.events("eval")
    assert {"loss", "margin", "accuracy"} <= set(evaluation)


@pytest.mark.timeout(600)
def test_the_saved_model_prefers_what_was_chosen_more_than_its_base_does(
    preferred: tuple[str, Run, Path], pairs: Material
) -> None:
    _, _, out = preferred
    assert _margin(out / "model", pairs) > _margin(pairs.base, pairs) + 0.5


@pytest.mark.timeout(600)
@pytest.mark.parametrize("preferred", ["lora"], indirect=True)
def test_sigterm_saves_and_the_next_start_ends_with_the_same_losses(
    preferred: tuple[str, Run, Path], pairs: Material, tmp_path: Path
) -> None:
    """TRL alone begins a resumed adapter from its old weights."""
    way, whole, _ = preferred
    first = start(pairs, tmp_path, *WAYS[way])
    first.until(lambda event: event["event"] == "step" and event["step"] == 3)
    first.terminate()
    assert first.end() == 33, first.text
    second = finished(pairs, tmp_path, *WAYS[way])
    assert {**first.losses(), **second.losses()} == pytest.approx(whole.losses(), abs=1e-5)


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("preferred", ["lora"], indirect=True)
def test_losses_and_evaluations_do_not_depend_on_how_many_pairs_a_device_takes_at_once(
    preferred: tuple[str, Run, Path], pairs: Material, tmp_path: Path
) -> None:
    """TRL's margin of an evaluation is a mean of the batches' means."""
    way, one, _ = preferred
    four = finished(pairs, tmp_path, *WAYS[way], "per_device_tokens=1024")
    assert [run.events("plan")[0]["per_device"] for run in (one, four)] == [1, 4]
    assert four.losses() == pytest.approx(one.losses(), abs=1e-4)
    for name in ("loss", "margin", "accuracy"):
        told = [[event[name] for event in run.events("eval")] for run in (four, one)]
        assert told[0] == pytest.approx(told[1], abs=2e-3), name


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_two_processes_learn_all_weights_from_pairs_as_one_does(pairs: Material, tmp_path: Path) -> None:
    """FSDP spreads the weights. The first loss is ln 2: the reference is the model that it began with. (An epoch ends
    with a step that two processes fill up with pairs of its beginning, so this one is shorter.)"""
    settings = (*WAYS["full"], "max_steps=4")
    alone = finished(pairs, tmp_path / "alone", *settings)
    together = finished(pairs, tmp_path / "together", *settings, launcher=torchrun(2))
    assert together.events("plan")[0]["world_size"] == 2
    assert together.events("step")[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert together.losses() == pytest.approx(alone.losses(), abs=1e-4)
    assert _margin(tmp_path / "together" / "model", pairs) == pytest.approx(
        _margin(tmp_path / "alone" / "model", pairs), abs=1e-2
    )


def _margin(folder: Path, pairs: Material) -> float:
    """The mean over all pairs of log p(chosen) - log p(rejected), in nats, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(resolve(str(folder)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def log_probability(prompt: tuple[Message, ...], answer: Message) -> float:
        found = tokenizer.supervised([*prompt, answer])
        with torch.no_grad():
            log_probabilities = model(torch.tensor([found.ids])).logits[0].log_softmax(-1)
        learnt = [index for index, flag in enumerate(found.mask) if flag]
        return sum(float(log_probabilities[index - 1, found.ids[index]]) for index in learnt)

    read = [read_pair(json.loads(line)) for line in pairs.data.read_text().splitlines()]
    return sum(log_probability(p.prompt, p.chosen) - log_probability(p.prompt, p.rejected) for p in read) / len(read)
