"""The blueprint of all pages of accounts."""

from typing import TYPE_CHECKING

from flask import Blueprint, Response

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from webapp.access.stored import Stored
from webapp.accounts.account import add_account
from webapp.accounts.adoption import Adoption
from webapp.accounts.attempts import SignInAttempts
from webapp.accounts.sign_in import add_signing_in, add_signing_up

if TYPE_CHECKING:
    from authlib.integrations.flask_client import FlaskOAuth2App


def make_blueprint(
    accounts: Accounts,
    keys: ApiKeys,
    attempts: SignInAttempts,
    adoption: Adoption,
    provider: "FlaskOAuth2App | None",
    stored: Stored,
    *,
    provider_signs_up: bool,
) -> Blueprint:
    """Routes `/sign-in…`, `/sign-out`, `/sign-up/<secret>`, `/account…`, `/api/account/adopt`."""
    pages = Blueprint("accounts", __name__)
    add_signing_in(pages, accounts, attempts, adoption, has_provider=provider is not None)
    add_signing_up(pages, accounts, adoption)
    if provider is not None:
        from webapp.accounts.provider import add_provider

        add_provider(pages, accounts, provider, adoption, signs_up=provider_signs_up)
    add_account(pages, accounts, keys, attempts, adoption, stored)

    @pages.after_request
    def keep_private(response: Response) -> Response:
        """No cache keeps a page. Under `no-referrer` a browser would send the origin `null` with a form."""
        response.headers["Cache-Control"] = "private, no-store"
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    return pages
