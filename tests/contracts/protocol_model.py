"""A world in which the real protocol code runs as step functions under a seeded scheduler.

Each process (worker, reader, submitter) is a greenlet that runs the production classes over a `SteppedRedis`: every
command is a point where the scheduler may stop it, kill it, lose the command, run it twice or lose its reply. The
server is a real one; its published messages reach readers through a real subscription, unless the world drops them.
A token is a hash of the whole prefix and of the worker that made it, so a splice of two answers shows even when the
offsets fit.
"""

import hashlib
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from greenlet import GreenletExit, getcurrent, greenlet
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.chat.answer import Answer
from services.chat.charges import estimate
from services.chat.follower import Follower
from services.chat.journal import Journal
from services.chat.queue import RequestQueue
from services.chat.quotas import Quotas, UserLimits
from services.chat.reader import Done, ReaderEvent, Rewind, Text
from services.chat.requests import Requests
from services.connection.embedded import EmbeddedServer
from services.errors import ChatServerError
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message, Part, SamplingOptions
from workers.assignment import Assignment, WorkerIdentity
from workers.engine import EngineEvent, ModelLimits, OnEvent, Sampling
from workers.generation import Plan
from workers.leases import Leases
from workers.loop import WorkerLoop

MODEL = "m"
LEASE_S = 3.0


@dataclass(frozen=True)
class Faults:
    """Chances per scheduling step (per command for the first three)."""

    lose: float = 0.0
    twice: float = 0.0
    lose_reply: float = 0.0
    drop_message: float = 0.0
    kill: float = 0.0
    stall: float = 0.0
    drain: float = 0.0
    reconnect: float = 0.0
    cancel: float = 0.0
    cut: float = 0.0
    poison: bool = False


PROCESSES = Faults(
    lose=0.01,
    twice=0.01,
    lose_reply=0.01,
    drop_message=0.1,
    kill=0.003,
    stall=0.004,
    drain=0.003,
    reconnect=0.005,
    cancel=0.0005,
)
LOSSY = Faults(drop_message=0.02, kill=0.002, stall=0.002, reconnect=0.003, cut=0.0015)


class SteppedRedis(redis.Redis):
    """A client whose every command is a scheduling point."""

    world: "World"

    def execute_command(self, *args: Any, **options: Any) -> Any:
        verdict = self.world.pause()
        if verdict == "lose":
            raise redis.ConnectionError("lost before it was sent")
        result = super().execute_command(*args, **options)
        if verdict == "twice":
            result = super().execute_command(*args, **options)
        if verdict == "lose_reply":
            raise redis.ConnectionError("executed, reply lost")
        return result

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        assert not transaction
        return SteppedPipeline(self)


class SteppedPipeline:
    """A pipeline that can die between any two of its commands."""

    def __init__(self, client: SteppedRedis) -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any) -> None:
        self._commands.append(args)

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        assert not raise_on_error
        replies: list[Any] = []
        for command in self._commands:
            try:
                replies.append(self._client.execute_command(*command))
            except redis.ResponseError as error:
                replies.append(error)
        return replies


def token(prefix: Iterable[int], salt: int) -> int:
    """The next token after `prefix` as the worker with this salt would draw it; the salt is its last two digits."""
    digest = hashlib.blake2b(repr((tuple(prefix), salt)).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") * 100 + salt


def text_of(token_id: int) -> str:
    """The text of a token: a character that counts twice in UTF-16, so that an offset in the wrong unit shows."""
    return f"{token_id % 100000:x}𝄞" if token_id % 3 else ""


def parts_of(token_ids: Iterable[int]) -> list[Part]:
    """Where the parts of these tokens' text begin: two in five tokens think."""
    parts: list[Part] = []
    length, last = 0, "answer"
    for token_id in token_ids:
        kind = "reasoning" if token_id % 5 < 2 else "answer"
        if text_of(token_id) and kind != last:
            parts.append((length, kind))
            last = kind
        length += len(text_of(token_id))
    return parts


def parted(text: str, parts: Iterable[Part]) -> list[str]:
    """The kind of each character of a text."""
    kinds = ["answer"] * len(text)
    for offset, kind in parts:
        kinds[offset:] = [kind] * (len(text) - offset)
    return kinds


class ModelAnswer:
    """A transcript whose text and parts are a pure function of its tokens."""

    is_over = False
    reasoning_tokens = 0

    @property
    def parts(self) -> Sequence[Part]:
        return parts_of(self.token_ids)

    def __init__(self) -> None:
        self.token_ids: list[int] = []

    def push(self, token_id: int) -> str:
        self.token_ids.append(token_id)
        return text_of(token_id)

    def replay(self, token_ids: Sequence[int]) -> None:
        self.token_ids.extend(token_ids)

    def slice_from(self, token_offset: int) -> tuple[tuple[int, ...], int, str]:
        before = sum(len(text_of(i)) for i in self.token_ids[:token_offset])
        return tuple(self.token_ids[token_offset:]), before, "".join(map(text_of, self.token_ids[token_offset:]))

    def finish(self) -> str:
        return "."


class ModelEngine:
    """Draws tokens when the scheduler says so."""

    name, description = "model", ""
    limits = ModelLimits(1000, 1000, 4, frozenset(), cache_tokens=60)  # not every newcomer has room

    def __init__(self, salt: int) -> None:
        self._salt = salt
        self._jobs: dict[str, tuple[list[int], int, OnEvent]] = {}

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def alive(self) -> bool:
        return True

    def progress(self) -> float:
        return float("inf")

    def submit(self, request_id: str, prompt: Any, sampling: Sampling, on_event: OnEvent) -> None:
        self._jobs[request_id] = (list(prompt), sampling.max_new_tokens, on_event)

    def cancel(self, request_id: str) -> None:
        self._jobs.pop(request_id, None)

    def step(self, chooser: random.Random) -> None:
        """One token for most of the jobs; one that is complete ends."""
        for request_id, (ids, left, on_event) in list(self._jobs.items()):
            if chooser.random() < 0.3:
                continue
            ids.append(token(ids, self._salt))
            self._jobs[request_id] = (ids, left - 1, on_event)
            ended = left == 1
            if ended:
                del self._jobs[request_id]
            on_event(EngineEvent(request_id, (ids[-1],), "finished" if ended else None, "length" if ended else ""))


class Poison(BaseException):
    """What a request does to a worker that plans it."""


class Process:
    """A greenlet with a name, which may be stalled or dead."""

    def __init__(self, world: "World", name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.stalled_until = 0.0
        self.greenlet = greenlet(lambda _verdict: body(), parent=world.hub)

    @property
    def dead(self) -> bool:
        return self.greenlet.dead


class Front:
    """One answer in one front-end process: what its feed does for it. Whoever follows it there lets it step."""

    def __init__(self, world: "World", rid: str) -> None:
        self.rid = rid
        self.answer = Answer(world.requests(world.client()), rid, "u", world.now)
        self.inbox: list[Event | None] = [None]  # None: the subscription was confirmed
        self.lossy = False  # its end was on its way when Redis lost its tail: nothing can take it back
        self._polling = False

    def step(self, now: float) -> None:
        while self.inbox:
            event = self.inbox.pop(0)
            if event is None:
                self.answer.resubscribed()
            else:
                self.answer.live(event, now)
        if not self._polling and self.answer.due(now):
            self._polling = True
            try:
                self.answer.poll(now)
            except redis.ConnectionError:
                self.answer.resubscribed()
            finally:
                self._polling = False

    @property
    def has_end(self) -> bool:
        return self.answer.reader.end is not None or any(event is not None and event.terminal for event in self.inbox)


class Reader:
    """A person in front of an answer: applies events strictly and remembers what was wrong with them."""

    def __init__(self, world: "World", rid: str, request: ChatRequest | None) -> None:
        self.world, self.rid, self.request = world, rid, request
        self.text, self.nonce = "", ""
        self.kinds: list[str] = []  # of each character
        self.done: list[Done] = []
        self.rewinds = 0
        self.front: Front | None = None
        self.lossy = False
        self.problems: list[str] = []

    def apply(self, event: ReaderEvent) -> None:
        if self.done:
            self.problems.append(f"{event} after the end")
        if isinstance(event, Text):
            if event.offset != len(self.text):
                self.problems.append(f"text at {event.offset}, have {len(self.text)}")
            self.text += event.text
            self.kinds += [event.part] * len(event.text)
            self.nonce = event.nonce
        elif isinstance(event, Rewind):
            self.rewinds += 1
            self.text, self.nonce = self.text[: event.offset], event.nonce
            del self.kinds[event.offset :]
        elif isinstance(event, Done):
            self.done.append(event)

    def body(self) -> None:
        """Submit (when this is the submitter), subscribe, follow; with a reconnect now and then."""
        world = self.world
        requests = world.requests(world.client())
        if self.request:
            while True:
                try:
                    requests.submit(self.request)
                    break
                except redis.ConnectionError:
                    world.pause()
        while not self.done:
            self._follow(world.front(self.rid))

    def _follow(self, front: Front) -> None:
        world, self.front = self.world, front
        follower = Follower(front.answer, lambda: None, len(self.text), self.nonce)
        if self.request:
            front.answer.submitted(self.request)
        while not self.done:
            world.pause()
            if world.chance(world.faults.reconnect):
                return
            front.step(world.now)
            while (event := follower.next()) is not None:
                self.apply(event)


class World:
    """One episode."""

    def __init__(self, server: EmbeddedServer, seed: int, faults: Faults) -> None:
        self.server, self.faults = server, faults
        self.random = random.Random(seed)
        self.keys = Keys(f"w{uuid.uuid4().hex[:10]}")
        self.now = 0.0
        self.hub = getcurrent()
        self.cuts = 0
        self.poison_rid = "poison" if faults.poison else ""
        self._rids = [f"r{i}" for i in range(3)] + ([self.poison_rid] if faults.poison else [])
        self._connect()
        self.real.sadd(self.keys.models, MODEL)
        self.processes: list[Process] = []
        self.readers: list[Reader] = []
        self.fronts: list[Front] = []
        self._next_worker = 0
        self._broken: set[str] = set()
        for _ in range(3):
            self.add_worker()
        for rid in self._rids:
            options = SamplingOptions(max_new_tokens=self.random.randint(10, 60))
            request = ChatRequest(rid, "u", MODEL, (Message("user", rid),), options)
            self.add_reader(rid, request)
            self.add_reader(rid, None)

    # -- processes -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        options = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
        self.real = redis.Redis.from_url(self.server.url, **options)
        self.stepped = SteppedRedis.from_url(self.server.url, **options)
        self.stepped.world = self
        self._subscribe()

    def _subscribe(self) -> None:
        self.pubsub = self.real.pubsub()
        for rid in self._rids:
            self.pubsub.ssubscribe(self.keys.events(rid))
        self._drain_messages(deliver=False)

    def client(self) -> SteppedRedis:
        return self.stepped

    def requests(self, client: redis.Redis) -> Requests:
        """A front end's, which counts what its user uses."""
        quotas = Quotas(client, self.keys, default=UserLimits(tokens_per_day=10**9))
        return Requests(client, self.keys, quotas=quotas)

    def close(self) -> None:
        for process in self.processes:
            if not process.dead:
                process.greenlet.throw(GreenletExit)
        self.pubsub.close()
        self.real.close()
        self.stepped.close()

    def add_worker(self) -> None:
        self._next_worker += 1
        wid = f"w{self._next_worker}"
        salt = self._next_worker % 100
        self.processes.append(Process(self, wid, lambda: self._worker(wid, salt)))

    def add_reader(self, rid: str, request: ChatRequest | None) -> None:
        reader = Reader(self, rid, request)
        self.readers.append(reader)
        self.processes.append(Process(self, f"reader-{rid}", reader.body))

    def front(self, rid: str) -> Front:
        """Where a reader comes: a process that knows nothing of the answer, or one where somebody has followed it."""
        known = [front for front in self.fronts if front.rid == rid and not front.lossy]
        if known and self.chance(0.5):
            return self.random.choice(known)
        self.fronts.append(Front(self, rid))
        return self.fronts[-1]

    def _worker(self, wid: str, salt: int) -> None:
        client = self.client()
        queue, journal = RequestQueue(client, self.keys, MODEL), Journal(client, self.keys)
        identity = WorkerIdentity(wid, max_tries=3, deadline_ms=3_600_000)
        leases = Leases(queue, journal, wid, lease_s=LEASE_S, now=self.now)
        engine = ModelEngine(salt)
        inbox: list[EngineEvent] = []
        loop = WorkerLoop(
            client,
            leases,
            engine,  # type: ignore[arg-type]
            self._plan,
            stall_s=1e9,
            slots=2,
            on_event=inbox.append,
            now=self.now,
        )
        while True:
            self.pause()
            try:
                if self.chance(self.faults.drain):
                    loop.drain(self.now)
                    return
                if len(loop.running) < 2:
                    entry = queue.take(wid, suspects=not loop.has_suspect)
                    if entry:
                        loop.accept(Assignment(queue, journal, identity, entry), self.now)
                engine.step(self.random)
                while inbox:
                    loop.engine_event(inbox.pop(0))
                loop.flush(self.now)
                loop.keep(self.now)
            except redis.ConnectionError:
                leases.disconnected(self.now)
            except Poison:
                return

    def _plan(self, request: ChatRequest) -> Plan:
        if request.rid == self.poison_rid:
            raise Poison
        prompt = list(request.rid.encode())
        return Plan(prompt, Sampling(request.sampling.max_new_tokens), ModelAnswer())

    # -- the scheduler -------------------------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def pause(self) -> str:
        """Called by a process: let others run. The answer is what happens to the command that follows."""
        return str(self.hub.switch())

    def step(self) -> None:
        """One step of one process, and perhaps a fault."""
        self.now += self.random.random() * 0.01
        ready = [p for p in self.processes if not p.dead and p.stalled_until <= self.now]
        if ready:
            process = self.random.choice(ready)
            is_worker = process.name.startswith("w")
            if is_worker and self.chance(self.faults.kill):
                process.greenlet.throw(GreenletExit)
            elif is_worker and self.chance(self.faults.stall):
                process.stalled_until = self.now + self.random.random() * 6
            else:
                process.greenlet.switch(self._verdict(process))
        self._drain_messages(deliver=True)
        if self.chance(self.faults.cut):
            self.cut()
        if self.chance(self.faults.cancel):
            self.cancel(self.random.choice(self.readers).rid)
        if sum(p.name.startswith("w") and not p.dead for p in self.processes) < 2:
            self.add_worker()

    def _verdict(self, process: Process) -> str:
        if process.name in self._broken:
            self._broken.discard(process.name)
            return "lose"
        for verdict in ("lose", "twice", "lose_reply"):
            if self.chance(getattr(self.faults, verdict)):
                return verdict
        return "run"

    def cancel(self, rid: str) -> None:
        try:
            self.requests(self.real).cancel(rid, "u")
        except ChatServerError:
            return

    def _drain_messages(self, *, deliver: bool) -> None:
        """Everything published so far: the pong comes after it."""
        self.pubsub.ping()
        while True:
            message = self.pubsub.get_message(timeout=5)
            assert message is not None, "the server does not answer"
            if message["type"] == "pong":
                return
            if message["type"] == "smessage" and deliver:
                self._deliver(message)

    def _deliver(self, message: dict[str, Any]) -> None:
        event = Event.decode(message["data"])
        channel = message["channel"].decode()
        for front in self.fronts:
            if channel == self.keys.events(front.rid) and not self.chance(self.faults.drop_message):
                front.inbox.append(event)

    def cut(self) -> None:
        """SIGKILL to the server, its append-only file cut at a random byte of its last third, then a restart."""
        self.cuts += 1
        self.server.kill()
        newest = max(
            Path(self.server.folder, "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime
        )
        size = newest.stat().st_size
        with newest.open("rb+") as file:
            file.truncate(self.random.randint(size - size // 3, size))
        for front in self.fronts:
            front.lossy = front.lossy or front.has_end
        for reader in self.readers:
            reader.lossy = reader.lossy or bool(reader.done) or (reader.front is not None and reader.front.lossy)
        self.server.start()
        self.real.close()
        self.stepped.connection_pool.disconnect()
        self.pubsub.close()
        self._subscribe()
        self.real.sadd(self.keys.models, MODEL)
        self._broken = {p.name for p in self.processes if not p.dead}
        for front in self.fronts:
            front.inbox.append(None)

    # -- an episode ----------------------------------------------------------------------------------------------

    def run(self, *, faulty_steps: int = 1500, calm_steps: int = 25_000) -> list[str]:
        """Faults for a while, then calm until everything is answered; what was violated."""
        for _ in range(faulty_steps):
            self.step()
        poison = self.faults.poison
        self.faults = Faults(poison=poison)
        for process in self.processes:
            process.stalled_until = 0.0
        for number in range(calm_steps):
            self.step()
            if number % 50 == 0 and self._settled():
                break
        return self._violations()

    def _settled(self) -> bool:
        return all(reader.done for reader in self.readers) and not self.real.xlen(self.keys.requests(MODEL))

    def _violations(self) -> list[str]:
        found: list[str] = []
        for reader in self.readers:
            found += [f"reader of {reader.rid}: {problem}" for problem in reader.problems]
            if len(reader.done) != 1:
                found.append(f"reader of {reader.rid}: {len(reader.done)} ends, stuck with {reader.text!r:.60}")
                continue
            found += self._compare(reader)
        if not self.cuts:
            found += [f"reader of {r.rid}: rewind though nothing was lost" for r in self.readers if r.rewinds]
        if self.real.xlen(self.keys.requests(MODEL)):
            found.append("the queue is not empty")
        if self.real.exists(
            *(keys(MODEL) for keys in (self.keys.ids, self.keys.users, self.keys.waiting, self.keys.turns))
        ):
            found.append("the queue's counters are not empty")
        return found + ([] if self.cuts else self._miscounted())

    def _miscounted(self) -> list[str]:
        """Whether the quota of the user holds what the requests used: each once, whatever died."""
        usage = self.requests(self.real).quotas.usage("u")
        used = sum(map(self._used, self._rids))
        if (usage.used, usage.in_flight) == (used, 0):
            return []
        return [f"{usage.used} tokens are counted, {used} were used; {usage.in_flight} in flight"]

    def _used(self, rid: str) -> int:
        read = Journal(self.real, self.keys).read(rid)
        if read is None or not read[0].begun_ms:
            return 0
        head = read[0]
        if head.status == "finished":
            return len(rid) + head.n
        return estimate(ChatRequest(rid, "u", MODEL, (Message("user", rid),))).prompt + head.n

    def _compare(self, reader: Reader) -> list[str]:
        if reader.lossy:
            return []  # it had its end and left before Redis lost the tail: nothing can reach it any more
        read = Journal(self.real, self.keys).read(reader.rid)
        if read is None:
            return [f"{reader.rid} is gone"]
        head, events = read
        found = []
        ends = [event for event in events if event.terminal]
        if len(ends) != 1 or not events[-1].terminal or head.status != ends[0].kind:
            found.append(f"{reader.rid}: terminals {[e.kind for e in ends]}, last {events[-1].kind}, {head.status}")
        ids: list[int] = []
        text = ""
        for event in events:
            if event.off != len(ids) or event.toff != len(text):
                found.append(f"{reader.rid}: entry at {event.off}/{event.toff}, journal at {len(ids)}/{len(text)}")
            ids += event.ids
            text += event.text
        prefix = list(reader.rid.encode())
        for token_id in ids:
            if token(prefix, token_id % 100) != token_id:
                found.append(f"{reader.rid}: spliced answer")
                break
            prefix.append(token_id)
        if reader.text != text:
            found.append(f"{reader.rid}: shown {reader.text!r:.80} is not the journal's {text!r:.80}")
        elif reader.kinds != parted(text, parts_of(ids)):
            found.append(f"{reader.rid}: the parts are not those of the tokens")
        if (reader.done[0].parts or ()) != tuple(parts_of(ids)) and reader.done[0].code != "gone":
            found.append(f"{reader.rid}: the end told other parts")
        if reader.done[0].status != head.status:
            found.append(f"{reader.rid}: told {reader.done[0].status}, journal says {head.status}")
        if head.code == "poison" and reader.rid != self.poison_rid:
            found.append(f"innocent {reader.rid} was given up as poison")
        if self.poison_rid == reader.rid and head.status == "finished":
            found.append("the poison request finished")
        return found
