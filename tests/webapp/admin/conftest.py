"""The fixtures of a web app whose users sign in, for the tests of people."""

from tests.webapp.accounts.conftest import accounts, app, visitor

__all__ = ["accounts", "app", "visitor"]
