"""What must hold for every request of a run, judged from the clients' side and from the journals.

Called once nothing runs any more (`FaultSystem.idle`). In a lossy run, in which the file of Redis was cut, a request
is excused only for what was really lost: `FaultSystem.losses` knows the commands.
"""

import time
from collections.abc import Iterable, Iterator, Sequence

from services.chat.journal import Head
from tests.end_to_end.system import Browser
from tests.faults.answers import problems, text_in
from tests.faults.programs import Program
from tests.faults.system import FaultSystem
from tests.faults.tabs import Reading, Tab, Terminal
from tests.faults.worker import CODES, Order

Client = Tab | Terminal | Program
LATE_S = 30.0  # a socket timeout (5 s) on a dead connection, twice in the worst case, and a slow reader's pace


def violations(system: FaultSystem, clients: Sequence[Client], *, lossy: bool) -> list[str]:
    """Everything that does not hold; empty when all does."""
    by_rid: dict[str, list[Reading]] = {}
    for reading in (reading for client in clients for reading in client.readings):
        by_rid.setdefault(reading.rid, []).append(reading)
    judge = Judge(system, lossy=lossy)
    found = [problem for rid, readings in by_rid.items() for problem in judge.request(rid, readings)]
    return found + list(_immortal(system)) + list(_open_to_strangers(system, by_rid))


class Judge:
    """Knows what may be excused."""

    def __init__(self, system: FaultSystem, *, lossy: bool) -> None:
        self._system = system
        self._losses = system.losses if lossy else []

    def request(self, rid: str, readings: list[Reading]) -> Iterator[str]:
        """One request and everybody who read it."""
        lost = any(loss.of(rid) for loss in self._losses)
        end_lost = any(loss.end_of(rid) for loss in self._losses)
        for reading in readings:
            yield from self._manners(reading, lost)
        read = self._system.journal.read(rid)
        if read is None:
            yield from self._missing(rid, readings, lost)
            return
        head, events = read
        if not head.ended:
            if not (lost and all(reading.left or reading.done for reading in readings)):
                yield f"{rid} was forgotten: {head.status}, {head.n} tokens, {head.begins} begins"
            return
        yield from problems(rid, events)
        if events[-1].kind != head.status:
            yield f"{rid}: its state says {head.status}, its journal {events[-1].kind}"
        if not _explained(head, readings):
            yield f"{rid} ({readings[0].question.text}) ended as {head.status} {head.code} after {head.begins} begins"
        for reading in readings:
            if reading.done and not end_lost:
                yield from _told(reading, head, text_in(events))
                yield from _in_time(reading, head)

    @staticmethod
    def _manners(reading: Reading, lost: bool) -> Iterator[str]:
        """How the server treated one reader."""
        yield from reading.breaches
        if reading.rewinds and not lost:
            yield f"{reading.reader} on {reading.rid}: {reading.rewinds} rewinds though nothing was lost"
        submitted = reading.acknowledged_at is not None
        if not reading.done and not reading.left:
            state = "reads no end" if submitted else f"has no end, nor an acknowledgement ({dict(reading.refusals)})"
            yield f"{reading.reader} on {reading.rid}: {state}, stands at {len(reading.text)}"

    @staticmethod
    def _missing(rid: str, readings: list[Reading], lost: bool) -> Iterator[str]:
        """No state: never accepted, or lost before its end or with it."""
        if lost or all(reading.acknowledged_at is None for reading in readings):
            return
        yield f"{rid} was accepted and is gone"


def _told(reading: Reading, head: Head, text: str) -> Iterator[str]:
    who = f"{reading.reader} on {reading.rid}"
    told = (reading.done[0]["status"], reading.done[0]["code"])
    if told != (head.status, head.code):
        yield f"{who}: told {told}, the state says {(head.status, head.code)}"
    if reading.text != text:
        yield f"{who}: shown {reading.text!r:.80} of {len(reading.text)}, the journal has {text!r:.80} of {len(text)}"


def _in_time(reading: Reading, head: Head) -> Iterator[str]:
    """A lost message may delay an end, but only until somebody polls."""
    assert reading.done_at is not None
    ended_at = head.ended_ms / 1000 - time.time() + time.monotonic()
    reading.late_s = reading.done_at - max(ended_at, reading.watched_at)
    if reading.late_s > LATE_S:
        yield f"{reading.reader} on {reading.rid}: told of the end {reading.late_s:.1f} s after it"


def _explained(head: Head, readings: Iterable[Reading]) -> bool:
    """Whether the request may end like this, given what it ordered and whether anybody cancelled it."""
    readings = list(readings)
    question = readings[0].question
    order = Order.parse(question.text)
    if head.status == "cancelled":
        return any(reading.asked_to_cancel for reading in readings)
    if order.kind == "poison":
        return head.code == "poison"
    if order.kind in CODES and order.at <= question.max_new_tokens:
        return head.code == CODES[order.kind]
    return head.status == "finished" and head.code == "length" and head.n == question.max_new_tokens


def _immortal(system: FaultSystem) -> Iterator[str]:
    """Answers must not stay for ever."""
    for key in system.redis.scan_iter(f"{system.keys.namespace}:*", count=1000):
        if key.endswith((b"}:state", b"}:journal")) and system.redis.ttl(key) == -1:
            yield f"{key!r} never expires"


def _open_to_strangers(system: FaultSystem, rids: Iterable[str]) -> Iterator[str]:
    """Another user's cookie opens nothing."""
    stranger = Browser(system.of_kind("web")[0].url)
    for rid in rids:
        if system.journal.head(rid) is None:
            continue
        for event in ("watch", "cancel"):
            answer = stranger.call(event, {"id": rid, "offset": 0, "nonce": ""})
            if answer.get("error", {}).get("code") != "forbidden":
                yield f"{rid}: a stranger's {event} was answered with {answer}"
    stranger.close()
