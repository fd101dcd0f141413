"""People who sign in to a real web process: what their sockets reach, and what ends with their sessions."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from socketio.exceptions import BadNamespaceError, TimeoutError
from socketio.exceptions import ConnectionError as Refused

from services.accounts.accounts import Accounts
from services.database.database import Database
from tests.end_to_end.system import Browser, System, running_system, wait_until
from tests.webapp.test_authorisation import EVENTS, VISITORS

PASSWORD = "correct horse battery"


class Site:
    """A web process and an echo worker, with a cookie for each visitor."""

    def __init__(self, system: System) -> None:
        self.url = system.web(accounts="on")
        self.accounts = Accounts(Database(system.database_url))
        for who in VISITORS[1:]:
            self.accounts.users.create(who, PASSWORD, role="admin" if who == "admin" else "user")

    def sign_in(self, who: str) -> str:
        """The cookie of a browser in which this user has signed in; for a stranger one of the page for signing in."""
        browser = requests.Session()
        found = re.search(r'name="csrf_token" value="([^"]+)"', browser.get(f"{self.url}/sign-in").text)
        assert found
        if who != "stranger":
            form = {"csrf_token": found[1], "name": who, "password": PASSWORD}
            answer = browser.post(f"{self.url}/sign-in", data=form, headers={"Origin": self.url}, allow_redirects=False)
            assert answer.status_code == 302, answer.text
        return f"chatserver={browser.cookies['chatserver']}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("accounts")
    with running_system(folder) as system:
        system.echo_worker("--rate", "20", "--chunk", "4")
        yield Site(system)


def code_of(acknowledged: dict[str, object]) -> str:
    error = acknowledged.get("error")
    return str(error["code"]) if isinstance(error, dict) else ""


def test_a_stranger_opens_no_socket(site: Site) -> None:
    with pytest.raises(Refused):
        Browser(site.url, site.sign_in("stranger"))


@pytest.mark.parametrize("who", VISITORS[1:])
def test_a_socket_reaches_the_requests_of_its_own_user(site: Site, who: str) -> None:
    owner, socket = (Browser(site.url, site.sign_in(each)) for each in ("owner", who))
    rid = uuid.uuid4().hex
    assert owner.ask(rid, "a long question " * 40)["ok"]
    for event, row in EVENTS.items():
        if event in ("connect", "disconnect"):
            continue
        answer = socket.call(event if event != "*" else "another", {"id": rid, "offset": 0})
        own = {"submit": "invalid_request", "ask": "invalid_request", "*": "invalid_request"}.get(event, "")
        assert code_of(answer) == (own if row == "user" or who == "owner" else "forbidden"), (event, answer)
    assert who == "owner" or not socket.text
    owner.call("cancel", {"id": rid})
    owner.close()
    socket.close()


@pytest.mark.parametrize("event", sorted(set(EVENTS) - {"connect", "disconnect", "*"}))
def test_an_event_of_an_ended_session_is_refused_and_its_socket_closed(site: Site, event: str) -> None:
    socket = Browser(site.url, site.sign_in("other"))
    _end_newest(site, "other")
    with contextlib.suppress(TimeoutError, BadNamespaceError):  # the process may have looked, and closed it, before the event came
        assert code_of(socket.call(event, {"id": "r", "offset": 0})) == "unauthorized"
    wait_until(lambda: not socket.client.connected, "the end of the socket")


def test_a_socket_that_only_listens_is_closed_when_its_session_ends(site: Site) -> None:
    stays, socket = (Browser(site.url, site.sign_in("other")) for _ in range(2))
    _end_newest(site, "other")
    wait_until(lambda: not socket.client.connected, "the end of the socket")
    assert stays.client.connected
    with pytest.raises(Refused):
        Browser(site.url, socket.cookie)
    stays.close()


def test_a_disabled_users_sockets_are_closed(site: Site) -> None:
    user = site.accounts.users.create("leaving", PASSWORD)
    socket = Browser(site.url, site.sign_in("leaving"))
    site.accounts.users.change(user.id, disabled=True)
    wait_until(lambda: not socket.client.connected, "the end of the socket")


def _end_newest(site: Site, who: str) -> None:
    user = site.accounts.users.named(who)
    newest = max(site.accounts.sessions.of_user(user.id), key=lambda each: each.created_ms)
    site.accounts.sessions.end_of_user(user.id, newest.handle)
