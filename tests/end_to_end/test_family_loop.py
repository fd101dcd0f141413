"""Six families from training data to a reader: what was learnt of reasoning and answer is what the queue brings back.

A tiny random model of each family is fine-tuned by the training program and served by a worker of its own. One process
trains them one after the other; a worker starts as soon as its model is there. `make test` asks one family, for
each costs a worker that loads torch; `make test-families` asks all six.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from services.chat.journal import Journal
from services.chat.requests import Requests
from services.models.catalogue import resolve
from services.places import ROOT
from services.serving.trained_models import TrainedModel, TrainedModels
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import ChatRequest, Event, Message, SamplingOptions
from tests.end_to_end.family_models import FAMILIES, FamilyModel
from tests.end_to_end.system import System, running_system, wait_until

pytestmark = pytest.mark.timeout(600)  # each test waits for a training and a worker, which load torch
WAIT_S = 300.0
_NAMES = os.environ.get("FAMILIES", "qwen3").split(",")
ASKED = [family for family in FAMILIES if family.name in _NAMES or _NAMES == ["all"]]
TALKS = (
    (
        Message("user", "What is 2 plus 2?"),
        Message("assistant", "It is **4**, of course.", "Two and two, that makes four."),
        Message("user", "Sure?"),
        Message("assistant", "Yes.\n\n    2 + 2 = 4", "Count again:\n\n1, 2, 3, 4."),
    ),
    (
        Message("user", "Who wrote Faust?"),
        Message("assistant", "Goethe:\n\n- Faust I, 1808\n- Faust II", "A drama… Goethe wrote it."),
    ),
    (Message("system", "Be brief."), Message("user", "And?"), Message("assistant", "Fine 𝄞.", "One word.")),
)
CONFIG = """\
name: {name}
model: {base}
seq_len: 256
tokens_per_step: 1024
per_device_tokens: 1024
packing: false
max_steps: {steps}
learning_rate: 0.01
schedule: constant
warmup_ratio: 0
save_steps: 1000
gradient_checkpointing: false
"""


class Loop:
    """The models while they are trained, and their workers."""

    def __init__(self, folder: Path, system: System) -> None:
        self._folder = folder
        self._system = system
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        for family in ASKED:
            self._prepare(family)
        self.training = self._train()

    def _prepare(self, family: FamilyModel) -> None:
        texts = "\n".join(message.text for talk in TALKS for message in talk)
        base = family.build(self._folder / family.name / "base", texts)
        (self._folder / family.name / "config.yaml").write_text(
            CONFIG.format(name=family.name, base=base, steps=family.steps)
        )
        records = [{"messages": [as_record(message) for message in talk]} for talk in TALKS]
        (self._folder / family.name / "data.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))

    def _train(self) -> "subprocess.Popen[bytes]":
        folders = [str(self._folder / family.name) for family in ASKED]
        with (self._folder / "training.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.end_to_end.train_families", *folders],
                cwd=ROOT,
                env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def model(self, family: FamilyModel) -> Path:
        """The trained model, once a worker serves it."""
        wait_until(lambda: self._started(family.name), f"the training of {family.name}", WAIT_S, 0.1)
        self._system.wait_for_worker(self._workers[family.name], WAIT_S)
        return self._out(family.name)

    def _started(self, name: str) -> bool:
        """Start a worker for each model that is whole by now. True if one has this name."""
        for family in ASKED:
            if family.name not in self._workers and (self._out(family.name) / "manifest.json").exists():
                trained = TrainedModel.from_manifest(self._out(family.name), name=family.name, job="j", created_s=0.0)
                TrainedModels(self._system.redis, self._system.keys).register(trained)
                self._workers[family.name] = self._system.start("workers", model=family.name)
        assert name in self._workers or not self.training.poll(), (self._folder / "training.log").read_text()
        return name in self._workers

    def _out(self, name: str) -> Path:
        return self._folder / name / "out" / "model"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    threads = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with running_system(tmp_path_factory.mktemp("system"), slots=2, cache_gib=0.01, engine="transformers") as made:
        made.environment |= threads
        yield made


@pytest.fixture(scope="module")
def loop(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    pytest.importorskip("torch")
    made = Loop(tmp_path_factory.mktemp("families"), system)
    yield made
    made.training.kill()
    made.training.wait()


def as_record(message: Message) -> dict[str, str]:
    fields = {"role": message.role, "content": message.content, "reasoning_content": message.reasoning}
    return {name: value for name, value in fields.items() if value}


def asked(system: System, model: str, messages: Sequence[Message]) -> list[Event]:
    """The journal of the greedy answer."""
    rid = uuid.uuid4().hex
    options = SamplingOptions(max_new_tokens=120, temperature=0)
    Requests(system.redis, system.keys).submit(ChatRequest(rid, "u", model, tuple(messages), options))
    journal = Journal(system.redis, system.keys)
    wait_until(lambda: (head := journal.head(rid)) and head.ended, "the answer", 60)
    read = journal.read(rid)
    assert read is not None and read[0].status == "finished"
    return list(read[1])


def parts_of(events: Sequence[Event]) -> dict[str, str]:
    text = "".join(event.text for event in events)
    starts = [(0, "answer"), *(part for event in events for part in event.parts), (len(text), "")]
    found: dict[str, str] = {}
    for (start, kind), (end, _) in pairwise(starts):
        if end > start:
            found[kind] = found.get(kind, "") + text[start:end]
    return found


@pytest.mark.parametrize("family", ASKED, ids=lambda family: family.name)
def test_what_was_learnt_is_what_a_reader_gets(system: System, loop: Loop, family: FamilyModel) -> None:
    tokenizer = load_tokenizer(resolve(str(loop.model(family))))
    for talk in TALKS:
        learnt = [token for s in tokenizer.samples(talk) for token, m in zip(s.ids, s.mask, strict=True) if m]
        for number, message in enumerate(talk):
            if message.role != "assistant":
                continue
            events = asked(system, family.name, talk[:number])
            thought = {"reasoning": message.reasoning} if family.thinks else {}
            assert parts_of(events) == {**thought, "answer": message.content}
            said = [token for event in events for token in event.ids]
            assert (said, events[-1].code) == (learnt[: len(said)], "stop")
            assert learnt[len(said)] in tokenizer.stop_token_ids
            learnt = learnt[len(said) + 1 :]
        assert not learnt
