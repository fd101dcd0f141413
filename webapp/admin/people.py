"""The people with accounts, and the invitations by which more of them come."""

from dataclasses import asdict

from flask import Blueprint, Response, jsonify

from services.accounts.accounts import Accounts
from services.errors import NotFound
from webapp.access import visitors
from webapp.admin.bodies import given, text_of
from webapp.server.threads import in_thread


def add(routes: Blueprint, accounts: Accounts | None) -> None:
    """Routes `people`, `users/change`, `invitations`, `invitations/withdraw`. Without accounts there are no people."""

    @routes.get("/people")
    def show_people() -> Response:
        if accounts is None:
            return jsonify(accounts=False, users=[], invitations=[])
        users, invitations = in_thread(accounts.users.list), in_thread(accounts.invitations.open)
        return jsonify(
            accounts=True,
            users=[asdict(user) for user in users],
            invitations=[asdict(invitation) for invitation in invitations],
        )

    @routes.post("/users/change")
    def change_user() -> Response:
        """Who is disabled is signed out and their keys are refused."""
        role, disabled, group = given("role", str), given("disabled", bool), given("group", str)
        change = kept(accounts).users.change
        return jsonify(user=asdict(in_thread(change, text_of("id"), role=role, disabled=disabled, group=group)))

    @routes.post("/invitations")
    def invite() -> tuple[Response, int]:
        """`path` is the link's, which nobody can show again."""
        role, group = given("role", str) or "user", given("group", str) or ""
        people, made_by = kept(accounts), visitors.current_user()
        secret = in_thread(people.invitations.invite, made_by, role=role, group=group)
        return jsonify(path=f"/sign-up/{secret}"), 201

    @routes.post("/invitations/withdraw")
    def withdraw() -> Response:
        in_thread(kept(accounts).invitations.withdraw, text_of("handle"))
        return jsonify(ok=True)


def kept(accounts: Accounts | None) -> Accounts:
    """Raises NotFound where nobody signs in."""
    if accounts is None:
        raise NotFound("this installation has no accounts; start it with CHATSERVER_ACCOUNTS=on")
    return accounts
