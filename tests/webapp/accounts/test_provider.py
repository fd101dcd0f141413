"""Signing in through a real provider of OpenID Connect on this machine."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc.jwk import RSAKey
from werkzeug.test import TestResponse

from services.accounts.accounts import Accounts
from services.database.database import Database
from services.database.schema import migrate
from services.settings import Settings
from tests.stand_ins.oidc_provider import CLIENT, SECRET, Provider
from tests.webapp.accounts.visitor import Visitor
from webapp.application import create_app


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def settings(settings: Settings, provider: Provider) -> Settings:
    chosen = {"oidc_issuer": provider.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET}
    return settings.model_copy(update={**chosen, "oidc_sign_up": True})


def browser_of(settings: Settings) -> Visitor:
    migrate(Database.of(settings))
    return Visitor(create_app(settings)[0].test_client())


def begun(browser: Visitor, next_path: str = "/jobs") -> str:
    """Where the provider sends the browser back."""
    led = browser.get(f"/sign-in/provider?next={next_path}")
    assert led.status_code == 302, led.text
    back = requests.get(led.location, allow_redirects=False, timeout=10)
    assert back.status_code == 302
    return back.headers["Location"]


def returned(browser: Visitor, address: str) -> TestResponse:
    parts = urlsplit(address)
    assert parts.path == "/sign-in/provider/back"
    return browser.get(f"{parts.path}?{parts.query}")


def test_whom_the_provider_knows_signs_in_and_is_the_same_user_again(settings: Settings, provider: Provider) -> None:
    browser = browser_of(settings)
    assert "/sign-in/provider?next=/jobs" in browser.get("/sign-in?next=/jobs").text
    assert returned(browser, begun(browser)).location == "/jobs"
    first = browser.get("/api/session").json
    other = browser_of(settings)
    returned(other, begun(other))
    assert other.get("/api/session").json == first and first is not None
    user = Accounts(Database.of(settings)).users.get(first["user"])
    assert (user.name, user.shown_name, user.role) == ("ada", "Ada L.", "user")
    asked = provider.asked[0]
    assert asked["redirect_uri"] == "http://127.0.0.1:8000/sign-in/provider/back"
    assert len({each["nonce"] for each in provider.asked}) == len({each["state"] for each in provider.asked}) == 2


def test_without_leave_to_sign_up_only_known_subjects_come_in(settings: Settings) -> None:
    browser = browser_of(settings.model_copy(update={"oidc_sign_up": False}))
    refused = returned(browser, begun(browser))
    assert refused.status_code == 401 and "ask an administrator" in refused.text
    assert browser.get("/api/session").status_code == 401
    Accounts(Database.of(settings)).users.create_for_provider(f"{settings.oidc_issuer} 1", "ada", "", "")
    assert returned(browser, begun(browser)).status_code == 302


def test_a_disabled_user_is_refused(settings: Settings) -> None:
    browser = browser_of(settings)
    returned(browser, begun(browser))
    accounts = Accounts(Database.of(settings))
    accounts.users.change(accounts.users.named("ada").id, disabled=True)
    assert "disabled" in returned(browser, begun(browser)).text


def test_an_answer_with_another_state_is_refused(settings: Settings) -> None:
    """Else a page could sign a reader in as somebody else, by a link with a code of its own."""
    browser, attacker = browser_of(settings), browser_of(settings)
    assert returned(browser, begun(attacker)).status_code == 401
    own = begun(browser)
    state = parse_qs(urlsplit(own).query)["state"][0]
    assert returned(browser, own.replace(state, "guess")).status_code == 401
    assert browser.get("/api/session").status_code == 401


def test_an_answer_serves_once(settings: Settings) -> None:
    browser = browser_of(settings)
    back = begun(browser)
    assert returned(browser, back).status_code == 302
    assert returned(browser, back).status_code == 401


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "nonce": lambda claims: claims.update(nonce="of another sign-in"),
    "audience": lambda claims: claims.update(aud="another client"),
    "issuer": lambda claims: claims.update(iss="https://another.example"),
    "time": lambda claims: claims.update(exp=1_000_000_000, iat=999_999_000),
    "subject": lambda claims: claims.pop("sub"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_is_not_for_this_sign_in_is_refused(settings: Settings, provider: Provider, lie: str) -> None:
    provider.lie = LIES[lie]
    browser = browser_of(settings)
    refused = returned(browser, begun(browser))
    assert refused.status_code == 401 and "did not sign you in" in refused.text
    assert browser.get("/api/session").status_code == 401


def test_a_token_signed_by_another_key_is_refused(settings: Settings, provider: Provider) -> None:
    provider.signs_with = RSAKey.generate_key(2048, parameters={"kid": "1"})
    browser = browser_of(settings)
    assert returned(browser, begun(browser)).status_code == 401


def test_a_provider_that_does_not_answer_is_said_on_the_page(settings: Settings) -> None:
    browser = browser_of(settings.model_copy(update={"oidc_issuer": "http://127.0.0.1:1"}))
    refused = browser.get("/sign-in/provider")
    assert refused.status_code == 503 and "provider does not answer" in refused.text
