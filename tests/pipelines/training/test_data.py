"""Conversations as the trainer reads them: what is learnt, what is dropped, and packing that changes nothing."""

import json
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.data import Prepared, is_evaluated, lines_of, prepare
from pipelines.training.records import Record, Refusal, read_records
from pipelines.training.reporting import Aborted, BadData
from pipelines.training.samples import IGNORED, Sampled, sampled_by_many, sampled_here
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.models.catalogue import resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from tests.pipelines.conftest import write_conversations
from tests.pipelines.training.runs import Material


def configured(**fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"name": "tiny", "model": "smollm2-135m", "seq_len": 128, **fields})


def prepared(
    folder: Path, tokenizer: ChatTokenizer, conversations: list[dict[str, Any]] | Path, **fields: Any
) -> Prepared:
    if isinstance(conversations, Path):
        path = conversations
    else:
        path = folder / "data.jsonl"
        path.write_text("".join(json.dumps(conversation) + "\n" for conversation in conversations))
    folder.mkdir(exist_ok=True)
    return prepare([path], tokenizer, configured(**fields), 4, folder)


def talk(identity: str, *turns: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {
        "id": identity,
        "messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(turns)],
    }


def rows_of(found: Prepared, name: str = "train") -> list[dict[str, Any]]:
    from datasets import load_from_disk

    return list(load_from_disk(str(found.folder / name)))


def test_labels_are_what_the_tokenizer_that_serves_calls_learnt(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(tmp_path, tokenizer, [talk("a", "Hello", "Hi there.", "And?", "Well.")], packing=False)
    learnt = [label for row in rows_of(found) for label in row["labels"] if label != IGNORED]
    text = tokenizer.decoder().decode(learnt, skip_special_tokens=False)
    assert text == "Hi there.<|im_end|>Well.<|im_end|>"


def test_a_long_conversation_is_cut_and_counted(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(tmp_path, tokenizer, [talk("a", "Hello", "word " * 500), talk("b", "Hello", "Hi.")])
    assert found.counts.truncated == 1
    assert max(len(row["input_ids"]) for row in rows_of(found)) <= 128


def test_too_many_conversations_without_a_token_to_learn_abort(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(Aborted, match=r"1 of 2 conversations \(50.0%\) have no token to learn"):
        prepared(tmp_path, tokenizer, [talk("a", "word " * 500, "Late."), talk("b", "Hello", "Hi.")])


def test_few_conversations_without_a_token_to_learn_are_dropped(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    conversations = [talk("a", "word " * 500, "Late."), talk("b", "Hello", "Hi.")]
    found = prepared(tmp_path, tokenizer, conversations, max_unsupervised=0.5)
    assert (found.counts.examples, found.counts.unsupervised) == (2, 1)


def test_turns_that_serving_would_never_ask_for_abort(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    turns = [{"role": "assistant", "content": "Hi."}]
    with pytest.raises(Aborted, match=r"data\.jsonl:1: the first message is assistant") as refused:
        prepared(tmp_path, tokenizer, [{"id": "a", "messages": turns}])
    assert refused.value.file == "data.jsonl"


def test_data_that_are_no_conversations_are_refused_with_the_name_of_their_file(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    with pytest.raises(BadData, match=r"data\.jsonl:2: ") as refused:
        prepared(tmp_path, tokenizer, [talk("a", "Hello", "Hi."), {"id": "b", "messages": 3}])
    assert refused.value.file == "data.jsonl"


def test_a_few_refused_records_are_counted_and_dropped(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """One record that the template refuses ended a run after its machine was rented."""
    bad = {"id": "b", "messages": [{"role": "assistant", "content": "Hi."}]}
    conversations = [talk("a", "Hello", "Hi."), bad, {"id": "c"}, talk("d", "Hello", "Hi.")]
    found = prepared(tmp_path, tokenizer, conversations, max_refused=0.5)
    assert (found.counts.records, found.counts.examples) == (4, 2)
    assert found.counts.refused == {"template": 1, "bad_shape": 1}
    assert found.counts.told[0].startswith("data.jsonl:2: the first message is assistant")


def test_an_answer_of_weight_0_is_read_and_not_learnt(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    conversation = talk("a", "Hello", "Wrong.", "And?", "Right.")
    conversation["messages"][1]["weight"] = 0
    found = prepared(tmp_path, tokenizer, [conversation], packing=False)
    assert learnt_text(found, tokenizer) == "Right.<|im_end|>"
    assert "Wrong." in tokenizer.decoder().decode(rows_of(found)[0]["input_ids"])


def learnt_text(found: Prepared, tokenizer: ChatTokenizer) -> str:
    learnt = [label for row in rows_of(found) for label in row["labels"] if label != IGNORED]
    return str(tokenizer.decoder().decode(learnt, skip_special_tokens=False))


def test_only_the_last_answer_is_learnt_if_that_is_asked_for(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(tmp_path, tokenizer, [talk("a", "Hello", "Hi.", "And?", "Well.")], packing=False, learn="last")
    assert learnt_text(found, tokenizer) == "Well.<|im_end|>"


def test_a_plain_text_is_learnt_whole_and_ends(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(tmp_path, tokenizer, [{"text": "Once upon a time."}], packing=False)
    assert learnt_text(found, tokenizer) == "Once upon a time.<|im_end|>"


def test_conversations_of_which_no_answer_is_wanted_are_no_reason_to_end(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    silent = talk("a", "Hello", "Hi.")
    silent["messages"][1]["train"] = False
    found = prepared(tmp_path, tokenizer, [silent, talk("b", "Hello", "Hi.")])
    assert (found.counts.unwanted, found.counts.unsupervised) == (1, 0)


def test_reasoning_for_which_the_template_has_no_place_is_counted_and_not_learnt(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    thought = talk("a", "Hello", "Hi.")
    thought["messages"][1]["reasoning_content"] = "A greeting."
    found = prepared(tmp_path, tokenizer, [thought, talk("b", "Hello", "Hi.")], packing=False)
    assert found.counts.left_out == found.counts.as_event()["left_out"] == {"reasoning": 1}
    assert learnt_text(found, tokenizer) == "Hi.<|im_end|>" * 2
    told = list(lines_of(found.counts, configured()))
    assert any(line.startswith("1 records have reasoning for which the chat template has no place") for line in told)


def test_tools_for_which_the_template_has_no_place_are_refused_by_name_and_counted(
    tmp_path: Path, tokenizer: ChatTokenizer
) -> None:
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    conversations = [{**talk("a", "Hello", "Hi."), "tools": [tool]}, talk("b", "Hello", "Hi.")]
    found = prepared(tmp_path, tokenizer, conversations, max_refused=0.5)
    assert found.counts.refused == {"no_place_for_tools": 1}
    assert "no place for the tools' definitions" in found.counts.told[0]


def test_an_evaluation_file_is_evaluated_and_never_trained_on(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    for name, answer in (("data", "Train."), ("validation", "Check.")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(talk(name, "Hello", answer)) + "\n")
    paths = [tmp_path / "data.jsonl", tmp_path / "validation.jsonl"]
    found = prepare(paths, tokenizer, configured(eval_files=1, packing=False), 2, tmp_path)
    assert learnt_text(found, tokenizer) == "Train.<|im_end|>"
    (row, filler) = rows_of(found, "eval")
    assert "Check." in tokenizer.decoder().decode(row["input_ids"])
    assert filler["labels"] == [IGNORED]
    with pytest.raises(ConfigurationError, match="eval_files=2 of 2 files leaves nothing"):
        prepare(paths, tokenizer, configured(eval_files=2), 2, tmp_path)


def test_a_token_that_the_model_has_no_embedding_for_is_named(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """It was an IndexError, three times, once the run had loaded everything."""
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(talk("a", "Hello", "Hi.")) + "\n")
    with pytest.raises(ConfigurationError, match=r"data\.jsonl:1: .*the model has embeddings for 100 ids"):
        prepare([path], tokenizer, configured(), 1, tmp_path, vocabulary=100)


def test_many_processes_make_the_same_samples_in_the_same_order(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    write_conversations(tmp_path / "data.jsonl", 200)
    load = partial(load_tokenizer, resolve("smollm2-135m"))

    def read() -> Iterator[Record | Refusal]:
        return read_records(tmp_path / "data.jsonl", Counter())

    here = list(sampled_here(read(), tokenizer, configured()))
    shared = list(sampled_by_many(read(), load, configured()))
    assert [(found.where, ids_of(found)) for found in shared] == [(found.where, ids_of(found)) for found in here]
    assert len(here) == 200


def ids_of(found: Sampled | Refusal) -> list[list[int]]:
    assert isinstance(found, Sampled)
    return [sample.ids.tolist() + sample.labels.tolist() for sample in found.samples]


@pytest.mark.parametrize("line", ["{", "7", '{"id": "a"}', '{"messages": [{"role": "user", "content": 1}]}'])
def test_a_line_that_is_no_conversation_is_named(tmp_path: Path, tokenizer: ChatTokenizer, line: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n" + line)
    with pytest.raises(ConfigurationError, match=r"data\.jsonl:2: .*train on what `chatserver clean` wrote"):
        prepared(tmp_path, tokenizer, path)


def test_every_format_that_cleaning_writes_is_read(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """The recipe for Vicuna writes `conversations` of human and gpt, and once nothing but `messages` was read."""
    path = tmp_path / "data.jsonl"
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]
    path.write_text(json.dumps({"id": "a", "conversations": turns}) + "\n")
    (tmp_path / "openai").mkdir()
    openai = prepared(tmp_path / "openai", tokenizer, [talk("a", "Hello", "Hi.")])
    assert rows_of(prepared(tmp_path / "sharegpt", tokenizer, path)) == rows_of(openai)


def test_an_empty_file_is_refused(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="no conversation"):
        prepared(tmp_path, tokenizer, [])


def test_every_step_of_an_epoch_has_as_many_sequences(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    found = prepared(tmp_path, tokenizer, [talk(str(index), "Hello", "word " * 90) for index in range(5)])
    assert found.num_sequences == 8
    assert sum(row["labels"] == [IGNORED] for row in rows_of(found)) == 3
    assert found.steps(configured(epochs=1.5), 4) == 3


def test_the_same_conversations_are_evaluated_whatever_else_there_is(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    write_conversations(tmp_path / "few.jsonl", 30)
    write_conversations(tmp_path / "many.jsonl", 60)
    few = prepared(tmp_path / "few", tokenizer, tmp_path / "few.jsonl", eval_fraction=0.3)
    expected = [index for index in range(60) if is_evaluated(f"c{index}", 0.3)]
    assert few.counts.evaluated == sum(index < 30 for index in expected)
    many = prepared(tmp_path / "many", tokenizer, tmp_path / "many.jsonl", eval_fraction=0.3)
    assert many.counts.evaluated == len(expected)
    assert rows_of(many, "eval")


# ---- packing


def batch_of(rows: list[dict[str, Any]], *, packed: bool) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collated: dict[str, Any] = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)(rows)
    return collated


def loss_of(model: Any, batches: list[dict[str, Any]]) -> float:
    """Per learnt token over all batches, as the trainer takes it over all sequences of a step."""
    import torch

    total = num = 0.0
    for batch in batches:
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        total += torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum").item()
        num += int((labels[:, 1:] != IGNORED).sum())
    return total / num


@pytest.fixture(scope="module")
def model(material: Material) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(material.base, attn_implementation="sdpa").eval()


def test_packed_and_unpacked_have_the_same_loss(
    tmp_path: Path, tokenizer: ChatTokenizer, material: Material, model: Any
) -> None:
    together = rows_of(prepared(tmp_path / "together", tokenizer, material.data))
    alone = rows_of(prepared(tmp_path / "alone", tokenizer, material.data, packing=False))
    assert max(len(row["seq_lengths"]) for row in together) > 1
    packed = loss_of(model, [batch_of([row], packed=True) for row in together])
    unpacked = loss_of(model, [batch_of(alone, packed=False)])
    assert packed == pytest.approx(unpacked, abs=1e-4)


def test_no_conversation_sees_another_of_its_pack(
    tmp_path: Path, tokenizer: ChatTokenizer, material: Material, model: Any
) -> None:
    import torch

    row = next(row for row in rows_of(prepared(tmp_path, tokenizer, material.data)) if len(row["seq_lengths"]) > 1)
    first = row["seq_lengths"][0]
    batch = batch_of([row], packed=True)
    del batch["labels"]
    before = model(**batch, use_cache=False).logits
    batch["input_ids"][0, first // 2] += 1
    after = model(**batch, use_cache=False).logits
    assert not torch.equal(before[0, first // 2 : first], after[0, first // 2 : first])
    assert torch.equal(before[0, first:], after[0, first:])
