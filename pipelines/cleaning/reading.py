"""The unit `read`: all inputs become conversations, cut into shard files of about the same size.

The unit reads the inputs in one pass and in their order, so the shards are the same in every run. Records that cannot
be read go to the rejects.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from pipelines.cleaning.units import RunFolder, Unit, check_space
from pipelines.formats.read import read
from pipelines.records.conversation import Conversation, dump
from pipelines.records.ledger import Ledger
from pipelines.records.statistics import Statistics
from services.jobs.recipe import Recipe

TELL_EVERY = 100  # records
NUM_SAMPLES = 24  # records that the report shows before and after


def read_all(
    folder: RunFolder, recipe: Recipe, inputs: Mapping[str, str], tell: Callable[[dict[str, Any]], None]
) -> None:
    """Write `read/`: shards, rejects, samples, counts. `inputs`: what a file is called → its path or URL."""
    unit = Unit("read")
    with folder.making(unit) as draft, (draft / "rejects.jsonl").open("wb") as rejects:
        ledger = Ledger("read")
        statistics, samples = Statistics(), Samples()
        shards = Shards(draft, int(recipe.shard_mib * 1_048_576))

        def seen() -> None:
            if ledger.counts.records_in % TELL_EVERY == 0:
                check_space(draft)
                tell({"records": ledger.counts.records_in, "of": 0, "steps": {"read": ledger.counts.as_dict()}})

        def bad(line: dict[str, Any]) -> None:
            rejects.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            seen()

        for conversation in _conversations(inputs, recipe, ledger, bad):
            shards.write(dump(conversation))
            statistics.add(conversation)
            samples.offer(conversation)
            seen()
        shards.close()
        (draft / "samples.jsonl").write_bytes(b"".join(dump(conversation) for conversation in samples.chosen()))
        counts = {
            "records": ledger.counts.records_out,
            "of": ledger.counts.records_out,
            "records_out": ledger.counts.records_out,
            "steps": {"read": ledger.counts.as_dict()},
            "shards": shards.num_records,
            "statistics": statistics.as_dict(),
        }
        (draft / "counts.json").write_bytes(orjson.dumps(counts))
        tell(counts)


def _conversations(
    inputs: Mapping[str, str], recipe: Recipe, ledger: Ledger, bad: Callable[[dict[str, Any]], None]
) -> Iterator[Conversation]:
    for name, location in inputs.items():
        for conversation in read(location, recipe.input, ledger, bad, name=name):
            ledger.counts.turns_out += len(conversation.turns)
            yield conversation


class Shards:
    """Files `00000.jsonl`, … of about `max_bytes` each; at least one."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.num_records: list[int] = []
        self._folder = folder
        self._max_bytes = max_bytes
        self._left_bytes = 0
        self._file: IO[bytes] | None = None
        self._next()

    def write(self, line: bytes) -> None:
        if self.num_records[-1] and self._left_bytes < len(line):
            self._next()
        assert self._file is not None
        self._file.write(line)
        self._left_bytes -= len(line)
        self.num_records[-1] += 1

    def _next(self) -> None:
        self.close()
        self._file = (self._folder / f"{len(self.num_records):05d}.jsonl").open("wb")
        self._left_bytes = self._max_bytes
        self.num_records.append(0)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Samples:
    """A few records, chosen by the digest of their id: the same ones in every run."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Conversation]] = []  # (negative digest, order of arrival, record)
        self._seen = 0

    def offer(self, conversation: Conversation) -> None:
        rank = -int.from_bytes(hashlib.blake2b(conversation.id.encode(), digest_size=8).digest())
        self._seen += 1
        if len(self._heap) < NUM_SAMPLES:
            heapq.heappush(self._heap, (rank, self._seen, conversation))
        elif rank > self._heap[0][0]:
            heapq.heapreplace(self._heap, (rank, self._seen, conversation))

    def chosen(self) -> list[Conversation]:
        return [conversation for _, _, conversation in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))]
