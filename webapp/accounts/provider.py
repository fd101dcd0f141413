"""Signing in through an OpenID Connect provider, where one is set: the code flow with state, nonce and PKCE.

Authlib keeps what a sign-in needs until its end in the cookie, and checks the answer: state, signature, issuer,
audience, nonce, time.
"""

import logging

import requests
from authlib.integrations.flask_client import FlaskOAuth2App, OAuth, OAuthError
from flask import Blueprint, Flask, request, session
from joserfc.errors import JoseError
from werkzeug.wrappers import Response

from services.accounts.accounts import Accounts
from services.accounts.users import User
from services.errors import ChatServerError, Unauthorized, Unavailable
from services.settings import Settings
from webapp.access import visitors
from webapp.access.our_names import browser_scheme
from webapp.accounts.adoption import Adoption
from webapp.accounts.sign_in import Page, local_path, page_with, welcome
from webapp.server.threads import in_thread

log = logging.getLogger("chatserver.web")

NAME = "provider"
NEXT = "provider_next"  # in the cookie: where to go afterwards
TIMEOUT_S = 10


def provider_of(app: Flask, settings: Settings) -> FlaskOAuth2App:
    """The client of the provider that is set. It asks the provider for its addresses when used."""
    client: FlaskOAuth2App = OAuth(app).register(
        NAME,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email",
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_S,
        },
    )
    return client


def add_provider(
    pages: Blueprint, accounts: Accounts, provider: FlaskOAuth2App, adoption: Adoption, *, signs_up: bool
) -> None:
    """Routes `/sign-in/provider`, `/sign-in/provider/back`."""

    @pages.get("/sign-in/provider")
    @visitors.open_to_all
    def to_provider() -> Page | Response:
        _forget_former()
        session[NEXT] = local_path(request.args.get("next", ""))
        back = f"{browser_scheme(request.environ)}://{request.headers['Host']}/sign-in/provider/back"
        try:
            response: Response = provider.authorize_redirect(back)
        except (requests.RequestException, OAuthError, ValueError, KeyError) as error:
            return _failed(Unavailable(f"the provider does not answer as expected ({type(error).__name__})"))
        return response

    @pages.get("/sign-in/provider/back")
    @visitors.open_to_all
    def from_provider() -> Page | Response:
        try:
            user = _user(accounts, _claims(provider), signs_up)
        except ChatServerError as error:
            log.info("a sign-in through the provider was refused: %s", error)
            return _failed(error)
        return welcome(accounts, adoption, user, session.pop(NEXT, ""))


def _claims(provider: FlaskOAuth2App) -> dict[str, object]:
    """What the provider says of who comes back. Raises Unauthorized, Unavailable."""
    try:
        claims: dict[str, object] = provider.authorize_access_token()["userinfo"]
    except requests.RequestException as error:
        raise Unavailable(f"the provider does not answer ({type(error).__name__})") from error
    except (OAuthError, JoseError, ValueError, KeyError) as error:
        raise Unauthorized(f"the provider did not sign you in ({type(error).__name__}); try again") from error
    return claims


def _user(accounts: Accounts, claims: dict[str, object], signs_up: bool) -> User:
    subject = f"{claims['iss']} {claims['sub']}"
    known = in_thread(accounts.users.of_provider, subject)
    if known is not None:
        return known
    if not signs_up:
        raise Unauthorized("the provider knows you, and this server does not; ask an administrator")
    email, name = str(claims.get("email", "")), str(claims.get("name", ""))
    wanted = str(claims.get("preferred_username") or email or name)
    return in_thread(accounts.users.create_for_provider, subject, wanted, name, email)


def _failed(error: ChatServerError) -> Page:
    return page_with("sign_in.html", error, next="/", name="", has_provider=True)


def _forget_former() -> None:
    """Drop what sign-ins that nobody finished left in the cookie, which has room for few."""
    for key in [key for key in session if key.startswith(f"_state_{NAME}_")]:
        session.pop(key)
