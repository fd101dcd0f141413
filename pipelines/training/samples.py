"""Records → samples: token ids, and a label for each token that is learnt. `data.py` calls it.

The tokenizer is the one that serves. A large input is shared among processes of this machine, each with a tokenizer of
its own; the samples come in the order of the records, however many processes there are.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from multiprocessing.connection import Connection
from typing import Any

from pipelines.training.records import Record, Refusal
from services.errors import ConfigurationError, TemplateError
from services.jobs.training import TrainingConfig
from services.tokens.supervision import SupervisedSequence
from services.tokens.tokenization import ChatTokenizer
from services.tokens.tool_turns import NoPlaceForTools

NO_PLACE = "no_place_for_tools"  # why a record with tools is refused
IGNORED = -100  # the label of a token that is read and not learnt
_CHUNK = 64  # records that a process gets at once
_MOST_PROCESSES = 32

LoadTokenizer = Callable[[], ChatTokenizer]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence. `ids` and `labels` are int32 arrays of at most `seq_len`; `length` is that before the cut."""

    ids: Any
    labels: Any
    length: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """A record without its texts, and its samples. `wanted`: some of its answers are to be learnt. `left_out`: what the
    template does not write of what the assistant said."""

    where: str
    identity: str
    samples: tuple[Sample, ...]
    wanted: bool
    left_out: frozenset[str] = frozenset()


class Sampler:
    """Makes samples with one tokenizer."""

    def __init__(self, tokenizer: ChatTokenizer, config: TrainingConfig) -> None:
        self._tokenizer = tokenizer
        self._seq_len = config.seq_len
        self._last_only = config.learn == "last"
        self._thinking = config.thinking

    def sampled(self, found: Record | Refusal) -> Sampled | Refusal:
        """The samples of a record; a refusal if the model's template refuses it."""
        if isinstance(found, Refusal):
            return found
        try:
            sequences = [self._plain(found.text)] if found.text else self._of_messages(found)
        except (TemplateError, ConfigurationError) as error:
            reason = NO_PLACE if isinstance(error, NoPlaceForTools) else "template"
            return Refusal(found.where, reason, str(error), readable=True)
        wanted = any(found.learnt) if found.messages else True
        left_out = frozenset(name for sequence in sequences for name in sequence.left_out)
        return Sampled(found.where, found.identity, tuple(map(self._cut, sequences)), wanted, left_out)

    def _of_messages(self, record: Record) -> list[SupervisedSequence]:
        sequences = self._tokenizer.samples(record.messages, tools=record.tools, thinking=self._thinking)
        learnt = list(record.learnt)
        if self._last_only:
            learnt = [False] * (len(learnt) - 1) + learnt[-1:]
        return sequences if all(learnt) else _restricted(sequences, learnt)

    def _plain(self, text: str) -> SupervisedSequence:
        """A text as models read texts before they learnt to chat: its end is an end token, and all is learnt."""
        decoder = self._tokenizer.decoder()
        eos = decoder.token_to_id(self._tokenizer.named_tokens().get("eos_token", ""))
        end = self._tokenizer.stop_token_ids[0] if eos is None else eos
        ids = list(decoder.encode(text, add_special_tokens=True).ids)
        ids += [end] if ids[-1:] != [end] else []
        return SupervisedSequence(ids, [1] * len(ids))

    def _cut(self, sequence: SupervisedSequence) -> Sample:
        import numpy as np

        ids = np.asarray(sequence.ids[: self._seq_len], dtype=np.int32)
        mask = np.asarray(sequence.mask[: self._seq_len], dtype=bool)
        return Sample(ids, np.where(mask, ids, np.int32(IGNORED)), len(sequence.ids))


def _restricted(sequences: Sequence[SupervisedSequence], learnt: Sequence[bool]) -> list[SupervisedSequence]:
    """Without the answers that shall not be learnt: the n-th supervised stretch is the n-th answer."""
    flags = iter(learnt)
    restricted = []
    for sequence in sequences:
        mask: list[int] = []
        for supervised, stretch in groupby(sequence.mask):
            keep = bool(supervised) and next(flags, None)
            if keep is None:
                raise TemplateError("more supervised stretches than answers: weights cannot be honoured")
            mask += [int(keep)] * len(list(stretch))
        restricted.append(replace(sequence, mask=mask))
    if next(flags, None) is not None:
        raise TemplateError("two answers follow each other without a prompt between: weights cannot be honoured")
    return restricted


# -- several processes -----------------------------------------------------------------------------------------------


def sampled_here(
    found: Iterable[Record | Refusal], tokenizer: ChatTokenizer, config: TrainingConfig
) -> Iterator[Sampled | Refusal]:
    sampler = Sampler(tokenizer, config)
    return map(sampler.sampled, found)


def sampled_by_many(
    found: Iterable[Record | Refusal], load: LoadTokenizer, config: TrainingConfig
) -> Iterator[Sampled | Refusal]:
    """The same, by as many processes as this one may use processors. `load` is pickled."""
    records = iter(found)
    with _Team(load, config, min(len(os.sched_getaffinity(0)), _MOST_PROCESSES)) as team:
        waiting = [member for member in team.members if _send(member, records)]
        while waiting:
            member = waiting.pop(0)
            answer = _received(member)
            if _send(member, records):
                waiting.append(member)
            yield from answer


def _send(member: Connection, records: Iterator[Record | Refusal]) -> bool:
    chunk = list(islice(records, _CHUNK))
    if chunk:
        member.send(chunk)
    return bool(chunk)


def _received(member: Connection) -> list[Sampled | Refusal]:
    try:
        answer: list[Sampled | Refusal] | Exception = member.recv()
    except EOFError:
        raise RuntimeError("a process that tokenizes the data was killed; is there enough memory?") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Team:
    """The processes. Each gets a chunk only after it gave back the one before: neither side blocks the other."""

    def __init__(self, load: LoadTokenizer, config: TrainingConfig, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.members: list[Connection] = []
        self._processes = []
        for _ in range(number):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, load, config), daemon=True)
            process.start()
            theirs.close()
            self.members.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "_Team":
        return self

    def __exit__(self, *error: object) -> None:
        for member in self.members:
            member.close()
        for process in self._processes:
            process.join()


def _work(parent: Connection, load: LoadTokenizer, config: TrainingConfig) -> None:
    """Until the parent closes its end. A signal to the whole group is the parent's to obey."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    sampler: Sampler | None = None
    while True:
        try:
            chunk = parent.recv()
        except EOFError:
            return
        try:
            sampler = sampler or Sampler(load(), config)
            answer: Any = [sampler.sampled(each) for each in chunk]
        except Exception as error:  # noqa: BLE001 - raised in the parent
            answer = error
        try:
            parent.send(answer)
        except BrokenPipeError:  # the parent gave up
            return
