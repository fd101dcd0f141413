"""Fixtures of the whole system: one per module, with a slow echo worker and one web process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.end_to_end.system import System, running_system

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


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
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM}; install Debian's package `chromium`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield chromium
        chromium.close()
