"""The admin page in a real Chromium, on real web processes, a real worker and a real Redis.

Build the page first: `npm ci && npm run build` in webapp/frontend.
"""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from services.accounts.accounts import Accounts
from services.accounts.api_keys import ApiKeys
from services.chat.requests import Requests
from services.database.database import Database
from services.settings import load_settings
from tests.end_to_end.admin_page import PASSWORD, ask_for, give_up, sign_in
from tests.end_to_end.chat_page import LONG_MS
from tests.end_to_end.system import System, running_system, wait_until

pytestmark = pytest.mark.browser

OVERVIEW = "**/api/admin/overview"


@pytest.fixture(scope="module")
def admin_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("admin")) as system:
        system.echo_worker("--rate", "2", "--chunk", "1")  # an answer takes as long as the test
        yield system


@pytest.fixture(scope="module")
def address(admin_system: System) -> str:
    return admin_system.web()


@pytest.fixture(scope="module")
def accounts_address(admin_system: System) -> str:
    """A web process whose users sign in."""
    return admin_system.web(accounts="on")


@pytest.fixture
def page(browser_context: BrowserContext, address: str) -> Iterator[Page]:
    """The page, open; an uncaught error or a CSP violation in it fails the test."""
    made = browser_context.new_page()
    problems: list[str] = []
    made.on("pageerror", lambda error: problems.append(str(error)))
    made.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    made.goto(f"{address}/admin")
    yield made
    assert problems == []


def row(page: Page, table: str, text: str) -> Locator:
    return page.get_by_test_id(table).get_by_role("row").filter(has_text=text)


def confirm(page: Page) -> None:
    page.get_by_test_id("confirm-yes").click()


def test_a_worker_is_shown_with_its_memory_version_and_last_sign(page: Page) -> None:
    worker = row(page, "workers", "echo")
    expect(worker).to_contain_text("now")
    expect(worker).to_contain_text(re.compile(r"\d+ MB"))
    expect(worker).to_contain_text("0.1.0")
    expect(page.get_by_test_id("figures")).to_contain_text("Workers1")


def test_a_running_request_is_shown_live_and_ended_by_an_administrator(page: Page, admin_system: System) -> None:
    requests = ask_for(admin_system, "slow-1")
    shown = row(page, "requests", "slow-1")
    expect(shown).to_contain_text("Running")
    first = requests.journal.head("slow-1")
    assert first is not None
    expect(shown.locator("[data-label=Tokens]")).not_to_have_text(str(first.n))
    shown.get_by_role("button", name="Cancel the request slow-1").click()
    confirm(page)
    expect(page.get_by_test_id("status")).to_have_text("The request is cancelled")
    expect(shown).to_have_count(0)
    ended = requests.journal.head("slow-1")
    assert ended is not None and ended.status == "cancelled"


def test_an_update_leaves_the_focus_where_it_is(page: Page, admin_system: System) -> None:
    """A table that is drawn anew every two seconds cannot be used by keyboard."""
    ask_for(admin_system, "slow-2")
    button = page.get_by_role("button", name="Cancel the request slow-2")
    button.focus(timeout=LONG_MS)
    tokens = row(page, "requests", "slow-2").locator("[data-label=Tokens]")
    before = tokens.inner_text()
    expect(tokens).not_to_have_text(before)
    expect(button).to_be_focused()
    button.press("Enter")
    confirm(page)
    expect(button).to_have_count(0)


def test_dead_letters_are_run_again_and_discarded(page: Page, admin_system: System) -> None:
    give_up(admin_system, "dead-1")
    give_up(admin_system, "dead-2")
    expect(row(page, "dead", "dead-1")).to_contain_text("Workers died on it")
    page.get_by_role("button", name="Discard the request dead-1").click()
    confirm(page)
    expect(row(page, "dead", "dead-1")).to_have_count(0)
    page.get_by_role("button", name="Retry the request dead-2").click()
    expect(page.get_by_test_id("status")).to_have_text("1 request queued again")
    expect(row(page, "queues", "lost")).to_contain_text(re.compile(r"1 interactive \(oldest \d+ s\)"))
    expect(page.get_by_test_id("dead")).to_contain_text("No request was given up.")


def test_a_key_is_revoked(browser_context: BrowserContext, address: str, admin_system: System) -> None:
    keys = ApiKeys(admin_system.redis, admin_system.keys)
    secret = keys.create("webui", "ann")
    page = browser_context.new_page()
    page.goto(f"{address}/admin")
    expect(row(page, "keys", "webui")).to_contain_text(f"…{secret[-4:]}")
    page.get_by_role("button", name="Revoke the key webui of ann").click()
    confirm(page)
    expect(row(page, "keys", "webui")).to_have_count(0)
    assert keys.user_of(secret) == ""


def test_limits_are_set_and_taken_back(page: Page, admin_system: System) -> None:
    page.get_by_test_id("limits-user").fill("bob")
    page.get_by_test_id("limits-tokens").fill("20000")
    page.get_by_test_id("set-limits").click()
    expect(row(page, "limits", "bob")).to_contain_text("20,000")
    page.get_by_role("button", name="Use the default for bob").click()
    expect(row(page, "limits", "bob")).to_have_count(0)
    assert Requests(admin_system.redis, admin_system.keys).quotas.all() == {}


def test_storage_is_shown_and_people_are_not_where_nobody_signs_in(page: Page) -> None:
    expect(page.get_by_test_id("disk")).to_contain_text("are free")
    expect(row(page, "storage", "Database (SQLite)")).to_be_visible()
    expect(page.get_by_test_id("users")).to_be_hidden()
    expect(page.get_by_test_id("invite")).to_be_hidden()


def test_what_the_server_refuses_is_said(page: Page) -> None:
    page.get_by_test_id("limits-user").fill("not a name")
    page.get_by_test_id("limits-tokens").fill("1")
    page.get_by_test_id("set-limits").click()
    expect(page.get_by_test_id("problem")).to_contain_text("is not 1-128 characters")


def test_the_page_asks_nothing_while_nobody_looks(browser_context: BrowserContext, address: str) -> None:
    page = browser_context.new_page()
    page.clock.install()
    page.goto(f"{address}/admin")
    expect(row(page, "workers", "echo")).to_be_visible()
    page.evaluate(
        """() => {
            window.looksAway = true;
            Object.defineProperty(document, 'hidden', {get: () => window.looksAway});
        }"""
    )
    with page.expect_response(OVERVIEW):
        page.clock.run_for(3_000)  # the question that was already due
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(6):
        page.clock.run_for(20_000)
    assert asked == []
    with page.expect_response(OVERVIEW):
        page.evaluate("window.looksAway = false; document.dispatchEvent(new Event('visibilitychange'))")


def test_a_phone_shows_the_same_without_scrolling_sideways(
    browser: Browser, address: str, admin_system: System
) -> None:
    ask_for(admin_system, "slow-3", "somebody-with-a-name-that-is-long-enough-to-be-broken")
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{address}/admin")
    expect(row(page, "requests", "slow-3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Cancel the request slow-3").click()
    confirm(page)
    expect(row(page, "requests", "slow-3")).to_have_count(0)
    page.get_by_role("link", name="Chat", exact=True).click()
    page.wait_for_url(f"{address}/")
    context.close()


def test_a_group_gets_limits_and_a_member(browser: Browser, admin_system: System, accounts_address: str) -> None:
    made = Accounts(Database.of(load_settings(admin_system.environment)))
    made.users.create("gus", PASSWORD, role="admin")
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, f"{accounts_address}/admin", "gus")
    page.get_by_test_id("group-name").fill("lab", timeout=LONG_MS)
    page.get_by_test_id("group-tokens").fill("30000")
    page.locator("button[data-testid=set-group]").click()
    expect(row(page, "groups", "lab")).to_contain_text("30,000 tokens a day")
    page.get_by_test_id("move-user-name").select_option(label="gus")
    page.get_by_test_id("move-user-group").fill("labb")
    page.locator("button[data-testid=move-user]").click()
    expect(page.get_by_test_id("problem")).to_contain_text("no group is named 'labb'")
    page.get_by_test_id("move-user-name").select_option(label="gus")
    page.get_by_test_id("move-user-group").fill("lab")
    page.locator("button[data-testid=move-user]").click()
    expect(row(page, "users", "gus")).to_contain_text("lab")
    user = made.users.named("gus").id
    quotas = Requests(admin_system.redis, admin_system.keys).quotas
    wait_until(lambda: quotas.get(user).tokens_per_day == 30_000, "the limits of the group")
    page.reload()
    expect(row(page, "limits", "gus")).to_contain_text("group lab")
    page.get_by_role("button", name="Remove the group lab").click()
    confirm(page)
    expect(page.get_by_test_id("groups")).to_contain_text("There is no group.")
    wait_until(lambda: quotas.get(user).tokens_per_day == 0, "the defaults")
    context.close()


def test_people_are_invited_and_disabled_where_they_sign_in(
    browser: Browser, admin_system: System, accounts_address: str
) -> None:
    made = Accounts(Database.of(load_settings(admin_system.environment)))
    made.users.create("root", PASSWORD, role="admin")
    for other in made.users.list():  # of the tests before
        if other.is_admin and other.name != "root":
            made.users.change(other.id, role="user")
    context = browser.new_context()
    page = context.new_page()
    sign_in(page, f"{accounts_address}/admin")
    page.get_by_test_id("invite").click(timeout=LONG_MS)
    link = page.get_by_test_id("invitation-address")
    expect(link).to_contain_text("/sign-up/")
    expect(row(page, "invitations", "A user")).to_contain_text("root")
    user = made.invitations.accept(link.inner_text().rsplit("/", 1)[1], "carl", PASSWORD)
    page.reload()
    expect(page.get_by_test_id("invitation-address")).to_be_hidden()
    page.get_by_role("button", name="Disable carl").click(timeout=LONG_MS)
    confirm(page)
    expect(row(page, "users", "carl")).to_contain_text("Disabled")
    assert made.users.get(user.id).disabled
    page.get_by_role("button", name="Make a user of root").click()
    expect(page.get_by_test_id("problem")).to_contain_text("is the only administrator")
    context.close()
