"""What users may use, have used today and store; limits of their own for some."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from services.accounts.accounts import Accounts
from services.chat.quotas import Quotas
from services.connection.connect import translated
from webapp.access.stored import Stored
from webapp.admin.bodies import given, text_of
from webapp.server.threads import in_slow_thread, in_thread

MOST_USERS = 200  # on the page; those with limits of their own come first


def add(routes: Blueprint, quotas: Quotas, accounts: Accounts | None, stored: Stored) -> None:
    """Routes `limits`, `limits/set`, `limits/unset`."""

    @routes.get("/limits")
    def show_limits() -> Response:
        with translated():
            own, group_of = quotas.all(), _group_of_each(accounts)
            users = [*own, *sorted(group_of.keys() - own.keys())][:MOST_USERS]
            rows = [{**_row(quotas, user, user in own), "group": group_of.get(user, "")} for user in users]
        kept = in_slow_thread(lambda: [stored.of(user) for user in users])
        merged = [{**row, **each} for row, each in zip(rows, kept, strict=True)]
        return jsonify(default=asdict(quotas.default), users=merged)

    @routes.post("/limits/set")
    def set_limits() -> Response:
        """What is left out stays as it is; 0 is no limit."""
        with translated():
            return jsonify(limits=asdict(quotas.set(text_of("user"), **changed_limits())))

    @routes.post("/limits/unset")
    def unset_limits() -> Response:
        with translated():
            return jsonify(unset=quotas.unset(text_of("user")))


def changed_limits() -> dict[str, Any]:
    """The limits of a body; None for one that stays as it is."""
    numbers = {"tokens_per_day": given("tokens_per_day", int), "in_flight": given("in_flight", int)}
    return {**numbers, "weight": given("weight", float)}


def _group_of_each(accounts: Accounts | None) -> dict[str, str]:
    return {user.id: user.group for user in in_thread(accounts.users.list)} if accounts else {}


def _row(quotas: Quotas, user: str, own: bool) -> dict[str, Any]:
    return {"user": user, "own": own, **quotas.usage(user).row()}
