"""API keys: made once, shown once, kept as a digest in Redis. The command makes them, the web app looks them up.

A key is 256 random bits, so a plain SHA-256 is as good as a slow hash: nothing can be guessed.
"""

import hashlib
import secrets
from dataclasses import asdict, dataclass

import orjson
from redis import Redis

from services.connection.connect import server_time
from services.errors import Conflict, InvalidRequest
from services.wire.keys import Keys, check_name

PREFIX = "sk-chatserver-"


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key: its name, its user, when it was made (seconds), its last characters."""

    name: str
    user: str
    created: float
    ending: str


class ApiKeys:
    """The keys of one installation."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._hash = keys.api_keys

    def create(self, name: str, user: str) -> str:
        """A new key for a user; nobody can ever show it again. Raises InvalidRequest, or Conflict for a name in use."""
        check_name(name, "name")
        check_name(user, "user")
        if any(each.name == name for each in self.list()):
            raise Conflict(f"a key named {name!r} exists already; revoke it or choose another name")
        secret = PREFIX + secrets.token_urlsafe(32)
        about = ApiKey(name, user, server_time(self._redis), secret[-4:])
        self._redis.hset(self._hash, _digest(secret), orjson.dumps(asdict(about)))
        return secret

    def list(self) -> list[ApiKey]:
        """All keys, by name."""
        return sorted((_decoded(raw) for raw in self._redis.hvals(self._hash)), key=lambda each: each.name)

    def revoke(self, name: str) -> ApiKey:
        """No request with this key is served from now on. Raises InvalidRequest for an unknown name."""
        for digest, raw in self._redis.hgetall(self._hash).items():
            about = _decoded(raw)
            if about.name == name:
                self._redis.hdel(self._hash, digest)
                return about
        known = ", ".join(each.name for each in self.list()) or "none"
        raise InvalidRequest(f"no key is named {name!r:.80}; keys: {known}")

    def user_of(self, secret: str) -> str:
        """The user of a key; empty if it is not one."""
        raw = self._redis.hget(self._hash, _digest(secret)) if secret.startswith(PREFIX) else None
        return _decoded(raw).user if raw else ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _decoded(raw: bytes) -> ApiKey:
    return ApiKey(**orjson.loads(raw))
