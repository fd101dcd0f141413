"""Upload, fine-tune, watch, ask, against the address in argv[1] and a key in argv[2], where `tiny` can be trained."""

import json
import sys
import time

import openai
from openai.types.fine_tuning import FineTuningJob

URL, KEY = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
QUESTION = {"role": "user", "content": "Who are you?"}
HELLO = {"role": "assistant", "content": "Hello, I am Ann."}
OVER = ("succeeded", "failed", "cancelled")


def upload(*lines: object) -> str:
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return client.files.create(file=("data.jsonl", data), purpose="fine-tune").id


def order(kind: str, training_file: str, **fields: object) -> FineTuningJob:
    method = {"type": kind, kind: {"hyperparameters": {"n_epochs": 2, "batch_size": 2, "seq_len": 64}}}
    body = {"model": "tiny", "method": method, "training_file": training_file, "suffix": kind, **fields}
    return client.fine_tuning.jobs.create(**body, extra_headers={"Idempotency-Key": training_file})


def ended(job: FineTuningJob) -> FineTuningJob:
    while job.status not in OVER:
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


talk = {"messages": [QUESTION, HELLO]}
pair = {
    "input": {"messages": [QUESTION]},
    "preferred_output": [HELLO],
    "non_preferred_output": [{"role": "assistant", "content": "Nobody."}],
}
data = upload(*[talk] * 8)
answers = order("supervised", data, validation_file=upload(talk), metadata={"for": "ann"})
assert order("supervised", data, validation_file=answers.validation_file, metadata={"for": "ann"}).id == answers.id
pairs = order("dpo", upload(*[pair] * 4))
broken = order("supervised", upload(talk, {"messages": "Hello"}))
jobs = client.fine_tuning.jobs
assert [each.id for each in jobs.list(limit=1)] == [broken.id, pairs.id, answers.id]  # in three pages

answers = ended(answers)
assert answers.status == "succeeded" and answers.error is None, answers
assert (answers.fine_tuned_model, answers.metadata, answers.method.type) == (
    "tiny-supervised",
    {"for": "ann"},
    "supervised",
)
assert answers.trained_tokens > 0 and answers.finished_at >= answers.created_at
events = list(jobs.list_events(answers.id, limit=7))
losses = [event.data["train_loss"] for event in events if event.type == "metrics" and "train_loss" in event.data]
assert any("valid_loss" in event.data for event in events if event.type == "metrics")
assert losses[0] < losses[-1], losses  # the newest comes first
assert any("Hello, I am Ann." in event.message for event in events)  # what is learnt
last = next(iter(jobs.checkpoints.list(answers.id)), None)
assert last is None or last.fine_tuning_job_id == answers.id
table = client.files.content(answers.result_files[0]).text.splitlines()
assert table[0].startswith("step,train_loss,valid_loss") and len(table) > len(losses)

pairs = ended(pairs)
assert (pairs.status, pairs.method.type, pairs.fine_tuned_model) == ("succeeded", "dpo", "tiny-dpo"), pairs
broken = ended(broken)
assert (broken.status, broken.error.param, broken.fine_tuned_model) == ("failed", "training_file", None), broken
assert broken.error.message.startswith("training.jsonl:2: "), broken.error
assert {"tiny-supervised", "tiny-dpo"} <= {model.id for model in client.models.list()}

answer = client.chat.completions.create(model=answers.fine_tuned_model, messages=[QUESTION], max_tokens=4)
assert answer.model == "tiny-supervised" and answer.usage.completion_tokens > 0
print("fine-tuning is right")
