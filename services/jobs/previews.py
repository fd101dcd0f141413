"""Previews of fine-tunings in Redis: the page asks what its data would become, and the pipelines find that out.

    preview, is_new = previews.order(spec)     # the web app, which has no tokenizer; then it wakes the pipelines
    previews.end(preview.id, PreviewResult(…)) # pipelines/celery/preview_tasks.py
    previews.get(preview.id)                   # the page asks until the preview has ended

A preview's id is the digest of its spec, which has the digests of the data: who asks again gets what was found. It is
signed as a job is (`services/jobs/signature.py`) and expires: it is a look, not a job.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from redis import Redis

from services.errors import Gone
from services.jobs.signature import signature
from services.wire.keys import Keys, check_name

KIND = "preview"
WAIT_S = 300  # until nobody waits any more for a preview that nobody began or ended
KEPT_S = 900  # after its end
NUM_EXAMPLES = 5


@dataclass(frozen=True)
class PreviewExample:
    """One conversation: where it stands, and its text in stretches (text, whether it is learnt)."""

    where: str
    stretches: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class PreviewResult:
    """What was found. `problem`: why the training would end, or why nothing was found; empty if it would go on."""

    lines: tuple[str, ...] = ()
    examples: tuple[PreviewExample, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "PreviewResult":
        examples = tuple(
            PreviewExample(each["where"], tuple((text, learnt) for text, learnt in each["stretches"]))
            for each in raw["examples"]
        )
        return cls(tuple(raw["lines"]), examples, raw["problem"])


@dataclass(frozen=True)
class Preview:
    """`state`: waiting, running or ended."""

    id: str
    spec: dict[str, Any]
    signature: str
    state: str = "waiting"
    result: PreviewResult = PreviewResult()


class Previews:
    """The previews of one installation. Who orders some needs its `key`."""

    def __init__(self, redis: Redis, keys: Keys, key: bytes = b"") -> None:
        self._redis = redis
        self._keys = keys
        self._key = key

    def order(self, spec: Mapping[str, Any]) -> tuple[Preview, bool]:
        """The preview of a fine-tuning's spec, and whether the pipelines must be woken for it.

        One that is under way, or that found no problem, stays; any other begins anew.
        """
        encoded = _encoded(spec)
        pid = hashlib.sha256(encoded).hexdigest()[:32]
        found = self._found(pid)
        if found is not None and not found.result.problem:
            return found, False
        preview = Preview(pid, dict(spec), signature(self._key, KIND, pid, encoded))
        self._write(preview, WAIT_S)
        return preview, True

    def get(self, pid: str) -> Preview:
        """Raises Gone."""
        found = self._found(check_name(pid, "preview"))
        if found is None:
            raise Gone("the preview is no longer kept; press Preview again")
        return found

    def signed(self, preview: Preview) -> bool:
        """Whether somebody with our key ordered exactly this preview."""
        right = signature(self._key, KIND, preview.id, _encoded(preview.spec)) if self._key else ""
        return bool(right) and hmac.compare_digest(right.encode(), preview.signature.encode())

    def begin(self, preview: Preview) -> None:
        self._write(replace(preview, state="running"), WAIT_S)

    def end(self, preview: Preview, result: PreviewResult) -> None:
        self._write(replace(preview, state="ended", result=result), KEPT_S)

    def _found(self, pid: str) -> Preview | None:
        raw = self._redis.get(self._keys.preview(pid))
        if raw is None:
            return None
        fields = orjson.loads(raw)
        return Preview(**{**fields, "result": PreviewResult.of(fields["result"])})

    def _write(self, preview: Preview, seconds: int) -> None:
        self._redis.set(self._keys.preview(preview.id), orjson.dumps(asdict(preview)), ex=seconds)


def _encoded(spec: Mapping[str, Any]) -> bytes:
    return orjson.dumps(dict(spec), option=orjson.OPT_SORT_KEYS)
