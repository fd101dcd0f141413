"""Every key, channel and task name: the only module that spells one. docs/protocol.md explains the wire to others.

`ns` is the namespace of the installation, `{…}` a Redis Cluster hash tag: all keys of one model's queue share a slot,
all keys of one request share another, and a script touches one slot only.

    key                       type     meaning
    ns:{model}:requests       stream   the work queue, consumer group `workers`; deleted on ack; never trimmed
    ns:{model}:waiting:{v}    zset     `<entry id> <rid> <user>` → place in line, of whoever has no worker; v: VERSION
    ns:{model}:turns          hash     `<priority> <user>` → the last place that the user has paid for, in tokens;
                                       `<priority> ~<user>` → length of the user's answers; `#<priority>` → the place
                                       that is served now
    ns:{model}:pace           hash     how fast the line moves; expires
    ns:{model}:ids            hash     request id → entry id, for every request in flight
    ns:{model}:users          hash     user, or `@` and an address → number of entries in the queue
    ns:{model}:bytes          hash     user, or `#all` → bytes of the payloads in the queue
    ns:{model}:dead           stream   the newest requests given up (1,000, 32 MiB), with reason and payload
    ns:{rid}:state            hash     status user model payload epoch nonce n toff tries begins … ; expires. `note`:
                                       what a front end wants to know of it later (of a response: `ResponseRecord`);
                                       `verdict`: why the moderation flagged it
    ns:{rid}:journal          stream   the answer: `<epoch>-<n>` → k (kind), e (JSON event); expires
    ns:{rid}:events           sharded channel  the same JSON events, live, and keep-alives (`beat`)
    ns:control                channel  wake-ups for workers: `cancel <rid>`, `queued <model>`; plain, so a cluster
                                       broadcasts it
    ns:limits                 hash     user → JSON: the limits that were set for this user alone
    ns:group-limits           hash     user → JSON: the limits of the user's group; web processes copy them there
    ns:{user}:reserved        hash     request id → `day ms prompt answer submit`: tokens that are reserved; expires
    ns:{user}:used            hash     day of UTC, since 1970 → tokens that its requests have used; expires
    ns:workers                zset     worker id → time of its last presence, seconds
    ns:worker:{wid}           hash     presence of one worker; expires when it stops renewing
    ns:api-keys               hash     digest of an API key → JSON: its name, user, when it was made
    ns:api-key-uses           hash     digest of an API key → when it was used last, seconds, to the minute
    ns:sign-in-attempts:…     zset     what the package limits keeps of attempts to sign in; expires
    ns:models                 set      every model that a worker ever announced
    ns:loading:{model}        string   a worker is loading the model; expires when it stops renewing
    ns:catalogue              hash     name → JSON: a model that was trained here, where it is and what it comes from
    ns:wanted                 hash     name of a trained model that shall be served → since when, seconds
    ns:claim:{model}          string   the standby worker that loads or serves a wanted model; expires
    ns:trouble:{model}        string   why a wanted model could not be loaded, for people; expires
    ns:jobs                   zset     jid → when it was submitted first, seconds
    ns:{user}:jobs:<kind>     zset     jid → when it was listed, seconds: a user's batches (`batch`), and the
                                       fine-tunings that programs ordered (`train`)
    ns:{jid}:job              hash     kind name state spec error cancelling created_s started_s ended_s …; expires
    ns:{jid}:units            hash     unit name → JSON: what is known of a unit's progress; for people, expires
    ns:{jid}:log              stream   `line`: the newest 2,000 lines that people read of a job; expires
    ns:{jid}:points           hash     step → JSON: one point of a fine-tuning's loss curve; expires
    ns:{jid}:tasks            hash     `<what> <unit>` → when a task was sent, who runs it, how often it was begun
    ns:{pid}:preview          string   JSON: what the page asks of a fine-tuning's data, and what was found; expires
    ns:beat                   string   the host of a Celery beat that runs; expires
    ns.celery.…               -        what Celery keeps: its queues are lists of this name
"""

import re
from dataclasses import astuple, dataclass, fields

from services.errors import InvalidRequest, shown

VERSION = 1
GROUP = "workers"
HANDBACK = "handback"  # the consumer that holds entries which ran before and stand in line again
NAME = re.compile(r"[A-Za-z0-9._/-]{1,128}")

# Celery's: a task's name is how a message finds its function.
UNITS_QUEUE = "units"  # what takes long
SWEEPS_QUEUE = "sweeps"  # what must not wait for it
TRAININGS_QUEUE = "trainings"  # what may wait for a cloud
BATCHES_QUEUE = "batches"  # what waits for answers
ADVANCE_TASK = "chatserver.advance"
UNIT_TASK = "chatserver.unit"
SWEEP_TASK = "chatserver.sweep"
TRAIN_TASK = "chatserver.train"
PREVIEW_TASK = "chatserver.preview"
BATCH_TASK = "chatserver.batch"
ARCHIVE_TASK = "chatserver.archive"


def check_name(value: object, what: str) -> str:
    """A request id, model or user that may become part of a key. Raises InvalidRequest."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise InvalidRequest(f"{what} {shown(value)} is not 1-128 characters of A-Z a-z 0-9 . _ / -")
    return value


@dataclass(frozen=True)
class JobKeys:
    """The keys of one job, each ending with its field's name, in the order in which its scripts take them
    (`_job.lua`)."""

    job: str
    units: str
    log: str
    tasks: str
    points: str

    @property
    def all(self) -> tuple[str, ...]:
        return astuple(self)


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

    def bytes(self, model: str) -> str:
        return f"{self.namespace}:{{{model}}}:bytes"

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
    def limits(self) -> str:
        return f"{self.namespace}:limits"

    @property
    def group_limits(self) -> str:
        return f"{self.namespace}:group-limits"

    def reserved(self, user: str) -> str:
        return f"{self.namespace}:{{{user}}}:reserved"

    def used(self, user: str) -> str:
        return f"{self.namespace}:{{{user}}}:used"

    @property
    def workers(self) -> str:
        return f"{self.namespace}:workers"

    def worker(self, wid: str) -> str:
        return f"{self.namespace}:worker:{{{wid}}}"

    @property
    def models(self) -> str:
        return f"{self.namespace}:models"

    @property
    def api_keys(self) -> str:
        return f"{self.namespace}:api-keys"

    def loading(self, model: str) -> str:
        return f"{self.namespace}:loading:{{{model}}}"

    @property
    def sign_in_attempts(self) -> str:
        return f"{self.namespace}:sign-in-attempts"

    @property
    def api_key_uses(self) -> str:
        return f"{self.namespace}:api-key-uses"

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

    def job(self, jid: str) -> JobKeys:
        return JobKeys(*(f"{self.namespace}:{{{jid}}}:{field.name}" for field in fields(JobKeys)))

    def owned_jobs(self, user: str, kind: str) -> str:
        return f"{self.namespace}:{{{user}}}:jobs:{kind}"

    def preview(self, pid: str) -> str:
        return f"{self.namespace}:{{{pid}}}:preview"

    @property
    def beat(self) -> str:
        return f"{self.namespace}:beat"

    @property
    def celery(self) -> str:
        """The prefix of Celery's own keys."""
        return f"{self.namespace}.celery."
