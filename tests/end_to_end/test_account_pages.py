"""The pages of accounts in a real Chromium: invitations, the accounts made by them, second devices, ended sessions."""

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, Page, expect

from services.accounts.accounts import Accounts
from services.database.database import Database
from services.settings import load_settings
from tests.end_to_end.admin_page import PASSWORD, sign_in
from tests.end_to_end.chat_page import LONG_MS, ask, await_end, prose
from tests.end_to_end.system import System, running_system

pytestmark = pytest.mark.browser

SIGN_IN = re.compile(r"/sign-in(\?|$)")
NEW_PASSWORD = "a longer staple of batteries"


@pytest.fixture(scope="module")
def accounts_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("account-pages")) as system:
        system.echo_worker("--rate", "50", "--chunk", "32")
        yield system


@pytest.fixture(scope="module")
def address(accounts_system: System) -> str:
    return accounts_system.web(accounts="on")


@pytest.fixture(scope="module")
def accounts(accounts_system: System, address: str) -> Accounts:
    made = Accounts(Database.of(load_settings(accounts_system.environment)))
    made.users.create("root", PASSWORD, role="admin")
    return made


@pytest.fixture
def page(browser_context: BrowserContext) -> Iterator[Page]:
    """A page; an uncaught error or a CSP violation in it fails the test."""
    made = browser_context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    yield made
    assert problems == []


@pytest.fixture
def second_device(browser: Browser) -> Iterator[Page]:
    """A phone of the same person, with cookies of its own."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, user_agent="Mozilla/5.0 (iPhone) Safari")
    yield context.new_page()
    context.close()


def sign_up(page: Page, link: str, name: str, password: str = PASSWORD) -> None:
    page.goto(link)
    page.get_by_test_id("name").fill(name)
    page.get_by_test_id("password").fill(password)
    page.get_by_test_id("sign-up").click()


def await_chat(page: Page, address: str) -> None:
    page.wait_for_url(f"{address}/**")
    expect(page.get_by_test_id("model")).to_have_value("echo")


def test_who_is_invited_signs_up_asks_and_finds_the_conversation_on_a_second_device(
    browser: Browser, page: Page, second_device: Page, address: str, accounts: Accounts
) -> None:
    admins = browser.new_context()
    admin = admins.new_page()
    sign_in(admin, f"{address}/admin")
    admin.get_by_test_id("group-name").fill("lab", timeout=LONG_MS)
    admin.get_by_test_id("set-group").click()
    expect(admin.get_by_test_id("groups")).to_contain_text("lab")
    admin.get_by_test_id("invite-group").fill("lab")
    admin.get_by_test_id("invite").click(timeout=LONG_MS)
    expect(admin.get_by_test_id("invitation-address")).to_contain_text(address)
    link = admin.get_by_test_id("invitation-address").inner_text()
    admins.close()

    sign_up(page, link, "Ada")
    await_chat(page, address)
    expect(page.get_by_test_id("account-link")).to_have_text("ada")
    expect(page.get_by_test_id("admin-link")).to_have_count(0)
    ask(page, "what the heron saw")
    await_end(page)
    assert accounts.users.named("ada").group == "lab"

    sign_in(second_device, f"{address}/", "ada")
    await_chat(second_device, address)
    second_device.get_by_test_id("menu").click()
    second_device.get_by_test_id("conversation").locator(".open").click()
    await_end(second_device)
    assert prose(second_device) == prose(page) == "what the heron saw"

    second_device.goto(link)
    expect(second_device.get_by_role("heading", level=1)).to_have_text("This link is over")


def test_a_session_that_is_ended_on_one_device_leads_the_other_to_the_page_for_signing_in(
    page: Page, second_device: Page, address: str, accounts: Accounts
) -> None:
    accounts.users.create("bea", PASSWORD)
    sign_in(page, f"{address}/account", "bea")
    sign_in(second_device, f"{address}/", "bea")
    await_chat(second_device, address)
    page.reload()
    sessions = page.get_by_test_id("sessions").get_by_role("listitem")
    expect(sessions).to_have_count(2)
    expect(sessions.filter(has_text="this browser")).to_have_count(1)
    page.get_by_role("button", name="Sign out Safari on an iPhone").click()
    expect(sessions).to_have_count(1)
    expect(second_device).to_have_url(SIGN_IN)
    page.reload()
    expect(sessions).to_have_count(1)


def test_a_new_password_signs_the_other_device_out_and_the_old_one_is_refused(
    page: Page, second_device: Page, address: str, accounts: Accounts
) -> None:
    accounts.users.create("cyd", PASSWORD)
    sign_in(second_device, f"{address}/", "cyd")
    await_chat(second_device, address)
    sign_in(page, f"{address}/account", "cyd")
    page.get_by_test_id("old").fill("not my password")
    page.get_by_test_id("password").fill(NEW_PASSWORD)
    page.get_by_test_id("change-password").click()
    expect(page.get_by_test_id("problem")).to_contain_text("not your password")
    page.get_by_test_id("old").fill(PASSWORD)
    page.get_by_test_id("password").fill(NEW_PASSWORD)
    page.get_by_test_id("change-password").click()
    expect(page.get_by_test_id("problem")).to_have_count(0)
    expect(page.get_by_test_id("sessions").get_by_role("listitem")).to_have_count(1)
    expect(second_device).to_have_url(SIGN_IN)
    second_device.get_by_test_id("name").fill("cyd")
    second_device.get_by_test_id("password").fill(PASSWORD)
    second_device.get_by_test_id("sign-in").click()
    expect(second_device.get_by_test_id("problem")).to_contain_text("do not belong together")
    second_device.get_by_test_id("password").fill(NEW_PASSWORD)
    second_device.get_by_test_id("sign-in").click()
    await_chat(second_device, address)


def test_who_signs_out_is_shown_nothing_of_the_account_by_the_back_button(
    page: Page, address: str, accounts: Accounts
) -> None:
    accounts.users.create("dot", PASSWORD)
    sign_in(page, f"{address}/account", "dot")
    page.get_by_test_id("sign-out").click()
    expect(page).to_have_url(SIGN_IN)
    page.go_back()
    expect(page).to_have_url(SIGN_IN)
    page.goto(f"{address}/account")
    expect(page).to_have_url(SIGN_IN)
    expect(page.get_by_text("dot", exact=True)).to_have_count(0)


def test_a_name_in_use_is_told_beside_the_form_and_the_invitation_stays_open(
    page: Page, address: str, accounts: Accounts
) -> None:
    accounts.users.create("eve", PASSWORD)
    link = f"{address}/sign-up/{accounts.invitations.invite('root')}"
    sign_up(page, link, "eve")
    expect(page.get_by_test_id("problem")).to_contain_text("is in use")
    expect(page.get_by_test_id("name")).to_have_value("eve")
    page.get_by_test_id("name").fill("eve2")
    page.get_by_test_id("password").fill(PASSWORD)
    page.get_by_test_id("sign-up").click()
    await_chat(page, address)


def test_a_key_made_on_the_page_is_shown_once_and_serves_until_it_is_revoked(
    page: Page, address: str, accounts: Accounts
) -> None:
    accounts.users.create("fay", PASSWORD)
    sign_in(page, f"{address}/account", "fay")
    page.get_by_test_id("key-name").fill("laptop")
    page.get_by_test_id("create-key").click()
    key = {"Authorization": f"Bearer {page.get_by_test_id('new-key').input_value()}"}
    assert requests.get(f"{address}/v1/models", headers=key).status_code == 200
    page.goto(f"{address}/account")
    expect(page.get_by_test_id("new-key")).to_have_count(0)
    expect(page.get_by_test_id("keys")).to_contain_text("laptop")
    page.get_by_role("button", name="Revoke the key laptop").click()
    expect(page.get_by_test_id("keys")).not_to_contain_text("laptop")
    assert requests.get(f"{address}/v1/models", headers=key).status_code == 401
