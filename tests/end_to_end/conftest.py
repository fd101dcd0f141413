"""Fixtures of the whole system: one per module, with a slow echo worker and one web process."""

import shutil
import uuid
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.end_to_end.chat_page import LONG_MS
from tests.end_to_end.system import System, running_system
from tests.postgres import PostgresServer

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")  # the first takes half the processor
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
expect.set_options(timeout=LONG_MS)  # beside other tests a page may wait long for a processor


@pytest.fixture(scope="session", autouse=True)
def kind_of_database(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each system has a database of its own: SQLite, or with `--postgres` PostgreSQL."""
    if request.config.getoption("--postgres"):
        server: PostgresServer = request.getfixturevalue("postgres_server")
        System.new_database = staticmethod(lambda: server.create(f"t{uuid.uuid4().hex[:12]}"))
    yield
    System.new_database = None


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Redis, one echo worker (20 steps a second, 4 code points each), no web process yet."""
    with running_system(tmp_path_factory.mktemp("system")) as made:
        made.echo_worker("--rate", "20", "--chunk", "4")
        yield made


@pytest.fixture(scope="module")
def chat_url(system: System) -> str:
    """The address of a web process."""
    return system.web()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("no Chromium; install Debian's package `chromium-headless-shell`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def browser_context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def browser_page(browser_context: BrowserContext, chat_url: str) -> Iterator[Page]:
    """The page, open and ready to send; an uncaught error or a CSP violation in it fails the test."""
    page = browser_context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Content Security" in message.text else None)
    page.goto(chat_url)
    expect(page.get_by_test_id("model")).to_have_value("echo")
    yield page
    assert problems == []
