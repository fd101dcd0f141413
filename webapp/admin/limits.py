"""What users may use and have used today; limits of their own for some."""

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, jsonify

from services.accounts.accounts import Accounts
from services.chat.quotas import Quotas
from services.connection.connect import translated
from webapp.admin.bodies import given, text_of
from webapp.server.threads import in_thread

MOST_USERS = 200  # on the page; those with limits of their own come first


def add(routes: Blueprint, quotas: Quotas, accounts: Accounts | None) -> None:
    """Routes `limits`, `limits/set`, `limits/unset`."""

    @routes.get("/limits")
    def show_limits() -> Response:
        with translated():
            own = quotas.all()
            others = sorted(set(_account_ids(accounts)) - own.keys())
            users = [*own, *others][:MOST_USERS]
            return jsonify(default=asdict(quotas.default), users=[_row(quotas, user, user in own) for user in users])

    @routes.post("/limits/set")
    def set_limits() -> Response:
        """What is left out stays as it is; 0 is no limit."""
        changes = {"tokens_per_day": given("tokens_per_day", int), "in_flight": given("in_flight", int)}
        with translated():
            limits = quotas.set(text_of("user"), **changes, weight=given("weight", float))
        return jsonify(limits=asdict(limits))

    @routes.post("/limits/unset")
    def unset_limits() -> Response:
        with translated():
            return jsonify(unset=quotas.unset(text_of("user")))


def _account_ids(accounts: Accounts | None) -> list[str]:
    return [user.id for user in in_thread(accounts.users.list)] if accounts else []


def _row(quotas: Quotas, user: str, own: bool) -> dict[str, Any]:
    return {"user": user, "own": own, **quotas.usage(user).row()}
