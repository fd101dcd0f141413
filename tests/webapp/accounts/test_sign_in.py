"""Signing in, up and out, without a browser: who gets in, with which cookie, and how often somebody may try."""

from collections.abc import Callable

import pytest
import redis
from flask import Flask

from services.accounts.accounts import Accounts
from services.errors import UserLimit
from services.settings import Settings
from services.wire.keys import Keys
from tests.webapp.accounts.visitor import HERE, OURS, PASSWORD, Visitor
from webapp.accounts.attempts import OF_NAME_AT_ADDRESS, OF_PRIVATE_ADDRESS, SignInAttempts
from webapp.accounts.sign_in import local_path
from webapp.application import create_app

Visitors = Callable[..., Visitor]


def test_who_has_not_signed_in_is_led_to_the_page_and_back(visitor: Visitors) -> None:
    stranger = visitor()
    led = stranger.get("/jobs?x=1")
    assert (led.status_code, led.location) == (302, "/sign-in?next=/jobs?x%3D1")
    assert stranger.sign_in("root", next="/jobs?x=1").location == "/jobs?x=1"
    assert stranger.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    "path",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example", "evil", "",
     "javascript:alert(1)", "///evil.example", "/\n/evil.example"],
)  # fmt: skip
def test_a_sign_in_leads_to_pages_of_ours_only(path: str) -> None:
    assert local_path(path) == "/"


def test_the_same_page_answers_an_unknown_name_and_a_wrong_password(visitor: Visitors) -> None:
    stranger = visitor()
    token = stranger.token()

    def answer(name: str) -> tuple[int, str]:
        form = {"csrf_token": token, "name": name, "password": "wrong"}
        refused = stranger.client.post("/sign-in", base_url=HERE, data=form, headers=OURS)
        return refused.status_code, refused.text.replace(f'value="{name}"', "")

    assert answer("ada") == answer("nobody") and answer("ada")[0] == 401


def test_a_sign_in_gives_the_browser_a_new_cookie_that_scripts_cannot_read(visitor: Visitors) -> None:
    """A cookie that somebody else has planted must not become the user's (session fixation)."""
    browser = visitor()
    browser.get("/sign-in")
    planted = browser.cookie
    given = browser.sign_in("ada").headers["Set-Cookie"]
    assert "HttpOnly" in given and "SameSite=Lax" in given and "Secure" not in given
    thief = visitor()
    thief.client.set_cookie("chatserver", planted, domain="127.0.0.1")
    assert thief.get("/api/session").status_code == 401 and browser.get("/api/session").status_code == 200
    first = browser.cookie
    assert browser.submit("/sign-in", "/account", name="ada", password=PASSWORD).status_code == 302  # once more
    assert browser.cookie != first
    thief.client.set_cookie("chatserver", first, domain="127.0.0.1")
    assert thief.get("/api/session").status_code == 401, "the secret before it has ended"


def test_behind_tls_the_cookie_never_travels_without_it(visitor: Visitors) -> None:
    browser = visitor()
    secure = {"X-Forwarded-Proto": "https"}
    assert "Secure" in browser.get("/sign-in", headers=secure).headers["Set-Cookie"]
    form = {"csrf_token": browser.token(), "name": "ada", "password": PASSWORD}
    origin = {"Origin": HERE.replace("http:", "https:"), **secure}
    given = browser.client.post("/sign-in", base_url=HERE, data=form, headers=origin)
    assert given.status_code == 302 and "Secure" in given.headers["Set-Cookie"]


def test_signing_out_ends_the_session_for_every_copy_of_the_cookie(visitor: Visitors) -> None:
    browser = visitor("ada")
    copy = visitor()
    copy.client.set_cookie("chatserver", browser.cookie, domain="127.0.0.1")
    assert copy.get("/api/session").status_code == 200
    assert browser.submit("/sign-out", "/account").location == "/sign-in"
    assert copy.get("/api/session").status_code == browser.get("/api/session").status_code == 401


def test_no_page_of_another_origin_signs_anybody_in_or_out(visitor: Visitors) -> None:
    browser = visitor("ada")
    token = browser.token("/account")
    for headers, form in (
        ({"Origin": "https://evil.example"}, {"csrf_token": token}),
        (OURS, {}),
        (OURS, {"csrf_token": "guess"}),
        (OURS, {"csrf_token": ""}),
        ({"Origin": "null"}, {"csrf_token": token}),
    ):
        for path in ("/sign-out", "/account/password", "/account/keys", "/sign-in", "/sign-up/x"):
            refused = browser.client.post(path, base_url=HERE, data=form, headers=headers)
            assert refused.status_code == 403, (path, headers, form)
    assert browser.get("/api/session").status_code == 200


def test_a_token_of_another_session_is_none(visitor: Visitors) -> None:
    ada, bob = visitor("ada"), visitor("bob")
    form = {"csrf_token": bob.token("/account")}
    assert ada.client.post("/sign-out", base_url=HERE, data=form, headers=OURS).status_code == 403


def test_the_script_of_a_page_sends_its_token_with_each_write(visitor: Visitors) -> None:
    root = visitor("root")
    body = {"recipe": "name: tiny\nsteps:\n  - roles\n"}
    refused = root.client.post("/api/recipes/check", base_url=HERE, json=body, headers=OURS)
    assert refused.status_code == 403 and refused.json is not None
    assert "X-CSRF-Token" in refused.json["error"]["message"]
    assert root.send("/api/recipes/check", body).status_code == 200
    assert root.token("/jobs") == root.token("/account")


def test_guesses_are_limited_by_name_and_address_and_a_right_password_resets_them(visitor: Visitors) -> None:
    browser = visitor()
    for _ in range(OF_NAME_AT_ADDRESS.amount - 1):
        assert browser.sign_in("ada", "wrong").status_code == 401
    assert browser.sign_in("ada").status_code == 302
    browser = visitor()
    for _ in range(OF_NAME_AT_ADDRESS.amount):
        assert browser.sign_in("Ada ", "wrong").status_code == 401
    refused = browser.sign_in("ada")
    assert refused.status_code == 429 and 1 <= int(refused.headers["Retry-After"]) <= 600
    assert "too many attempts" in refused.text.lower()
    assert browser.sign_in("bob").status_code == 302, "another name"


def test_nobody_locks_another_machine_of_the_same_network_out(visitor: Visitors) -> None:
    """All private addresses were one: ten guesses from one desk kept everybody of that name out."""
    attacker = visitor(address="192.168.1.66")
    codes = [attacker.sign_in("ada", "wrong").status_code for _ in range(OF_NAME_AT_ADDRESS.amount + 1)]
    assert codes[-1] == 429
    ada = visitor("ada", address="192.168.1.7")
    changed = ada.submit("/account/password", "/account", old=PASSWORD, password="another password")
    assert changed.status_code == 302


def test_a_private_address_has_a_wide_limit_over_all_names(redis_client: redis.Redis, namespace: str) -> None:
    attempts = SignInAttempts(redis_client, Keys(namespace))
    for number in range(OF_PRIVATE_ADDRESS.amount):
        attempts.admit(f"name-{number}", "192.168.1.66")
    with pytest.raises(UserLimit):
        attempts.admit("one-more", "192.168.1.66")
    attempts.admit("one-more", "192.168.1.7")


def test_a_name_that_nobody_has_is_limited_too(visitor: Visitors) -> None:
    """Else the limit would say who has an account."""
    browser = visitor()
    codes = [browser.sign_in("nobody", "wrong").status_code for _ in range(OF_NAME_AT_ADDRESS.amount + 1)]
    assert codes == [401] * OF_NAME_AT_ADDRESS.amount + [429]


def test_all_web_processes_count_attempts_together(visitor: Visitors, settings: Settings) -> None:
    browser = visitor()
    for _ in range(OF_NAME_AT_ADDRESS.amount):
        browser.sign_in("ada", "wrong")
    other = Visitor(create_app(settings)[0].test_client())
    assert other.sign_in("ada").status_code == 429


def test_an_invitation_makes_an_account_that_is_signed_in(visitor: Visitors, accounts: Accounts) -> None:
    link = f"/sign-up/{accounts.invitations.invite('root')}"
    browser = visitor()
    assert browser.submit(link, name="ada", password=PASSWORD).status_code == 409
    short = browser.submit(link, name="eve", password="short")
    assert short.status_code == 400 and "A password has 10 to 1,024 characters" in short.text
    assert browser.submit(link, name="Eve", password=PASSWORD, display_name="Eve <b>E").status_code == 302
    assert "Eve &lt;b&gt;E" in browser.get("/account").text
    late = visitor()
    assert late.get(link).status_code == 410 and "has been used" in late.get(link).text


def test_a_former_users_pages_and_api_need_an_account_now(app: Flask, visitor: Visitors, settings: Settings) -> None:
    """Cookies of the time before accounts are signed with the same key."""
    before = create_app(settings.model_copy(update={"accounts": "off"}))[0].test_client()
    before.get("/api/session", base_url=HERE)
    cookie = before.get_cookie("chatserver", domain="127.0.0.1")
    assert cookie is not None
    browser = visitor()
    browser.client.set_cookie("chatserver", cookie.value, domain="127.0.0.1")
    assert browser.get("/api/session").status_code == 401 and browser.get("/").status_code == 302


def test_what_somebody_typed_is_shown_as_text(visitor: Visitors) -> None:
    shown = visitor().sign_in('"><b id="typed">', "wrong").text
    assert "<b id=" not in shown and "&lt;b id=" in shown
