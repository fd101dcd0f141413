"""Groups of users, and what each member may use."""

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from services.accounts.accounts import Accounts
from webapp.admin.bodies import text_of
from webapp.admin.limits import changed_limits
from webapp.admin.people import kept
from webapp.server.threads import in_thread


def add(routes: Blueprint, accounts: Accounts | None) -> None:
    """Routes `groups`, `groups/set`, `groups/remove`. Without accounts there are no groups."""

    @routes.get("/groups")
    def show_groups() -> Response:
        groups = in_thread(accounts.groups.list) if accounts else []
        return jsonify(groups=[asdict(group) for group in groups])

    @routes.post("/groups/set")
    def set_group() -> Response:
        """Makes the group if it is new; what is left out stays. It holds for the members within ten seconds."""
        group = in_thread(kept(accounts).groups.set, text_of("name"), **changed_limits())
        return jsonify(group=asdict(group))

    @routes.post("/groups/remove")
    def remove_group() -> Response:
        """`members`: how many are in no group now."""
        return jsonify(members=in_thread(kept(accounts).groups.remove, text_of("name")))
