"""A barrier step run as the engine runs it: every shard signed into a file, all judged together."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.records.conversation import Conversation
from pipelines.steps import Barrier, Verdict

Place = tuple[int, int]  # (shard, index)


def judged(barrier: Barrier, shards: Sequence[Sequence[Conversation]]) -> dict[Place, Verdict]:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(shards))]
        for path, shard in zip(paths, shards, strict=True):
            signatures = [barrier.sign(conversation) for conversation in shard]
            assert all(len(signature) == barrier.signature_bytes for signature in signatures)
            path.write_bytes(b"".join(signatures))
        verdicts = barrier.judge(paths)
    assert len(verdicts) == len(shards)
    return {(shard, index): verdict for shard, ended in enumerate(verdicts) for index, verdict in ended.items()}


def ended(barrier: Barrier, conversations: Sequence[Conversation]) -> dict[int, tuple[str, int]]:
    """Of one shard: index → (reason, index of the twin)."""
    verdicts = judged(barrier, [conversations])
    return {index: (said.reason, said.twin[1] if said.twin else -1) for (_, index), said in verdicts.items()}


def survivors(barrier: Barrier, shards: Sequence[Sequence[Conversation]]) -> list[Conversation]:
    gone = judged(barrier, shards)
    return [kept for s, shard in enumerate(shards) for i, kept in enumerate(shard) if (s, i) not in gone]


def cut(conversations: Sequence[Conversation], num_shards: int) -> list[Sequence[Conversation]]:
    """Into so many shards, some of them empty when there are few records."""
    bounds = [len(conversations) * number // num_shards for number in range(num_shards + 1)]
    return [conversations[a:b] for a, b in pairwise(bounds)]
