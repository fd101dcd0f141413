"""Accounts on a database: who gets in with what, and what ends when."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from services.accounts.accounts import Accounts
from services.accounts.invitations import LIFETIME_S, Invitations
from services.accounts.passwords import Passwords
from services.accounts.sessions import LIFETIME_MS, Sessions, digest_of
from services.accounts.tables import InvitationRow, SessionRow, UserRow
from services.accounts.users import Users
from services.database.database import Database
from services.database.schema import migrate
from services.errors import ChatServerError, Conflict, Gone, InvalidRequest, NotFound, Unauthorized

PASSWORD = "correct horse battery"
QUICK = Passwords(memory_kib=8, rounds=1)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(f"sqlite:///{tmp_path}/accounts.db")
    migrate(database)
    return database


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database, QUICK)


def stored(database: Database, name: str) -> str:
    with database.read() as session:
        return session.scalars(select(UserRow.password).where(UserRow.name == name)).one()


def words_of(call: Callable[[], object]) -> str:
    with pytest.raises(ChatServerError) as refused:
        call()
    return f"{refused.value.code} {refused.value}"


# -- users -----------------------------------------------------------------------------------------------------------


def test_a_user_signs_in_with_the_password_however_the_name_is_capitalised(accounts: Accounts) -> None:
    made = accounts.users.create("Ada", PASSWORD)
    assert accounts.users.sign_in(" aDa ", PASSWORD).id == made.id and made.name == "ada"


def test_the_database_holds_an_argon2_hash_and_no_password(accounts: Accounts, database: Database) -> None:
    accounts.users.create("ada", PASSWORD)
    assert stored(database, "ada").startswith("$argon2id$") and PASSWORD not in stored(database, "ada")


def test_an_unknown_name_and_a_wrong_password_get_the_same_words(accounts: Accounts) -> None:
    accounts.users.create("ada", PASSWORD)
    accounts.users.create("provider-only")
    refusals = {
        words_of(lambda name=name, password=password: accounts.users.sign_in(name, password))  # type: ignore[misc]
        for name, password in (("ada", "wrong"), ("nobody", PASSWORD), ("provider-only", ""), ("", ""), ("ada", ""))
    }
    assert len(refusals) == 1 and "do not belong together" in refusals.pop()


def test_an_unknown_name_costs_a_hash_too(database: Database) -> None:
    """Else its quick answer would say that nobody has the name."""
    verified: list[str] = []

    class Counting(Passwords):
        def fits(self, hashed: str, password: str) -> bool:
            verified.append(hashed)
            return super().fits(hashed, password)

    with pytest.raises(Unauthorized):
        Users(database, Counting(memory_kib=8, rounds=1)).sign_in("nobody", PASSWORD)
    assert verified == [""]


def test_a_disabled_user_is_told_so_only_with_the_right_password(accounts: Accounts) -> None:
    user = accounts.users.create("ada", PASSWORD)
    accounts.users.change(user.id, disabled=True)
    assert "disabled" in words_of(lambda: accounts.users.sign_in("ada", PASSWORD))
    assert "disabled" not in words_of(lambda: accounts.users.sign_in("ada", "wrong"))


def test_a_sign_in_renews_a_hash_of_older_parameters(accounts: Accounts, database: Database) -> None:
    accounts.users.create("ada", PASSWORD)
    old = stored(database, "ada")
    Users(database, Passwords(memory_kib=16, rounds=1)).sign_in("ada", PASSWORD)
    assert stored(database, "ada") != old and "m=16" in stored(database, "ada")
    renewed = stored(database, "ada")
    Users(database, Passwords(memory_kib=16, rounds=1)).sign_in("ada", PASSWORD)
    assert stored(database, "ada") == renewed


@pytest.mark.parametrize("password", ["", "too short", "x" * 1025, "ada@example.org"])
def test_poor_passwords_are_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(InvalidRequest, match="password"):
        accounts.users.create("ada@example.org", password)


@pytest.mark.parametrize("name", ["", "-ada", "a b", "ada\n", "ädä", "x" * 65, "<b>"])
def test_names_that_could_be_confused_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name"):
        accounts.users.create(name if name != "ada\n" else "a\nda", PASSWORD)


def test_a_name_belongs_to_one_user(accounts: Accounts) -> None:
    accounts.users.create("ada", PASSWORD)
    with pytest.raises(Conflict, match="in use"):
        accounts.users.create("ADA", PASSWORD)


def test_an_installation_keeps_an_administrator(accounts: Accounts) -> None:
    ada = accounts.users.create("ada", PASSWORD, role="admin")
    with pytest.raises(Conflict, match="only administrator"):
        accounts.users.change(ada.id, role="user")
    with pytest.raises(Conflict, match="only administrator"):
        accounts.users.change(ada.id, disabled=True)
    bob = accounts.users.create("bob", PASSWORD)
    accounts.users.change(bob.id, role="admin")
    assert not accounts.users.change(ada.id, role="user").is_admin
    assert accounts.users.get(bob.id).is_admin


def test_a_password_is_changed_by_who_knows_the_old_one_and_reset_by_an_administrator(accounts: Accounts) -> None:
    user = accounts.users.create("ada", PASSWORD)
    with pytest.raises(Unauthorized, match="not your password"):
        accounts.users.change_password(user.id, "wrong", "another password")
    accounts.users.change_password(user.id, PASSWORD, "another password")
    assert accounts.users.sign_in("ada", "another password")
    accounts.users.reset_password(user.id, "a third password")
    assert accounts.users.sign_in("ada", "a third password")


def test_users_of_a_provider_are_found_by_subject_and_get_a_free_name(accounts: Accounts) -> None:
    accounts.users.create("ada", PASSWORD)
    first = accounts.users.create_for_provider("https://issuer 1", "Ada", "Ada L.", "ada@example.org")
    second = accounts.users.create_for_provider("https://issuer 2", "ADA", "", "")
    assert (first.name, second.name) == ("ada-2", "ada-3")
    found = accounts.users.of_provider("https://issuer 1")
    assert found is not None and found.id == first.id and accounts.users.of_provider("https://issuer 3") is None
    with pytest.raises(Unauthorized):
        accounts.users.sign_in("ada-2", "")


# -- sessions --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_stands_for_its_user_until_it_is_ended(accounts: Accounts) -> None:
    ada, bob = accounts.users.create("ada", PASSWORD), accounts.users.create("bob", PASSWORD)
    phone, desk = (accounts.sessions.begin(ada.id, browser, "") for browser in ("Phone", "Desk"))
    assert phone != desk
    for secret in (phone, desk):
        found = accounts.sessions.user_of(secret)
        assert found is not None and found.id == ada.id
    handles = {each.browser: each.handle for each in accounts.sessions.of_user(ada.id)}
    with pytest.raises(NotFound):
        accounts.sessions.end_of_user(bob.id, handles["Phone"])
    accounts.sessions.end_of_user(ada.id, handles["Phone"])
    assert accounts.sessions.user_of(phone) is None
    assert accounts.sessions.holding([digest_of(phone), digest_of(desk)]) == {digest_of(desk)}
    accounts.sessions.end(desk)
    assert accounts.sessions.of_user(ada.id) == []


@pytest.mark.parametrize("secret", ["", "guess", "x" * 10_000, "\0"])
def test_no_other_text_opens_a_session(accounts: Accounts, secret: str) -> None:
    accounts.sessions.begin(accounts.users.create("ada", PASSWORD).id, "", "")
    assert accounts.sessions.user_of(secret) is None


def test_the_database_holds_no_secret_of_a_session(accounts: Accounts, database: Database) -> None:
    secret = accounts.sessions.begin(accounts.users.create("ada", PASSWORD).id, "Desk", "192.0.2.1")
    with database.read() as session:
        row = session.scalars(select(SessionRow)).one()
        assert secret not in (row.digest, row.browser, row.address)


def test_a_session_is_over_after_thirty_days_without_a_visit(accounts: Accounts, database: Database) -> None:
    clock = Clock()
    sessions = Sessions(database, clock)
    user = accounts.users.create("ada", PASSWORD)
    secret, other = sessions.begin(user.id, "Desk", ""), sessions.begin(user.id, "Phone", "")
    clock.now_s += LIFETIME_MS / 1000 - 1
    assert sessions.user_of(secret) is not None
    clock.now_s += 2
    assert sessions.user_of(secret) is not None, "the visit counts from anew"
    assert sessions.user_of(other) is None and [each.browser for each in sessions.of_user(user.id)] == ["Desk"]
    clock.now_s += LIFETIME_MS / 1000
    assert sessions.user_of(secret) is None
    sessions.begin(user.id, "New", "")
    with database.read() as session:
        assert len(session.scalars(select(SessionRow)).all()) == 1, "those that are over do not pile up"


@pytest.mark.parametrize("ending", ["disable", "reset", "change"])
def test_whoever_is_disabled_or_gets_another_password_is_signed_out(accounts: Accounts, ending: str) -> None:
    user = accounts.users.create("ada", PASSWORD)
    secret = accounts.sessions.begin(user.id, "", "")
    {
        "disable": lambda: accounts.users.change(user.id, disabled=True),
        "reset": lambda: accounts.users.reset_password(user.id, "another password"),
        "change": lambda: accounts.users.change_password(user.id, PASSWORD, "another password"),
    }[ending]()
    assert accounts.sessions.user_of(secret) is None and accounts.sessions.of_user(user.id) == []


# -- invitations -----------------------------------------------------------------------------------------------------


def test_an_invitation_makes_one_account(accounts: Accounts, database: Database) -> None:
    accounts.groups.set("staff")
    secret = accounts.invitations.invite("ada", role="admin", group="staff")
    assert accounts.invitations.get(secret).role == "admin"
    user = accounts.invitations.accept(secret, "bob", PASSWORD, "Bob B.")
    assert (user.role, user.group, user.display_name) == ("admin", "staff", "Bob B.")
    with pytest.raises(Gone, match="has been used"):
        accounts.invitations.accept(secret, "eve", PASSWORD)
    assert accounts.invitations.open() == [] and [each.name for each in accounts.users.list()] == ["bob"]
    with database.write() as session:
        session.delete(session.get(UserRow, user.id))
    with pytest.raises(Gone):
        accounts.invitations.get(secret)


def test_of_two_who_accept_at_once_one_gets_an_account(accounts: Accounts, database: Database) -> None:
    secret = accounts.invitations.invite("ada")

    class Late(Users):
        """Another accepts while this one's password is hashed."""

        def made(self, *arguments: object, **options: object) -> UserRow:
            row = super().made(*arguments, **options)  # type: ignore[arg-type]
            accounts.invitations.accept(secret, "quick", PASSWORD)
            return row

    with pytest.raises(Gone):
        Invitations(database, Late(database, QUICK)).accept(secret, "late", PASSWORD)
    assert [each.name for each in accounts.users.list()] == ["quick"]


def test_a_refused_name_or_password_does_not_use_an_invitation_up(accounts: Accounts) -> None:
    accounts.users.create("ada", PASSWORD)
    secret = accounts.invitations.invite("ada")
    for name, password in (("ada", PASSWORD), ("bob", "short"), ("bob", ""), ("", PASSWORD)):
        with pytest.raises((Conflict, InvalidRequest)):
            accounts.invitations.accept(secret, name, password)
    assert accounts.invitations.accept(secret, "bob", PASSWORD).name == "bob"


def test_an_invitation_expires_and_can_be_withdrawn(accounts: Accounts, database: Database) -> None:
    clock = Clock()
    invitations = Invitations(database, accounts.users, clock)
    secret, other = invitations.invite("ada"), invitations.invite("bob")
    invitations.withdraw(next(each.handle for each in invitations.open() if each.made_by == "bob"))
    with pytest.raises(Gone):
        invitations.get(other)
    clock.now_s += LIFETIME_S
    with pytest.raises(Gone):
        invitations.accept(secret, "bob", PASSWORD)
    assert invitations.open() == []


def test_the_database_holds_no_secret_of_an_invitation(accounts: Accounts, database: Database) -> None:
    secret = accounts.invitations.invite("ada")
    with database.read() as session:
        assert session.scalars(select(InvitationRow.digest)).one() == digest_of(secret) != secret


def test_the_first_administrator_is_invited_while_there_is_none(accounts: Accounts) -> None:
    first, second = accounts.invitations.invite_first_admin(), accounts.invitations.invite_first_admin()
    with pytest.raises(Gone):
        accounts.invitations.get(first)
    assert accounts.invitations.accept(second, "ada", PASSWORD).is_admin
    assert accounts.invitations.invite_first_admin() == ""


def test_the_link_to_the_first_administrator_ends_with_any_administrator(accounts: Accounts) -> None:
    """It stands in a log, and made one more administrator for a week after `chatserver users create --role admin`."""
    link = accounts.invitations.invite_first_admin()
    user = accounts.users.create("ada", PASSWORD)
    assert accounts.invitations.get(link).role == "admin", "a user is no administrator"
    accounts.users.change(user.id, role="admin")
    with pytest.raises(Gone):
        accounts.invitations.get(link)
    assert accounts.invitations.open() == []
    with pytest.raises(Gone):
        accounts.invitations.accept(link, "eve", PASSWORD)
    other = accounts.invitations.invite(user.id, role="admin")
    assert accounts.invitations.accept(other, "bob", PASSWORD).is_admin, "an administrator invites more"


def test_an_administrator_made_while_a_password_is_hashed_ends_the_link(accounts: Accounts, database: Database) -> None:
    link = accounts.invitations.invite_first_admin()

    class Late(Users):
        def made(self, *arguments: object, **options: object) -> UserRow:
            row = super().made(*arguments, **options)  # type: ignore[arg-type]
            accounts.users.create("quick", PASSWORD, role="admin")
            return row

    with pytest.raises(Gone):
        Invitations(database, Late(database, QUICK)).accept(link, "late", PASSWORD)
    assert [each.name for each in accounts.users.list()] == ["quick"]
