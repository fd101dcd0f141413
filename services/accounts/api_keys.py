"""API keys: made once, shown once, kept as a digest in Redis. The command makes them, the web app looks them up.

A key is 256 random bits, so a plain SHA-256 is as good as a slow hash: nothing can be guessed. When a key was used last
is kept beside it: a build that knows nothing of that reads the keys all the same.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import orjson
from redis import Redis

from services.connection.connect import server_time
from services.errors import Conflict, InvalidRequest, UserLimit
from services.wire.keys import Keys, check_name

PREFIX = "sk-chatserver-"
USE_EVERY_S = 60.0  # how exactly the last use is known
MOST_OWN = 50  # keys that a user makes


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key: its name, its user, when it was made (seconds), its last characters, its last use."""

    name: str
    user: str
    created: float
    ending: str
    used: float | None = None


class ApiKeys:
    """The keys of one installation."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._hash = keys.api_keys
        self._uses = keys.api_key_uses
        self._noted: dict[str, float] = {}  # digest → when this process wrote down a use last

    def create(self, name: str, user: str) -> str:
        """A new key for a user; nobody can ever show it again. Raises InvalidRequest, or Conflict for a name in use."""
        return self._create(name, user, self.list())

    def create_own(self, name: str, user: str) -> str:
        """The same by the user: the names of other users' keys are none of theirs. Raises UserLimit for too many."""
        own = self.list(user)
        if len(own) >= MOST_OWN:
            raise UserLimit(f"you have {MOST_OWN} keys, and may have no more", remedy="revoke one that you do not use")
        return self._create(name, user, own)

    def _create(self, name: str, user: str, others: Sequence[ApiKey]) -> str:
        check_name(name, "name")
        check_name(user, "user")
        if any(each.name == name for each in others):
            raise Conflict(f"a key named {name!r} exists already; revoke it or choose another name")
        secret = PREFIX + secrets.token_urlsafe(32)
        about = asdict(ApiKey(name, user, server_time(self._redis), secret[-4:]))
        del about["used"]
        self._redis.hset(self._hash, _digest(secret), orjson.dumps(about))
        return secret

    def list(self, user: str = "") -> list[ApiKey]:
        """All keys, or those of a user, by name."""
        return sorted((about for _, about in self._found(user)), key=lambda each: (each.name, each.user))

    def revoke(self, name: str, user: str = "") -> ApiKey:
        """No request with this key is served from now on. Raises InvalidRequest for an unknown name, or for one that
        keys of several users have."""
        found = [(digest, about) for digest, about in self._found(user) if about.name == name]
        if len(found) > 1:
            users = ", ".join(sorted(about.user for _, about in found))
            raise InvalidRequest(f"keys of several users are named {name!r:.80}: {users}; say whose")
        if not found:
            known = ", ".join(each.name for each in self.list(user)) or "none"
            raise InvalidRequest(f"no key is named {name!r:.80}; keys: {known}")
        [(digest, about)] = found
        self._redis.hdel(self._hash, digest)
        self._redis.hdel(self._uses, digest)
        return about

    def user_of(self, secret: str) -> str:
        """The user of a key, which is used now; empty if it is not one."""
        digest = _digest(secret)
        raw = self._redis.hget(self._hash, digest) if secret.startswith(PREFIX) else None
        if not raw:
            return ""
        self._note_use(digest)
        return _decoded(raw).user

    def _found(self, user: str) -> Iterator[tuple[bytes, ApiKey]]:
        uses = self._redis.hgetall(self._uses)
        for digest, raw in self._redis.hgetall(self._hash).items():
            about = _decoded(raw)
            if not user or about.user == user:
                yield digest, replace(about, used=float(uses[digest]) if digest in uses else None)

    def _note_use(self, digest: str) -> None:
        now = time.monotonic()
        if now - self._noted.get(digest, -USE_EVERY_S) >= USE_EVERY_S:
            self._noted[digest] = now
            self._redis.hset(self._uses, digest, server_time(self._redis))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _decoded(raw: bytes) -> ApiKey:
    return ApiKey(**orjson.loads(raw))
