"""The pages for who has not signed in: signing in, signing up by an invitation, and signing out."""

from flask import Blueprint, redirect, render_template, request, session, url_for
from gevent.lock import BoundedSemaphore
from werkzeug.wrappers import Response

from services.accounts.accounts import Accounts
from services.accounts.users import User
from services.errors import ChatServerError, Gone
from webapp.access import visitors
from webapp.access.address import address_of, any_address_of
from webapp.accounts.adoption import Adoption
from webapp.accounts.attempts import SignInAttempts
from webapp.accounts.browsers import name_of
from webapp.server.threads import in_thread

HASHES_AT_ONCE = 4  # each takes 19 MiB and a processor

Page = tuple[str, int, dict[str, str]]


def add_signing_in(
    pages: Blueprint, accounts: Accounts, attempts: SignInAttempts, adoption: Adoption, *, has_provider: bool
) -> None:
    """Routes `/sign-in`, `/sign-out`."""
    hashing = BoundedSemaphore(HASHES_AT_ONCE)

    def form(error: ChatServerError | None = None) -> Page:
        return page_with(
            "sign_in.html",
            error,
            next=local_path(request.values.get("next", "")),
            name=request.form.get("name", ""),
            has_provider=has_provider,
        )

    @pages.get("/sign-in")
    @visitors.open_to_all
    def sign_in() -> Page | Response:
        if visitors.signed_in() is not None:
            return redirect(local_path(request.args.get("next", "")))
        return form()

    @pages.post("/sign-in")
    @visitors.open_to_all
    def enter() -> Page | Response:
        name, address = request.form.get("name", ""), any_address_of(request)
        try:
            attempts.admit(name, address)
            with hashing:
                user = in_thread(accounts.users.sign_in, name, request.form.get("password", ""))
        except ChatServerError as error:
            return form(error)
        attempts.succeeded(name, address)
        return welcome(accounts, adoption, user, request.form.get("next", ""))

    @pages.post("/sign-out")
    @visitors.open_to_all
    def sign_out() -> Response:
        leave(accounts)
        return redirect(url_for(visitors.SIGN_IN))


def add_signing_up(pages: Blueprint, accounts: Accounts, adoption: Adoption) -> None:
    """Route `/sign-up/<secret>`."""

    def form(error: ChatServerError | None = None, *, is_open: bool = True) -> Page:
        shown = {field: request.form.get(field, "") for field in ("name", "display_name")}
        return page_with("sign_up.html", error, is_open=is_open, **shown)

    @pages.get("/sign-up/<secret>")
    @visitors.open_to_all
    def sign_up(secret: str) -> Page:
        try:
            in_thread(accounts.invitations.get, secret)
        except Gone as error:
            return form(error, is_open=False)
        return form()

    @pages.post("/sign-up/<secret>")
    @visitors.open_to_all
    def accept(secret: str) -> Page | Response:
        fields = (request.form.get(name, "") for name in ("name", "password", "display_name"))
        try:
            user = in_thread(accounts.invitations.accept, secret, *fields)
        except ChatServerError as error:
            return form(error, is_open=not isinstance(error, Gone))
        return welcome(accounts, adoption, user, "")


def welcome(accounts: Accounts, adoption: Adoption, user: User, next_path: str) -> Response:
    """Begin a session under a new secret; what this browser has of former conversations is offered on the next page."""
    in_thread(accounts.sessions.end, str(session.get(visitors.SECRET, "")))
    browser = name_of(request.headers.get("User-Agent", ""))
    visitors.begin_session(user, in_thread(accounts.sessions.begin, user.id, browser, address_of(request)))
    if (former := visitors.former_visitor()) and in_thread(adoption.num_conversations, former):
        return redirect(url_for("accounts.account"))
    return redirect(local_path(next_path))


def leave(accounts: Accounts) -> None:
    """End this browser's session, and keep nothing of it but whose conversations it had before."""
    in_thread(accounts.sessions.end, str(session.get(visitors.SECRET, "")))
    former = visitors.former_visitor()
    session.clear()
    if former:
        session[visitors.FORMER] = former


def page_with(template: str, error: ChatServerError | None, **shown: object) -> Page:
    """A page, with what went wrong and its status."""
    page = render_template(template, error=error, **shown)
    wait = {"Retry-After": str(round(error.retry_after_s))} if error is not None and error.retry_after_s else {}
    return page, error.http_status if error else 200, wait


def local_path(text: str) -> str:
    """A path of ours to go to; the chat page for anything else. A browser reads `//host` and `/\\host` as addresses."""
    is_ours = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if is_ours else "/"
