"""One's own account: the password, the browsers that have signed in, API keys, and conversations to take over."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

from flask import Blueprint, Response, jsonify, redirect, request, session, url_for
from werkzeug.wrappers import Response as AnyResponse

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.accounts.sessions import digest_of, handle_of
from services.accounts.users import User
from services.connection.connect import translated
from services.errors import ChatServerError, Unauthorized
from webapp.access import visitors
from webapp.access.address import any_address_of
from webapp.access.stored import Stored
from webapp.accounts.adoption import Adoption
from webapp.accounts.attempts import SignInAttempts
from webapp.accounts.sign_in import Page, page_with, welcome
from webapp.server.threads import in_slow_thread, in_thread

Form = Callable[[User], AnyResponse | Page]


def add_account(
    pages: Blueprint,
    accounts: Accounts,
    keys: ApiKeys,
    attempts: SignInAttempts,
    adoption: Adoption,
    stored: Stored,
) -> None:
    """Routes `/account…` and `/api/account/adopt`."""

    def page(error: ChatServerError | None = None, *, section: str = "", new_key: str = "") -> Page:
        user, former = _user(), visitors.former_visitor()
        with translated():
            own_keys = keys.list(user.id)
        return page_with(
            "account.html",
            error,
            section=section,
            new_key=new_key,
            keys=own_keys,
            sessions=in_thread(accounts.sessions.of_user, user.id),
            this_session=handle_of(digest_of(str(session.get(visitors.SECRET, "")))),
            adoptable=in_thread(adoption.num_conversations, former) if former else 0,
            stored=in_slow_thread(stored.of, user.id),
            ago=_ago,
            now_ms=round(time.time() * 1000),
        )

    def form(section: str, act: Form) -> Page | AnyResponse:
        """Do what a form asks; what goes wrong stands beside it."""
        try:
            with translated():
                return act(_user())
        except ChatServerError as error:
            return page(error, section=section)

    @pages.get("/account")
    def account() -> Page:
        return page()

    _add_password(pages, accounts, attempts, adoption, form)

    @pages.post("/account/sessions/end")
    def end_session() -> Page | AnyResponse:
        handle = request.form.get("session", "")
        return form("sessions", lambda user: _done(in_thread(accounts.sessions.end_of_user, user.id, handle)))

    @pages.post("/account/keys")
    def create_key() -> Page | AnyResponse:
        name = request.form.get("name", "")
        return form("keys", lambda user: page(new_key=keys.create_own(name, user.id), section="keys"))

    @pages.post("/account/keys/revoke")
    def revoke_key() -> Page | AnyResponse:
        return form("keys", lambda user: _done(keys.revoke(request.form.get("name", ""), user.id)))

    @pages.post("/account/adopt")
    def adopt() -> Page | AnyResponse:
        def take_over(_: User) -> AnyResponse:
            _adopt(adoption)
            return redirect("/")

        return form("adoption", take_over)

    @pages.post("/api/account/adopt")
    def api_adopt() -> Response:
        return jsonify(adopted=_adopt(adoption))


def _add_password(
    pages: Blueprint,
    accounts: Accounts,
    attempts: SignInAttempts,
    adoption: Adoption,
    form: Callable[[str, Form], Page | AnyResponse],
) -> None:
    @pages.post("/account/password")
    def change_password() -> Page | AnyResponse:
        return form("password", change)

    def change(user: User) -> AnyResponse:
        """Every session of the user ends, and this browser's begins anew."""
        attempts.admit(user.name, any_address_of(request))
        in_thread(
            accounts.users.change_password, user.id, request.form.get("old", ""), request.form.get("password", "")
        )
        return welcome(accounts, adoption, user, url_for("accounts.account"))


def _user() -> User:
    user = visitors.signed_in()
    if user is None:
        raise Unauthorized("your session has ended; sign in again")
    return user


def _done(_: object) -> AnyResponse:
    return redirect(url_for("accounts.account"))


def _adopt(adoption: Adoption) -> int:
    former = visitors.former_visitor()
    num = in_thread(adoption.adopt, former, _user().id) if former else 0
    session.pop(visitors.FORMER, None)
    return num


def _ago(then_s: float | None) -> str:
    """A time of the past in words, to the day."""
    if then_s is None:
        return "never"
    minutes = round(max(time.time() - then_s, 0) / 60)
    if minutes < 2:
        return "just now"
    if minutes < 120:
        return f"{minutes} minutes ago"
    if minutes < 2880:
        return f"{minutes // 60} hours ago"
    return f"on {datetime.fromtimestamp(then_s, UTC):%Y-%m-%d}"
