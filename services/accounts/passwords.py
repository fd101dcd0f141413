"""Passwords: which are accepted, and their argon2 hashes. `users.py` keeps the hashes."""

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.errors import InvalidRequest

LEAST_CHARS = 10
MOST_CHARS = 1024  # a longer text would only cost time
MEMORY_KIB = 19_456  # with two rounds on one processor: OWASP's least for argon2id; a few sign-ins fit beside the chat


class Passwords:
    """Hashes and verifies. A hash takes some tens of milliseconds: call it outside an event loop."""

    def __init__(self, memory_kib: int = MEMORY_KIB, rounds: int = 2) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory_kib, parallelism=1)
        self._nobody = self._hasher.hash("the password of nobody")

    def hash(self, password: str, name: str = "") -> str:
        """Raises InvalidRequest for a password that is too short, too long, or the user's name."""
        password = _normal(password)
        if not LEAST_CHARS <= len(password) <= MOST_CHARS:
            raise InvalidRequest(
                f"a password has {LEAST_CHARS} to {MOST_CHARS:,} characters, not {len(password):,}", field="password"
            )
        if name and password.lower() == name.lower():
            raise InvalidRequest("the password is the user's name; choose another", field="password")
        return self._hasher.hash(password)

    def fits(self, hashed: str, password: str) -> bool:
        """Whether the password has this hash. Without a hash, it takes as long as with one, and does not fit."""
        try:
            return self._hasher.verify(hashed or self._nobody, _normal(password)[: MOST_CHARS + 1]) and bool(hashed)
        except (VerificationError, InvalidHashError):
            return False

    def is_outdated(self, hashed: str) -> bool:
        """Whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)


def _normal(password: str) -> str:
    """The same text however a keyboard composes its accents."""
    return unicodedata.normalize("NFKC", password)
