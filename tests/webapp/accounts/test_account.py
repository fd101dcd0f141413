"""One's own account without a browser: keys, sessions, the password, conversations from before."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from services.accounts.accounts import Accounts
from services.conversations.tables import ConversationRow, MessageRow
from services.database.database import Database
from services.settings import Settings
from tests.webapp.accounts.visitor import HERE, PASSWORD, Visitor
from webapp.application import create_app

Visitors = Callable[..., Visitor]


def made_key(browser: Visitor, name: str = "laptop") -> str:
    found = re.search(r"sk-chatserver-[\w-]+", browser.submit("/account/keys", "/account", name=name).text)
    assert found
    return found[0]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_whoever_has_a_key_sees_the_usage_of_its_user(visitor: Visitors, accounts: Accounts) -> None:
    """With accounts on, the route sent a program to the page for signing in."""
    key = made_key(visitor("ada"))
    shown = visitor().get("/me/usage", headers=bearer(key))
    assert shown.status_code == 200 and shown.json is not None
    assert shown.json["user"] == accounts.users.named("ada").id
    assert visitor().get("/me/usage", headers=bearer("sk-chatserver-guess")).status_code == 401


def test_a_key_is_shown_once_works_and_says_when_it_was_used(visitor: Visitors, accounts: Accounts) -> None:
    ada = visitor("ada")
    key = made_key(ada)
    page = ada.get("/account").text
    assert key not in page and "laptop" in page and "used never" in page
    assert ada.get("/v1/models", headers=bearer(key)).status_code == 200
    assert "used just now" in ada.get("/account").text
    assert ada.submit("/account/keys/revoke", "/account", name="laptop").status_code == 302
    assert ada.get("/v1/models", headers=bearer(key)).status_code == 401


def test_with_accounts_everybody_needs_a_key_and_a_disabled_users_does_not_work(
    visitor: Visitors, accounts: Accounts
) -> None:
    ada = visitor("ada")
    key = made_key(ada)
    for headers in ({}, bearer("anything"), bearer("")):
        assert ada.get("/v1/models", headers=headers).status_code == 401, "a cookie is no key"
    accounts.users.change(accounts.users.named("ada").id, disabled=True)
    refused = ada.get("/v1/models", headers=bearer(key))
    assert refused.status_code == 401 and "disabled" in refused.text


def test_users_see_and_revoke_their_own_keys_only(visitor: Visitors) -> None:
    ada, bob = visitor("ada"), visitor("bob")
    made_key(ada, "secret-project")
    made_key(bob, "mine")
    assert "secret-project" not in bob.get("/account").text
    refused = bob.submit("/account/keys/revoke", "/account", name="secret-project")
    assert refused.status_code == 400 and "keys: mine" in refused.text and "secret-project" in ada.get("/account").text
    assert made_key(bob, "secret-project"), "a name in use by another says nothing"
    assert bob.submit("/account/keys", "/account", name="mine").status_code == 409


def test_a_disabled_user_is_out_at_once(visitor: Visitors, accounts: Accounts) -> None:
    ada = visitor("ada")
    assert ada.get("/api/session").status_code == 200
    accounts.users.change(accounts.users.named("ada").id, disabled=True)
    assert ada.get("/api/session").status_code == 401
    assert ada.get("/").location == "/sign-in?next=/"


def test_a_user_signs_another_browser_out(visitor: Visitors, accounts: Accounts) -> None:
    here, there, bob = visitor("ada"), visitor("ada"), visitor("bob")
    handles = [each.handle for each in accounts.sessions.of_user(accounts.users.named("ada").id)]
    shown = re.findall(r'name="session" value="([^"]+)"', here.get("/account").text)
    assert len(shown) == 1 and shown[0] in handles, "this browser has the button for signing out above"
    assert bob.submit("/account/sessions/end", "/account", session=shown[0]).status_code == 404
    assert there.get("/api/session").status_code == 200
    assert here.submit("/account/sessions/end", "/account", session=shown[0]).status_code == 302
    assert there.get("/api/session").status_code == 401 and here.get("/api/session").status_code == 200


def test_a_new_password_signs_all_other_browsers_out(visitor: Visitors) -> None:
    here, there = visitor("ada"), visitor("ada")
    before = here.cookie
    wrong = here.submit("/account/password", "/account", old="wrong", password="another password")
    assert wrong.status_code == 401 and "This is not your password" in wrong.text
    changed = here.submit("/account/password", "/account", old=PASSWORD, password="another password")
    assert changed.status_code == 302 and here.cookie != before
    assert here.get("/api/session").status_code == 200 and there.get("/api/session").status_code == 401
    assert visitor().sign_in("ada", "another password").status_code == 302


@pytest.fixture
def newcomer(app: Flask, accounts: Accounts, settings: Settings) -> Visitor:
    """A browser with two conversations of the time before accounts; one of another browser is there, too."""
    before = create_app(settings.model_copy(update={"accounts": "off"}))[0].test_client()
    session = before.get("/api/session", base_url=HERE).json
    cookie = before.get_cookie("chatserver", domain="127.0.0.1")
    assert session is not None and cookie is not None
    with Database.of(settings).write() as database:
        for number, owner in enumerate((session["user"], session["user"], "anon-other")):
            database.add(ConversationRow(id=f"c{number}", owner=owner, title="T", created_ms=1, updated_ms=1))
    browser = Visitor(app.test_client())
    browser.client.set_cookie("chatserver", cookie.value, domain="127.0.0.1")
    return browser


def owners(settings: Settings) -> list[str]:
    with Database.of(settings).read() as database:
        return [database.get_one(ConversationRow, f"c{number}").owner for number in range(3)]


def test_conversations_from_before_signing_in_are_taken_over_by_a_button(
    newcomer: Visitor, accounts: Accounts, settings: Settings
) -> None:
    ada = accounts.users.named("ada").id
    assert newcomer.sign_in("ada", next="/jobs").location == "/account", "the offer comes first"
    assert "2 conversations" in newcomer.get("/account").text
    assert newcomer.submit("/account/adopt", "/account").location == "/"
    assert owners(settings) == [ada, ada, "anon-other"]
    assert "Conversations from before" not in newcomer.get("/account").text


def test_a_script_takes_them_over_once(newcomer: Visitor, accounts: Accounts, settings: Settings) -> None:
    newcomer.sign_in("ada")
    assert newcomer.send("/api/account/adopt", {}).json == {"adopted": 2}
    assert newcomer.send("/api/account/adopt", {}).json == {"adopted": 0}
    assert owners(settings)[0] == accounts.users.named("ada").id


def test_nothing_is_taken_over_while_an_answer_is_written(
    newcomer: Visitor, accounts: Accounts, settings: Settings
) -> None:
    """Its request is the browser's, so the user could neither read on nor cancel it."""
    with Database.of(settings).write() as database:
        database.add(MessageRow(id="a1", conversation_id="c1", place=0, role="assistant", state="open", created_ms=1))
        database.add(MessageRow(id="a2", conversation_id="c2", place=0, role="assistant", state="open", created_ms=1))
    newcomer.sign_in("ada")
    refused = newcomer.send("/api/account/adopt", {})
    assert refused.status_code == 409 and "when it has ended" in refused.text
    shown = newcomer.submit("/account/adopt", "/account")
    assert shown.status_code == 409 and "when it has ended" in shown.text and "2 conversations" in shown.text
    assert "anon" in owners(settings)[0] and owners(settings)[0] == owners(settings)[1]
    with Database.of(settings).write() as database:
        database.get_one(MessageRow, "a1").state = "finished"
    assert newcomer.send("/api/account/adopt", {}).json == {"adopted": 2}, "a2 is another browser's"
    assert owners(settings)[0] == accounts.users.named("ada").id


def test_who_declines_is_asked_again_after_the_next_sign_in(newcomer: Visitor) -> None:
    newcomer.sign_in("ada")
    newcomer.submit("/sign-out", "/account")
    assert newcomer.sign_in("ada").location == "/account"
    assert "2 conversations" in newcomer.get("/account").text
