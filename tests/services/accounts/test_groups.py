"""Groups: what each member may use, and what is left when a group goes."""

from collections.abc import Callable

import pytest

from services.accounts.accounts import Accounts
from services.accounts.groups import Group
from services.accounts.invitations import Invitations
from services.accounts.passwords import Passwords
from services.accounts.tables import UserRow
from services.accounts.users import Users
from services.database.database import Database
from services.errors import InvalidRequest, NotFound


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database, Passwords(memory_kib=8, rounds=1))


def test_a_limit_that_is_set_leaves_the_others_as_they_are(accounts: Accounts) -> None:
    assert accounts.groups.set("lab") == Group("lab", {}, 0)
    accounts.groups.set("lab", tokens_per_day=70)
    assert accounts.groups.set("lab", weight=2.5).limits == {"tokens_per_day": 70, "weight": 2.5}
    accounts.groups.set("lab", tokens_per_day=0)
    assert [group.limits for group in accounts.groups.list()] == [{"tokens_per_day": 0, "weight": 2.5}]


def test_members_have_what_their_group_sets(accounts: Accounts) -> None:
    for name in ("lab", "quiet"):
        accounts.groups.set(name)
    ann, bob, cyd = (accounts.users.create(name, group=group).id for name, group in MEMBERS)
    accounts.groups.set("lab", in_flight=3)
    assert accounts.groups.limits_of_members() == {ann: {"in_flight": 3}}
    assert [(group.name, group.num_members) for group in accounts.groups.list()] == [("lab", 1), ("quiet", 1)]
    accounts.users.change(bob, group="lab")
    accounts.users.change(ann, group="")
    assert accounts.groups.limits_of_members() == {bob: {"in_flight": 3}} and cyd


MEMBERS = (("ann", "lab"), ("bob", "quiet"), ("cyd", ""))


def test_a_group_that_goes_leaves_its_members_and_invitations(accounts: Accounts) -> None:
    accounts.groups.set("lab", in_flight=3)
    user = accounts.users.create("ann", group="lab")
    secret = accounts.invitations.invite("root", group="lab")
    assert accounts.groups.remove("lab") == 1
    assert accounts.users.get(user.id).group == "" and accounts.groups.limits_of_members() == {}
    assert accounts.invitations.accept(secret, "bob", "correct horse battery").group == ""
    with pytest.raises(NotFound, match="groups list"):
        accounts.groups.remove("lab")


def test_a_group_that_goes_while_an_invited_persons_password_is_hashed_keeps_nobody_out(
    accounts: Accounts, database: Database
) -> None:
    """The person was told to make the group first, on a page that only administrators see."""
    accounts.groups.set("lab")
    secret = accounts.invitations.invite("root", group="lab")

    class Late(Users):
        def made(self, *arguments: object, **options: object) -> UserRow:
            row = super().made(*arguments, **options)  # type: ignore[arg-type]
            accounts.groups.remove("lab")
            return row

    late = Late(database, Passwords(memory_kib=8, rounds=1))
    bob = Invitations(database, late).accept(secret, "bob", "correct horse battery")
    assert accounts.users.named("bob") == bob and bob.group == ""
    assert accounts.invitations.open() == []


@pytest.mark.parametrize(
    "use",
    [
        lambda accounts: accounts.users.create("ann", group="lba"),
        lambda accounts: accounts.users.change(accounts.users.create("ann").id, group="lba"),
        lambda accounts: accounts.invitations.invite("root", group="lba"),
    ],
)
def test_a_group_that_there_is_not_is_refused_by_name(accounts: Accounts, use: Callable[[Accounts], object]) -> None:
    accounts.groups.set("lab")
    with pytest.raises(InvalidRequest, match="no group is named 'lba'"):
        use(accounts)
    assert [user.group for user in accounts.users.list()] in ([], [""])


@pytest.mark.parametrize("name", ["", " lab", "la  b", "lab\n", "l" * 65])
def test_a_name_that_nobody_could_type_again_is_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidRequest, match="1-64 characters"):
        accounts.groups.set(name)
    assert accounts.groups.list() == []
