"""Who looks at a page or calls an API of ours from it.

    use_accounts(app, accounts)      # who has not signed in gets only what `open_to_all` marks, and `/v1` with a key
    guard(blueprint)                 # whoever has our cookie
    guard(blueprint, admins=True)    # administrators; without accounts a browser on this machine, as `local_only` tells

`current_user()` is the owner of what a route or a socket's event makes and finds. The cookie is signed; with accounts
it holds the secret of a session, which the database confirms at each request and each event, and a token that writes
repeat.
"""

import secrets
from collections.abc import Callable
from hmac import compare_digest
from typing import Any, TypeVar

from flask import (
    Blueprint,
    Flask,
    Request,
    Response,
    current_app,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from werkzeug.wrappers import Response as AnyResponse

from services.accounts.accounts import Accounts
from services.accounts.users import User
from services.errors import Forbidden, Unauthorized
from webapp.access import local_only
from webapp.access.our_names import browser_scheme
from webapp.server.threads import in_thread

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf_token"
SECRET, TOKEN, FORMER = "secret", "csrf", "former"  # in the cookie, beside `user`
SIGN_IN = "accounts.sign_in"  # the endpoint of the page
BY_KEY = "/v1/"  # `callers.py` decides there

_EXTENSION = "chatserver.accounts"
_OPEN = "open_to_all"

View = TypeVar("View", bound=Callable[..., Any])


def use_accounts(app: Flask, accounts: Accounts | None) -> None:
    """With accounts, every route that does not say otherwise needs a user who has signed in. None: no accounts."""
    app.extensions[_EXTENSION] = accounts
    app.context_processor(_known_to_templates)
    if accounts is not None:
        app.before_request(_refuse_strangers)


def open_to_all(view: View) -> View:
    """Marks a route that whoever has not signed in may use, too."""
    setattr(view, _OPEN, True)
    return view


def accounts() -> Accounts | None:
    """The accounts of this application; None where nobody signs in."""
    found: Accounts | None = current_app.extensions.get(_EXTENSION)
    return found


def signed_in() -> User | None:
    """The user whose session the cookie holds; None without one, and where nobody signs in. Asked once per request."""
    kept = accounts()
    if kept is None:
        return None
    if "signed_in" not in g:
        g.signed_in = in_thread(kept.sessions.user_of, str(session.get(SECRET, "")))
    user: User | None = g.signed_in
    return user


def current_user() -> str:
    """The opaque name of who asks. Raises Unauthorized for who has no cookie of ours, or has not signed in."""
    if accounts() is not None:
        return _account().id
    if "user" not in session:
        raise Unauthorized("this request has no session cookie; load the page or /api/session first")
    return str(session["user"])


def is_admin() -> bool:
    """Whether who asks may see and change what belongs to nobody: jobs, workers, users."""
    if accounts() is not None:
        user = signed_in()
        return user is not None and user.is_admin
    return not local_only.foreign_reader(request)


def guard(blueprint: Blueprint, *, admins: bool = False) -> None:
    """Refuse strangers and writes of foreign pages, and let no cache keep an answer."""

    @blueprint.before_request
    def refuse() -> AnyResponse | tuple[str, int] | None:
        if not admins:
            current_user()
        reason = (_no_admin() if admins else "") or _foreign_write()
        if reason and request.path.startswith("/api/"):
            raise Forbidden(reason)
        return (render_template("elsewhere.html", reason=reason), 403) if reason else None

    @blueprint.after_request
    def fresh(response: Response) -> Response:
        response.headers.setdefault("Cache-Control", "private, no-store")
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        return response


def begin_session(user: User, secret: str) -> None:
    """Give the browser the cookie of a session. Nothing of the cookie before it is left, so nobody can have planted it;
    only who the browser was before signing in is kept, for its conversations."""
    former = session.get(FORMER, "" if SECRET in session else session.get("user", ""))
    session.clear()
    session.update({"user": user.id, SECRET: secret, TOKEN: secrets.token_urlsafe(24)})
    if former:
        session[FORMER] = former
    session.permanent = True
    g.signed_in = user


def former_visitor() -> str:
    """Who this browser was before it signed in; empty when its conversations were taken over, or it was nobody."""
    return str(session.get(FORMER, ""))


def csrf_token() -> str:
    """What a form or a script of our page repeats, and no other page can read."""
    if TOKEN not in session:
        session[TOKEN] = secrets.token_urlsafe(24)
    return str(session[TOKEN])


def check_write(asked: Request) -> None:
    """Raises Forbidden unless a page of ours sends this, with the token of its own session."""
    origin = asked.headers.get("Origin")
    own = f"{browser_scheme(asked.environ)}://{asked.headers.get('Host', '')}"
    if origin is not None and origin not in (own, *current_app.config["ALLOWED_ORIGINS"]):
        raise Forbidden(f"a page of {origin[:80]} may not change anything here")
    told = asked.headers.get(CSRF_HEADER) or asked.form.get(CSRF_FIELD, "")
    if not told or not compare_digest(told.encode(), str(session.get(TOKEN, "")).encode()):
        raise Forbidden(f"send {CSRF_HEADER} with the page's `csrf-token`; load the page anew")


def _refuse_strangers() -> AnyResponse | tuple[str, int] | None:
    """Before every request, where people sign in: unknown routes answer 404, and `/v1` asks for a key by itself."""
    view = current_app.view_functions.get(request.endpoint or "")
    if view is None or request.endpoint == "static" or request.path.startswith(BY_KEY):
        return None
    if not getattr(view, _OPEN, False) and signed_in() is None:
        return _to_sign_in()
    if request.method in local_only.SAFE_METHODS:
        return None
    try:
        check_write(request)
    except Forbidden as error:
        if request.path.startswith("/api/"):
            raise
        return render_template("elsewhere.html", reason=error.message), error.http_status
    return None


def _to_sign_in() -> AnyResponse:
    if request.path.startswith("/api/"):
        _account()
    looks = request.method in local_only.SAFE_METHODS
    return redirect(url_for(SIGN_IN, next=request.full_path.rstrip("?") if looks else None))


def _account() -> User:
    user = signed_in()
    if user is None:
        raise Unauthorized("you have not signed in, or your session has ended; sign in at /sign-in")
    return user


def _no_admin() -> str:
    if accounts() is None:
        return local_only.foreign_reader(request)
    return "" if is_admin() else "this is for administrators; ask one for the role"


def _foreign_write() -> str:
    """Without accounts; with them `check_write` has looked."""
    if accounts() is not None or request.method in local_only.SAFE_METHODS:
        return ""
    return local_only.foreign_writer(request)


def _known_to_templates() -> dict[str, Any]:
    user = signed_in()
    return {"account": user, "csrf_token": csrf_token() if accounts() is not None else ""}
