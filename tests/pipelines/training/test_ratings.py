"""Training on answers that are rated good or bad: which records are, what is learnt of them, what the program does."""

import json
import math
import re
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training import judged, ratings
from pipelines.training.data import Counts, Prepared
from pipelines.training.judged import Unusable
from pipelines.training.ratings import Rated, check_ratings, lines_of_ratings, nearest_others, read_ratings
from pipelines.training.reporting import Aborted
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig, checked_training
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from tests.pipelines.training.runs import Material, Run, finished, start, torchrun
from tests.services.tokens.test_families import QWEN3, text
from tests.services.tokens.test_tool_turns import CLOCK, OBJECTS, reference

ASK = {"role": "user", "content": "Which is better?"}
GOOD, BAD = {"role": "assistant", "content": "This one."}, {"role": "assistant", "content": "That one, perhaps."}
PROMPT = (Message("user", "Which is better?"),)
BOTH = [
    {"prompt": "Which is better?", "completion": "This one.", "label": True},
    {"prompt": "And now?", "completion": "No idea.", "label": False},
]
SHAPES: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "Which is better?", "completion": "This one.", "label": True},
    "messages": {"prompt": [ASK], "completion": [GOOD], "label": True},
    "a number for a label": {"prompt": [ASK], "completion": [GOOD], "label": 1},
    "a column of pairs that is empty": {**BOTH[0], "chosen": None, "rejected": None},
    "a conversation with a label": {"messages": [ASK, GOOD], "label": True},
    "an answer with a label": {"messages": [ASK, {**GOOD, "label": True}]},
    "ShareGPT's": {
        "conversations": [
            {"from": "human", "value": "Which is better?"},
            {"from": "gpt", "value": "This one.", "label": True},
        ]
    },
    "what a cleaning wrote of it": {
        "id": "a",
        "conversations": [{"from": "human", "value": "Which is better?"}, {"from": "gpt", "value": "This one."}],
        "source": {"file": "a.jsonl", "line": 1},
        "extra": {"turn_keys": [{}, {"label": True}]},
    },
}


def configured(**fields: Any) -> TrainingConfig:
    about = {"name": "tiny", "model": "smollm2-135m", "objective": "kto", "seq_len": 128, "tokens_per_step": 512}
    return checked_training({**about, **fields})


def prepared(folder: Path, tokenizer: ChatTokenizer, records: list[Any], **fields: Any) -> Prepared:
    path = folder / "ratings.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return ratings.prepare_ratings([path], tokenizer, configured(**fields), folder)


def rows_of(found: Prepared, part: str = "train") -> list[dict[str, Any]]:
    from datasets import load_from_disk

    return list(load_from_disk(str(found.folder / part)))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_in_use_is_the_same_rated_answer(shape: str) -> None:
    assert read_ratings(SHAPES[shape]) == [Rated(PROMPT, Message("assistant", "This one."), good=True)]


def test_each_answer_with_a_label_is_rated_behind_the_rounds_before_it() -> None:
    turns = [ASK, {**BAD, "label": False}, ASK, BAD, ASK, {**GOOD, "label": True}]
    first, second = read_ratings({"messages": turns})
    assert (first.prompt, first.answer.content, first.good) == (PROMPT, "That one, perhaps.", False)
    assert [message.role for message in second.prompt] == ["user", "assistant"] * 2 + ["user"]
    assert second.good


def test_of_a_pair_the_chosen_answer_is_good_and_the_rejected_one_bad() -> None:
    found = read_ratings({"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]})
    assert found == [
        Rated(PROMPT, Message("assistant", "This one."), good=True),
        Rated(PROMPT, Message("assistant", "That one, perhaps."), good=False),
    ]


@pytest.mark.parametrize(
    ("reason", "record"),
    [
        (judged.EMPTY, {"prompt": "Hello", "completion": " ", "label": True}),
        (judged.EMPTY, {"prompt": "Hello", "completion": [], "label": True}),
        (ratings.LABEL, {"prompt": "Hello", "completion": "Hi."}),
        (ratings.LABEL, {"prompt": "Hello", "completion": "Hi.", "label": "good"}),
        (ratings.LABEL, {"messages": [ASK, {**GOOD, "label": 0.5}]}),
        (ratings.SHAPE, {"messages": [ASK, GOOD]}),
        (ratings.SHAPE, {"messages": [{**ASK, "label": True}, GOOD]}),
        (ratings.SHAPE, {"messages": [GOOD], "label": True}),
        (ratings.SHAPE, {"completion": "Hi.", "label": True}),
        (ratings.SHAPE, [ASK]),
        ("plain_text", {"text": "Hello", "label": True}),
        (ratings.LOST_LABEL, {"messages": [ASK, GOOD], "extra": {"turn_keys": [{}, {}, {}, {"label": True}]},
                              "source": {"file": "a", "line": 1}}),
    ],
)  # fmt: skip
def test_a_record_without_a_rated_answer_has_its_reason(reason: str, record: Any) -> None:
    with pytest.raises(Unusable) as caught:
        read_ratings(record)
    assert caught.value.reason == reason


def test_prompt_and_answer_are_the_tokens_of_serving_and_of_supervised_training(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    found = rows_of(prepared(tmp_path, tokenizer, BOTH))
    (row,) = (row for row in found if row["label"])
    ask = list(PROMPT)
    assert row["prompt_ids"] == tokenizer.render(ask)
    whole = tokenizer.supervised([*ask, Message("assistant", "This one.")])
    assert row["completion_ids"] == [token for token, learnt in zip(whole.ids, whole.mask, strict=True) if learnt]


LOOK = {"role": "user", "content": "What time is it?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": {"city": "Bonn"}}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I must look."}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12:00"}
NOON = {"role": "assistant", "content": "It is noon."}


def test_calls_and_answers_behind_results_are_rated_as_serving_renders_them(tmp_path: Path) -> None:
    """A call was refused as `tool_calls`, and the tools were dropped from the prompt."""
    chat = ChatTokenizer(reference(OBJECTS))
    turns = [LOOK, {**CALLS, "label": True}, RESULT, {**NOON, "label": False}]
    records = [
        {"messages": turns, "tools": [CLOCK]},
        {"prompt": [{**LOOK, "content": "And now?"}, CALLS, RESULT], "completion": [NOON], "label": True,
         "tools": [CLOCK]},
    ]  # fmt: skip
    found = prepared(tmp_path, chat, records, seq_len=600, tokens_per_step=2400)
    rows = [{name: text(chat, row[name]) for name in ("prompt_ids", "completion_ids")} for row in rows_of(found)]
    call = CallMessage("assistant", "", calls=(ToolCall("clock", {"city": "Bonn"}, "c1"),))
    result = ResultMessage(cast(Any, "tool"), "12:00", call="c1")
    told = Message("user", "What time is it?"), Message("user", "And now?")
    served = [[told[0]], [told[0], call, result], [told[1], call, result]]
    answers = ['<call>clock {"city": "Bonn"}</call><|im_end|>', *["It is noon.<|im_end|>"] * 2]
    expected = [
        {"prompt_ids": text(chat, chat.render(prompt, tools=[CLOCK])), "completion_ids": answer}
        for prompt, answer in zip(served, answers, strict=True)
    ]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert found.counts.left_out == {"reasoning": 2}, "both records have it, and this template writes none"


def test_the_reasoning_of_a_rated_answer_is_rated(tmp_path: Path) -> None:
    chat = ChatTokenizer(reference(QWEN3))
    turns = [LOOK, {**NOON, "thinking": "Twelve.", "label": True}, LOOK, {**NOON, "thinking": "Hm.", "label": False}]
    rows = rows_of(prepared(tmp_path, chat, [{"messages": turns}], seq_len=600, tokens_per_step=2400))
    assert {row["label"]: text(chat, row["completion_ids"]) for row in rows} == {
        True: "<think>\nTwelve.\n</think>\n\nIt is noon.<|im_end|>",
        False: "<think>\nHm.\n</think>\n\nIt is noon.<|im_end|>",
    }


def test_a_rated_record_whose_tools_have_no_place_is_counted_with_that_reason(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    found = prepared(tmp_path, tokenizer, [*BOTH, {**BOTH[0], "tools": [CLOCK]}], max_refused=1)
    assert found.counts.refused == {"no_place_for_tools": 1}
    assert "choose a model whose template writes them" in found.counts.told[0]


def test_a_prompt_that_leaves_no_room_is_counted_and_a_long_answer_cut(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    long = "word " * 200
    records = [*BOTH, {**BOTH[0], "prompt": long}, {**BOTH[1], "completion": long}]
    found = prepared(tmp_path, tokenizer, records, max_refused=1)
    assert found.counts.refused == {judged.LONG_PROMPT: 1}
    assert found.counts.truncated == 1
    rows = rows_of(found)
    assert len(rows) == found.num_sequences == 3
    assert max(len(row["prompt_ids"]) + len(row["completion_ids"]) for row in rows) == 128


def test_too_many_records_without_a_rating_abort_with_their_places(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(Aborted, match=r"ratings\.jsonl:3: neither the record nor an answer in it has a label; 1 of 3"):
        prepared(tmp_path, tokenizer, [*BOTH, {"messages": [ASK, GOOD]}])


def test_data_of_conversations_is_refused_with_the_shape_that_is_wanted(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no rated answer.*prompt, completion and label"):
        prepared(tmp_path, tokenizer, [{"messages": [ASK, GOOD]}])


@pytest.mark.parametrize(("label", "word"), [(True, "good"), (False, "bad")])
def test_answers_of_one_kind_are_refused_by_its_name(
    tmp_path: Path, tokenizer: ChatTokenizer, label: bool, word: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"all 2 answers to train on are {word}.*objective=answers"):
        prepared(tmp_path, tokenizer, [{**record, "label": label} for record in BOTH])


def test_answers_to_one_prompt_are_refused(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="all answers to train on have one prompt"):
        prepared(tmp_path, tokenizer, [{**record, "prompt": "Hello"} for record in BOTH])


def test_a_step_holds_at_least_the_two_answers_of_a_divergence() -> None:
    with pytest.raises(ConfigurationError, match="less than the two rated answers that its KL term needs, twice"):
        configured(tokens_per_step=200)
    assert configured(tokens_per_step=256, per_device_tokens=128)


@pytest.mark.parametrize(
    ("good", "bad", "fields", "said"),
    [
        (40, 40, {}, "weigh 1.00 times as much as all bad ones; KTO's authors advise 1 to 1.33."),
        (40, 30, {}, "weigh 1.33 times as much as all bad ones; KTO's authors advise 1 to 1.33."),
        (10, 40, {}, "weigh 0.25 times .* set desirable_weight between 4 and 5.33"),
        (40, 10, {}, "weigh 4.00 times .* set undesirable_weight between 3 and 4"),
        (40, 10, {"undesirable_weight": 3}, "weigh 1.33 times as much as all bad ones; KTO's authors advise 1 to"),
    ],
)
def test_how_the_two_kinds_weigh_is_said_with_the_weight_that_would_balance_them(
    good: int, bad: int, fields: dict[str, Any], said: str
) -> None:
    text = " ".join(lines_of_ratings(Counts(examples=good + bad, good=good, bad=bad), configured(**fields)))
    assert re.search(said, text)


def test_a_step_of_few_answers_is_told_with_the_tokens_that_it_needs() -> None:
    few, enough = (" ".join(lines_of_ratings(Counts(), configured(tokens_per_step=num))) for num in (512, 2048))
    assert "A step has 4 answers" in few
    assert "raise tokens_per_step to 2,048" in few
    assert "A step has" not in enough


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30).filter(lambda prompts: len(set(prompts)) > 1))
def test_the_answer_beside_each_prompt_is_the_nearest_before_it_to_another(prompts: list[int]) -> None:
    for number, other in enumerate(nearest_others(prompts)):
        between = [prompts[(number - step) % len(prompts)] for step in range((number - other) % len(prompts))]
        assert prompts[other] != prompts[number]
        assert set(between) == {prompts[number]}


def test_each_row_brings_an_answer_to_another_prompt(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    records = [{**BOTH[index % 2], "prompt": f"Question {index // 3}"} for index in range(12)]
    rows = rows_of(prepared(tmp_path, tokenizer, records))
    owners = {(tuple(row["prompt_ids"]), tuple(row["completion_ids"])) for row in rows}
    for row in rows:
        assert any(answer == tuple(row["KL_completion_ids"]) for prompt, answer in owners
                   if prompt != tuple(row["prompt_ids"]))  # fmt: skip


def test_all_answers_to_a_prompt_fall_on_one_side_and_an_evaluation_of_one_prompt_is_refused(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    records = [{**BOTH[index % 2], "prompt": f"Question {index // 2}"} for index in range(40)]
    found = prepared(tmp_path, tokenizer, records, eval_fraction=0.3)
    sides = [{tuple(row["prompt_ids"]) for row in rows_of(found, part)} for part in ("train", "eval")]
    assert not sides[0] & sides[1]
    assert (found.counts.prompts, found.counts.evaluated_prompts) == tuple(map(len, sides))
    with pytest.raises(ConfigurationError, match="all answers of the evaluation have one prompt"):
        check_ratings(Counts(records=9, examples=9, evaluated=1, prompts=4, evaluated_prompts=1, good=4, bad=4),
                      configured())  # fmt: skip


# -- the program --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rated(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Material:
    path = tmp_path_factory.mktemp("rated") / "rated.jsonl"
    with path.open("w") as file:
        for index in range(27):
            good = index % 3 != 1
            answer = f"{2 * index}." + " Indeed." * (index % 4) if good else "I do not know."
            record = {"prompt": f"What is {index} plus {index}?", "completion": answer, "label": good}
            file.write(json.dumps(record) + "\n")
    return Material(material.base, path, material.config)


COMMON = ("objective=kto", "tokens_per_step=1024", "eval_fraction=0.3", "kto_beta=0.5")
WAYS = {
    "full": (*COMMON, "epochs=4", "learning_rate=0.002", "eval_steps=3", "undesirable_weight=1.5"),
    "lora": (*COMMON, "epochs=4", "learning_rate=0.02", "method=lora"),
}
FIRST_LOSS = {"full": lambda good, bad: (good + 1.5 * bad) / (2 * (good + bad)), "lora": lambda good, bad: 0.5}


@pytest.fixture(scope="session", params=["full", pytest.param("lora", marks=pytest.mark.slow)])
def learnt(
    request: pytest.FixtureRequest, rated: Material, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Run, Path]:
    """A device takes one answer at a time: TRL refuses that."""
    out = tmp_path_factory.mktemp(f"rated-{request.param}")
    return request.param, finished(rated, out, *WAYS[request.param]), out


@pytest.mark.timeout(600)
def test_the_reference_is_the_model_that_it_began_with_and_good_and_bad_part(
    learnt: tuple[str, Run, Path], rated: Material, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    """The first loss is half the weight of a step's answers: nothing is better yet than it was."""
    way, run, _ = learnt
    steps = run.events("step")
    labels = [row["label"] for row in _rows_as_trained(rated, WAYS[way], tokenizer, tmp_path, "train")[:8]]
    first = FIRST_LOSS[way](labels.count(True), labels.count(False))
    assert steps[0]["loss"] == pytest.approx(first, abs=1e-4)
    assert (steps[0]["margin"], steps[0]["kl"]) == (0, pytest.approx(0, abs=1e-3))
    last = [step for step in steps if "margin" in step][-1]  # a step of one kind of answers has none
    assert last["margin"] > 0.2
    assert last["margin"] == pytest.approx(last["chosen_reward"] - last["rejected_reward"], abs=2e-4)
    assert {"loss", "margin", "kl"} <= set(run.events("eval")[-1])


@pytest.mark.timeout(600)
def test_the_last_evaluation_is_what_the_saved_model_gives_by_the_papers_equation(
    learnt: tuple[str, Run, Path], rated: Material, tokenizer: ChatTokenizer, tmp_path: Path
) -> None:
    way, run, out = learnt
    rows = _rows_as_trained(rated, WAYS[way], tokenizer, tmp_path, "eval")
    weight = 1.5 if way == "full" else 1.0
    loss, margin, divergence = _by_the_paper(rated.base, out / "model", rows, beta=0.5, undesirable_weight=weight)
    told = run.events("eval")[-1]
    assert told["loss"] == pytest.approx(loss, rel=1e-4)
    assert told["margin"] == pytest.approx(margin, abs=1e-3)
    assert told["kl"] == pytest.approx(divergence, abs=1e-3)
    assert margin > 0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("learnt", ["full"], indirect=True)
def test_a_run_that_goes_on_with_more_answers_at_once_has_the_same_losses_and_evaluations(
    learnt: tuple[str, Run, Path], rated: Material, tmp_path: Path
) -> None:
    """TRL measures the divergence in the batch of a device, so two at once would have other losses than one."""
    way, whole, _ = learnt
    first = start(rated, tmp_path, *WAYS[way])
    first.until(lambda event: event["event"] == "step" and event["step"] == 4)
    first.terminate()
    assert first.end() == 33, first.text
    second = finished(rated, tmp_path, *WAYS[way], "per_device_tokens=256")
    assert [plan["per_device"] for run in (first, second) for plan in run.events("plan")] == [1, 2]
    assert {**first.losses(), **second.losses()} == pytest.approx(whole.losses(), abs=1e-4)
    (stopped,) = (event["step"] for event in second.events("resumed"))
    for name in ("loss", "margin", "kl"):
        after = [{event["step"]: event[name] for event in run.events("eval")} for run in (second, whole)]
        assert after[0] == pytest.approx({step: value for step, value in after[1].items() if step > stopped}, abs=2e-3)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_two_processes_learn_all_weights_from_ratings_as_one_does(rated: Material, tmp_path: Path) -> None:
    """FSDP spreads the weights; the divergence is one mean over the answers of both processes. (An epoch ends with a
    step that two processes fill up with answers of its beginning, so this one is shorter.)"""
    settings = (*WAYS["full"], "tokens_per_step=512", "max_steps=4")
    alone = finished(rated, tmp_path / "alone", *settings)
    together = finished(rated, tmp_path / "together", *settings, launcher=torchrun(2))
    assert together.events("plan")[0]["world_size"] == 2
    assert together.losses() == pytest.approx(alone.losses(), abs=1e-4)
    assert len(set(together.losses().values())) == 4, "it learns"


def _rows_as_trained(
    rated: Material, settings: tuple[str, ...], tokenizer: ChatTokenizer, folder: Path, part: str
) -> list[dict[str, Any]]:
    fields = dict(setting.split("=") for setting in settings)
    return rows_of(ratings.prepare_ratings([rated.data], tokenizer, configured(**fields), folder), part)


def _by_the_paper(
    base: Path, trained: Path, rows: list[dict[str, Any]], *, beta: float, undesirable_weight: float
) -> tuple[float, float, float]:
    """Loss (equation 7), margin of the rewards, and KL divergence, row by row in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (trained, base)]

    def ratio(row: dict[str, Any], answer: str) -> float:
        ids = [*row["prompt_ids"], *row[answer]][:128]
        found = []
        for model in models:
            with torch.no_grad():
                log_probabilities = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(row["prompt_ids"]), len(ids))
            found.append(sum(float(log_probabilities[place - 1, ids[place]]) for place in places))
        return found[0] - found[1]

    divergence = max(0.0, sum(ratio(row, "KL_completion_ids") for row in rows) / len(rows))
    rewards = [(row["label"], beta * ratio(row, "completion_ids")) for row in rows]
    means = [
        sum(reward for good, reward in rewards if good is kind) / sum(good is kind for good, _ in rewards)
        for kind in (True, False)
    ]
    losses = [
        (1.0 if good else undesirable_weight) / (1 + math.exp((1 if good else -1) * (reward - beta * divergence)))
        for good, reward in rewards
    ]
    return sum(losses) / len(losses), means[0] - means[1], divergence
