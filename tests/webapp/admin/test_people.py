"""People on the admin page, where they sign in: who may see it, who becomes what, links that are shown once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from services.accounts.accounts import Accounts
from services.chat.quotas import Quotas
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.settings import Settings
from tests.webapp.accounts.visitor import HERE, OURS, PASSWORD, Visitor
from tests.webapp.admin.test_routes import READS, WRITES, code_of
from webapp.accounts.group_limits import GroupLimits

Visitors = Callable[..., Visitor]


@pytest.fixture
def group_limits(settings: Settings, accounts: Accounts) -> Iterator[GroupLimits]:
    """What every web process runs, here without its clock."""
    with connect(settings.redis_url, role="test") as redis:
        yield GroupLimits(accounts.groups, Quotas.from_settings(redis, settings))


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, accounts="on")


def done(answer: TestResponse) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json


def people(admin: Visitor) -> dict[str, Any]:
    found = done(admin.get("/api/admin/people"))
    assert found["accounts"]
    return {user["name"]: user for user in found["users"]}


def test_only_an_administrator_sees_or_changes_anything(visitor: Visitors) -> None:
    stranger, ada = visitor(), visitor("ada")
    for path in READS:
        assert code_of(stranger.get(f"/api/admin/{path}")) == (401, "unauthorized"), path
        assert code_of(ada.get(f"/api/admin/{path}")) == (403, "forbidden"), path
    for path in WRITES:
        assert code_of(ada.send(f"/api/admin/{path}", {"rid": "all"})) == (403, "forbidden"), path
    assert ada.get("/admin").status_code == 403 and stranger.get("/admin").status_code == 302
    assert visitor("root").get("/admin").status_code == 200


def test_a_change_without_the_token_of_the_page_is_refused(visitor: Visitors) -> None:
    root = visitor("root")
    for path in WRITES:
        answer = root.client.post(f"/api/admin/{path}", base_url=HERE, json={"rid": "all"}, headers=OURS)
        assert code_of(answer) == (403, "forbidden"), path


def test_users_are_listed_without_their_hashes(visitor: Visitors) -> None:
    answer = visitor("root").get("/api/admin/people")
    assert "argon2" not in answer.text and "password" not in answer.text
    assert {user["name"]: user["role"] for user in done(answer)["users"]} == {
        "ada": "user", "bob": "user", "root": "admin"
    }  # fmt: skip


def test_who_is_disabled_is_signed_out_until_enabled_again(visitor: Visitors) -> None:
    root, ada = visitor("root"), visitor("ada")
    who = people(root)["ada"]["id"]
    assert done(root.send("/api/admin/users/change", {"id": who, "disabled": True}))["user"]["disabled"]
    assert ada.get("/account").status_code == 302
    assert visitor().sign_in("ada").status_code == 401
    done(root.send("/api/admin/users/change", {"id": who, "disabled": False}))
    assert visitor().sign_in("ada").status_code == 302


def test_a_role_is_given_and_taken_but_never_from_the_last_administrator(visitor: Visitors) -> None:
    root, bob = visitor("root"), visitor("bob")
    ids = {name: user["id"] for name, user in people(root).items()}
    refused = root.send("/api/admin/users/change", {"id": ids["root"], "role": "user"})
    assert code_of(refused) == (409, "conflict")
    done(root.send("/api/admin/users/change", {"id": ids["bob"], "role": "admin"}))
    assert bob.get("/admin").status_code == 200
    done(bob.send("/api/admin/users/change", {"id": ids["root"], "role": "user"}))
    assert root.get("/admin").status_code == 403


@pytest.mark.parametrize("change", [{"role": "king"}, {"disabled": "yes"}, {"role": 1}])
def test_a_change_that_makes_no_sense_is_refused(visitor: Visitors, change: dict[str, object]) -> None:
    root = visitor("root")
    before = people(root)["ada"]
    assert code_of(root.send("/api/admin/users/change", {"id": before["id"], **change})) == (400, "invalid_request")
    assert people(root)["ada"] == before


def test_an_invitation_is_shown_once_and_makes_one_account(visitor: Visitors, accounts: Accounts) -> None:
    root = visitor("root")
    wanted = {"role": "user", "group": "physics"}
    assert code_of(root.send("/api/admin/invitations", wanted)) == (400, "invalid_request"), "there is no such group"
    done(root.send("/api/admin/groups/set", {"name": "physics"}))
    path = done(root.send("/api/admin/invitations", wanted))["path"]
    listed = root.get("/api/admin/people")
    (invitation,) = done(listed)["invitations"]
    assert path.rsplit("/", 1)[1] not in listed.text
    assert invitation["group"] == "physics" and invitation["made_by"] == people(root)["root"]["id"]
    newcomer = visitor()
    assert newcomer.submit(path, name="carl", password=PASSWORD).status_code == 302
    assert accounts.users.named("carl").group == "physics"
    assert done(root.get("/api/admin/people"))["invitations"] == []


def test_a_withdrawn_invitation_opens_nothing(visitor: Visitors) -> None:
    root = visitor("root")
    path = done(root.send("/api/admin/invitations", {}))["path"]
    (invitation,) = done(root.get("/api/admin/people"))["invitations"]
    done(root.send("/api/admin/invitations/withdraw", {"handle": invitation["handle"]}))
    assert visitor().get(path).status_code == 410
    again = root.send("/api/admin/invitations/withdraw", {"handle": invitation["handle"]})
    assert code_of(again) == (404, "not_found")


def test_every_account_stands_in_the_list_of_limits(visitor: Visitors) -> None:
    root = visitor("root")
    ids = {user["id"] for user in people(root).values()}
    assert {row["user"] for row in done(root.get("/api/admin/limits"))["users"]} == ids


def test_a_groups_limits_hold_for_its_members_and_their_own_limits_come_first(
    visitor: Visitors, group_limits: GroupLimits
) -> None:
    root = visitor("root")
    ids = {name: user["id"] for name, user in people(root).items()}
    group = done(root.send("/api/admin/groups/set", {"name": "lab", "tokens_per_day": 7_000, "in_flight": 3}))["group"]
    assert group == {"name": "lab", "limits": {"tokens_per_day": 7_000, "in_flight": 3}, "num_members": 0}
    for name in ("ada", "bob"):
        done(root.send("/api/admin/users/change", {"id": ids[name], "group": "lab"}))
    done(root.send("/api/admin/limits/set", {"user": ids["bob"], "tokens_per_day": 100}))
    group_limits.copy()

    def limits() -> dict[str, tuple[int | None, int | None, bool, str]]:
        rows = {row["user"]: row for row in done(root.get("/api/admin/limits"))["users"]}
        columns = ("tokens_per_day", "most_in_flight", "own", "group")
        return {name: tuple(rows[ids[name]][column] for column in columns) for name in ids}  # type: ignore[misc]

    assert limits() == {
        "ada": (7_000, 3, False, "lab"), "bob": (100, 3, True, "lab"), "root": (None, None, False, "")
    }  # fmt: skip
    ada = visitor("ada")
    assert done(ada.get("/me/usage"))["tokens_per_day"] == 7_000
    assert done(root.get("/api/admin/groups"))["groups"][0]["num_members"] == 2
    assert done(root.send("/api/admin/groups/remove", {"name": "lab"})) == {"members": 2}
    group_limits.copy()
    assert limits()["ada"] == (None, None, False, "") and limits()["bob"] == (100, None, True, "")
    assert code_of(root.send("/api/admin/groups/remove", {"name": "lab"})) == (404, "not_found")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "lab", "tokens_per_day": -1},
        {"name": "lab", "tokens_per_day": 10**30},
        {"name": "lab", "in_flight": "many"},
        {"name": "lab", "weight": 0},
        {"name": " lab"},
        {"name": "l" * 65},
        {},
    ],
)
def test_a_group_that_makes_no_sense_is_refused(visitor: Visitors, body: dict[str, object]) -> None:
    root = visitor("root")
    assert code_of(root.send("/api/admin/groups/set", body)) == (400, "invalid_request")
    assert done(root.get("/api/admin/groups"))["groups"] == []


def test_nobody_is_moved_to_a_group_that_there_is_not(visitor: Visitors) -> None:
    root = visitor("root")
    who = people(root)["ada"]
    answer = root.send("/api/admin/users/change", {"id": who["id"], "group": "labb"})
    assert code_of(answer) == (400, "invalid_request") and "chatserver groups set" in answer.text
    assert people(root)["ada"] == who
