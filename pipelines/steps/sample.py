"""Keeps a random part of all records, a fraction of them or a count, in the order of the input.

Each record gets a number from the seed and its ids, and the records with the smallest numbers stay. So the choice
depends on neither shards nor order, and most of the choice stays the same when the input grows. The others are rejected
as `not_sampled`.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import orjson

from pipelines.records.conversation import Conversation
from pipelines.steps import Barrier, Verdict
from services.jobs.steps.sample import SampleOptions


def build(options: SampleOptions) -> Barrier:
    return Sample(options)


class Sample:
    """A signature is the number that the record drew."""

    signature_bytes = 8

    def __init__(self, options: SampleOptions) -> None:
        self._options = options

    def sign(self, conversation: Conversation) -> bytes:
        drawn_by = orjson.dumps([self._options.seed, conversation.origin_id, conversation.id])
        return blake2b(drawn_by, digest_size=self.signature_bytes).digest()

    def judge(self, signatures: Sequence[Path]) -> list[Mapping[int, Verdict]]:
        import numpy as np

        shards = [np.fromfile(path, "<u8") for path in signatures]
        drawn = np.concatenate([np.zeros(0, "<u8"), *shards])
        ends = np.zeros(len(drawn), bool)
        ends[np.argsort(drawn, kind="stable")[self._num_kept(len(drawn)) :]] = True
        by_shard = np.split(ends, np.cumsum([len(shard) for shard in shards])[:-1]) if shards else []
        ended = Verdict("not_sampled")
        return [dict.fromkeys(np.flatnonzero(shard).tolist(), ended) for shard in by_shard]

    def _num_kept(self, num_records: int) -> int:
        if self._options.count is not None:
            return self._options.count
        return round((self._options.fraction or 0) * num_records)
