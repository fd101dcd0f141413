"""The wire: the only module that spells a key, a channel, a field or a status. docs/protocol.md explains it to others.

`ns` is the namespace of the installation, `{…}` a Redis Cluster hash tag: all keys of one model's queue share a slot,
all keys of one request share another, and a script touches one slot only.

    key                       type     meaning
    ns:{model}:requests       stream   the work queue, consumer group `workers`; deleted on ack; never trimmed
    ns:{model}:waiting:{v}    zset     `<entry id> <rid> <user>` → place in line, of whoever has no worker; v: VERSION
    ns:{model}:turns          hash     `<priority> <user>` → the user's last turn; `#<priority>` → the turn served now
    ns:{model}:pace           hash     how fast the line moves; expires
    ns:{model}:ids            hash     request id → entry id, for every request in flight
    ns:{model}:users          hash     user → number of entries in the queue
    ns:{model}:dead           stream   the newest 1,000 requests given up, with reason and payload
    ns:{rid}:state            hash     status user model payload epoch nonce n toff tries begins … ; expires
    ns:{rid}:journal          stream   the answer: `<epoch>-<n>` → k (kind), e (JSON event); expires
    ns:{rid}:events           sharded channel  the same JSON events, live, and keep-alive beats
    ns:control                channel  wake-ups for workers: `cancel <rid>`, `queued <model>`; plain, so a cluster
                                       broadcasts it
    ns:workers                zset     worker id → time of its last presence, seconds
    ns:worker:{wid}           hash     presence of one worker; expires when it stops renewing
    ns:models                 set      every model that a worker ever announced
    ns:catalogue              hash     name → JSON: a model that was trained here, where it is and what it comes from
    ns:wanted                 hash     name of a trained model that shall be served → since when, seconds
    ns:claim:{model}          string   the standby worker that loads or serves a wanted model; expires
    ns:trouble:{model}        string   why a wanted model could not be loaded, for people; expires
    ns:jobs                   zset     jid → when it was submitted first, seconds
    ns:{jid}:job              hash     kind name state spec error cancelling created_s started_s ended_s …; expires
    ns:{jid}:units            hash     unit name → JSON: what is known of a unit's progress; for people, expires
    ns:{jid}:log              stream   `line`: the newest 2,000 lines that people read of a job; expires
    ns:{jid}:points           hash     step → JSON: one point of a fine-tuning's loss curve; expires
    ns:{jid}:tasks            hash     `<what> <unit>` → when a task was sent, who runs it, how often it was tried
    ns:beat                   string   the beat that lives; expires
    ns.celery.…               -        what Celery keeps: its queues are lists of this name

A reader's cursor is (text offset in Unicode code points, nonce), never a stream id.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from services.errors import InvalidRequest, ProtocolError

VERSION = 1
GROUP = "workers"
HANDBACK = "handback"  # the consumer that holds entries which ran before and stand in line again
TERMINAL = frozenset({"finished", "failed", "cancelled"})
NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")

# Celery's: a task's name is how a message finds its function.
UNITS_QUEUE = "units"  # what takes long
SWEEPS_QUEUE = "sweeps"  # what must not wait for it
TRAININGS_QUEUE = "trainings"  # what may wait for a cloud
ADVANCE_TASK = "chatserver.advance"
UNIT_TASK = "chatserver.unit"
SWEEP_TASK = "chatserver.sweep"
TRAIN_TASK = "chatserver.train"

EventKind = Literal["begin", "tokens", "beat", "finished", "failed", "cancelled"]
Priority = Literal["interactive", "batch"]


def shown(value: object) -> str:
    """An untrusted value in a message: at most 80 characters of it, and of a collection only what it is.

    The `repr` of what a client has nested a thousand times would raise RecursionError.
    """
    return f"{value!r:.80}" if isinstance(value, str | int | float | None) else f"({type(value).__name__})"


def check_name(value: object, what: str) -> str:
    """A request id, model or user that may become part of a key. Raises InvalidRequest."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidRequest(f"{what} {shown(value)} is not 1-128 characters of A-Z a-z 0-9 . _ / -")
    return value


@dataclass(frozen=True)
class Keys:
    """Every key and channel of one installation."""

    namespace: str

    def requests(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:requests"

    def waiting(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:waiting:{VERSION}"

    def turns(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:turns"

    def pace(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:pace"

    def ids(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:ids"

    def users(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:users"

    def dead(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:dead"

    def state(self, rid: str) -> str:
        return f"{self.namespace}:{{{rid}}}:state"

    def journal(self, rid: str) -> str:
        return f"{self.namespace}:{{{rid}}}:journal"

    def events(self, rid: str) -> str:
        return f"{self.namespace}:{{{rid}}}:events"

    @property
    def control(self) -> str:
        return f"{self.namespace}:control"

    @property
    def workers(self) -> str:
        return f"{self.namespace}:workers"

    def worker(self, wid: str) -> str:
        return f"{self.namespace}:worker:{{{wid}}}"

    @property
    def models(self) -> str:
        return f"{self.namespace}:models"

    @property
    def catalogue(self) -> str:
        return f"{self.namespace}:catalogue"

    @property
    def wanted(self) -> str:
        return f"{self.namespace}:wanted"

    def claim(self, model: str) -> str:
        return f"{self.namespace}:claim:{{{model}}}"

    def trouble(self, model: str) -> str:
        return f"{self.namespace}:trouble:{{{model}}}"

    @property
    def jobs(self) -> str:
        return f"{self.namespace}:jobs"

    def job(self, jid: str) -> list[str]:
        """All keys of one job, as its scripts take them: job, units, log, tasks."""
        return [f"{self.namespace}:{{{jid}}}:{kind}" for kind in ("job", "units", "log", "tasks", "points")]

    @property
    def beat(self) -> str:
        return f"{self.namespace}:beat"

    @property
    def celery(self) -> str:
        """What Celery's own keys start with."""
        return f"{self.namespace}.celery."


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class SamplingOptions:
    """What a client may ask of generation. `max_new_tokens` is never unbounded."""

    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


_RANGES: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_new_tokens": (int, 1, 131_072),
    "temperature": (float, 0, 5),
    "top_p": (float, 0.001, 1),
    "top_k": (int, 0, 1_000_000),
    "repetition_penalty": (float, 0.1, 10),
    "seed": (int, 0, 2**31 - 1),
}


def _parse_number(name: str, value: Any) -> float:
    kind, low, high = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not low <= value <= high:
        raise InvalidRequest(f"sampling.{name}={shown(value)} is not a number from {low} to {high}")
    return kind(value)


def parse_sampling(raw: object) -> SamplingOptions:
    """Sampling options from untrusted JSON. Raises InvalidRequest naming the field, the value and the range."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"sampling must be an object, not {type(raw).__name__}")
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name == "stop":
            values["stop"] = _parse_stop(value)
        elif name in _RANGES:
            if value is None and name == "seed":
                continue
            values[name] = _parse_number(name, value)
        else:
            known = ", ".join([*_RANGES, "stop"])
            raise InvalidRequest(f"unknown sampling option {shown(name)}; known: {known}")
    return SamplingOptions(**values)


def _parse_stop(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or len(value) > 16:
        raise InvalidRequest("sampling.stop must be a list of at most 16 strings")
    if not all(isinstance(s, str) and 0 < len(s) <= 256 for s in value):
        raise InvalidRequest("each stop string must have 1 to 256 characters")
    for text in value:
        _check_text(text, "a stop string")
    return tuple(value)


def _check_text(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} holds half of a surrogate pair, which is not valid Unicode") from None


@dataclass(frozen=True)
class ChatRequest:
    """One question: what is stored with the request and read by the worker."""

    rid: str
    user: str
    model: str
    messages: tuple[Message, ...]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    priority: Priority = "interactive"

    def encode(self) -> bytes:
        return orjson.dumps({"v": VERSION, **asdict(self)})

    @classmethod
    def decode(cls, data: bytes) -> "ChatRequest":
        """Raises ProtocolError on anything that `encode` of this version did not write."""
        try:
            raw = orjson.loads(data)
            if raw["v"] != VERSION:
                raise ProtocolError(f"request of protocol version {raw['v']!r:.20}; this process speaks {VERSION}")
            sampling = SamplingOptions(**{**raw["sampling"], "stop": tuple(raw["sampling"]["stop"])})
            messages = tuple(Message(**message) for message in raw["messages"])
            for name in ("rid", "user", "model"):
                check_name(raw[name], name)
            return cls(raw["rid"], raw["user"], raw["model"], messages, sampling, raw["priority"])
        except (KeyError, TypeError, ValueError, InvalidRequest) as error:
            raise ProtocolError(f"undecodable request of {len(data)} bytes: {error}") from None


def parse_request(raw: object, *, user: str, max_chars: int) -> ChatRequest:
    """A request from untrusted JSON `{id, model, messages, sampling?, priority?}`.

    Raises InvalidRequest naming what is wrong.
    """
    if not isinstance(raw, Mapping):
        raise InvalidRequest(f"a request must be an object, not {type(raw).__name__}")
    unknown = set(raw) - {"id", "model", "messages", "sampling", "priority"}
    if unknown:
        raise InvalidRequest(f"unknown request field {sorted(map(str, unknown))[0]!r:.80}")
    rid = check_name(raw.get("id"), "id")
    model = check_name(raw.get("model"), "model")
    messages = parse_messages(raw.get("messages"), max_chars=max_chars)
    sampling = parse_sampling(raw.get("sampling") or {})
    return ChatRequest(rid, check_name(user, "user"), model, messages, sampling, _parse_priority(raw.get("priority")))


def _parse_priority(raw: object) -> Priority:
    if raw in (None, "interactive"):
        return "interactive"
    if raw == "batch":
        return "batch"
    raise InvalidRequest(f"priority {raw!r:.80} is not interactive or batch")


def parse_messages(raw: object, *, max_chars: int) -> tuple[Message, ...]:
    """Turns from untrusted JSON: an optional system turn, then at least one more, the last from the user."""
    if not isinstance(raw, list) or not raw or len(raw) > 2_000:
        raise InvalidRequest("messages must be a list of 1 to 2000 turns")
    messages = []
    for index, turn in enumerate(raw):
        if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
            raise InvalidRequest(f"messages[{index}] must be an object with role and content")
        if turn["role"] not in ("system", "user", "assistant"):
            raise InvalidRequest(f"messages[{index}].role={shown(turn['role'])} is not system, user or assistant")
        if not isinstance(turn["content"], str):
            raise InvalidRequest(f"messages[{index}].content must be text, not {type(turn['content']).__name__}")
        _check_text(turn["content"], f"messages[{index}].content")
        messages.append(Message(turn["role"], turn["content"]))
    if messages[-1].role != "user" or not messages[-1].content.strip():
        raise InvalidRequest("the last message must be a user turn that is not empty")
    chars = sum(len(message.content) for message in messages)
    if chars > max_chars:
        raise InvalidRequest(f"the messages hold {chars} characters; the limit is {max_chars}")
    return tuple(messages)


@dataclass(frozen=True)
class Event:
    """One journal entry or live event of an answer.

    `off` counts tokens and `toff` counts Unicode code points before this entry; they move independently, since a
    detokenizer holds back incomplete characters. `ids` and `text` continue from there. Terminal kinds carry the last
    held-back text, the reason (`stop`, `length`) or error `code`, and `usage`.
    """

    kind: EventKind
    nonce: str
    off: int = 0
    toff: int = 0
    ids: tuple[int, ...] = ()
    text: str = ""
    code: str = ""
    message: str = ""
    usage: dict[str, Any] = field(default_factory=dict)

    @property
    def terminal(self) -> bool:
        return self.kind in TERMINAL

    def encode(self) -> bytes:
        """JSON; fields at their default are left out, so a token entry stays small."""
        raw: dict[str, Any] = {"v": VERSION, "kind": self.kind, "nonce": self.nonce, "off": self.off, "toff": self.toff}
        if self.ids:
            raw["ids"] = self.ids
        if self.text:
            raw["text"] = self.text
        if self.terminal:
            raw.update(code=self.code, message=self.message, usage=self.usage)
        return orjson.dumps(raw)

    @classmethod
    def decode(cls, data: bytes) -> "Event":
        """Raises ProtocolError on anything that `encode` or a script of this version did not write."""
        try:
            raw = orjson.loads(data)
            if raw["v"] != VERSION:
                raise ProtocolError(f"event of protocol version {raw['v']!r:.20}; this process speaks {VERSION}")
            return cls(
                raw["kind"],
                raw["nonce"],
                raw["off"],
                raw["toff"],
                tuple(raw.get("ids", ())),
                raw.get("text", ""),
                raw.get("code", ""),
                raw.get("message", ""),
                raw.get("usage") or {},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"undecodable event of {len(data)} bytes: {error}") from None
