"""The deployment, started once for all tests from nothing: no .env, no volume."""

from collections.abc import Iterator

import pytest

from tests.compose.stack import URL, Stack
from tests.end_to_end.system import Browser


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    stack = Stack()
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    stack.up()
    yield stack
    stack.compose("--profile", "*", "down", "--volumes", "--timeout", "30")


@pytest.fixture
def browser(stack: Stack) -> Iterator[Browser]:
    """A visitor of the published port."""
    stack.wait_for_page()
    visitor = Browser(URL)
    yield visitor
    visitor.close()
