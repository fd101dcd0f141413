"""Tells who asks the API of `/v1`: the user of a key, or a program on this machine, which needs none.

Whoever could be a stranger needs a key: another machine, what a proxy forwarded, a page of another origin. Programs
send some key in any case, since their libraries ask for one; here it only keeps their users apart. Where people sign
in, everybody needs a key, and the keys of a disabled user do not work. What the job pages keep for administrators,
`administrator` keeps for them, too.
"""

import hashlib

from flask import Request

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.errors import Forbidden, NotFound, Unauthorized
from webapp.access.local_only import foreign_reader
from webapp.server.threads import in_thread

SCHEME = "bearer"
HOW = "send `Authorization: Bearer KEY`; `chatserver keys create NAME` makes a key"


class Callers:
    """`keys_required`: programs on this machine need a key, too. `accounts`: None where nobody signs in."""

    def __init__(self, keys: ApiKeys, accounts: Accounts | None, *, keys_required: bool) -> None:
        self._keys = keys
        self._accounts = accounts
        self._keys_required = keys_required or accounts is not None

    def user(self, request: Request) -> str:
        """The user who asks. Raises Unauthorized."""
        secret = _secret(request)
        if secret and (user := self._keys.user_of(secret)):
            self._check_enabled(user)
            return user
        if self._keys_required or _may_be_a_stranger(request):
            raise Unauthorized(f"this key is not valid; {HOW}" if secret else f"a key is needed; {HOW}")
        return f"api-{hashlib.sha256(secret.encode()).hexdigest()[:16]}" if secret else "api"

    def administrator(self, request: Request) -> str:
        """The user who asks, where it may do what the job pages do: an administrator's key, or without accounts a
        program on this machine. Raises Unauthorized or Forbidden."""
        user = self.user(request)
        if self._accounts is None:
            if _may_be_a_stranger(request):
                raise Forbidden("without accounts only programs on the machine of the web process may train models")
        elif not in_thread(self._is_admin, self._accounts, user):
            raise Forbidden("this is for administrators; take a key that an administrator made on the account page")
        return user

    @staticmethod
    def _is_admin(accounts: Accounts, user: str) -> bool:
        """A key's user need not be an account."""
        try:
            return accounts.users.get(user).is_admin
        except NotFound:
            return False

    def _check_enabled(self, user: str) -> None:
        """Keys that `chatserver keys create` made need not belong to an account."""
        if self._accounts is not None and in_thread(self._accounts.users.is_disabled, user):
            raise Unauthorized("the account of this key is disabled; ask an administrator")


def _secret(request: Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret.strip() if scheme.lower() == SCHEME else ""


def _may_be_a_stranger(request: Request) -> bool:
    origin = request.headers.get("Origin")
    foreign_page = origin is not None and origin != f"{request.scheme}://{request.headers.get('Host', '')}"
    return foreign_page or bool(foreign_reader(request))
