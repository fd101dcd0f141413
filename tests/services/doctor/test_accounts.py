"""What the doctor says of accounts."""

from pathlib import Path

import pytest

from services.accounts.accounts import Accounts
from services.accounts.passwords import Passwords
from services.database.database import Database
from services.database.schema import migrate
from services.doctor.accounts import check_accounts
from services.settings import Settings
from tests.services.doctor.told import only


def test_a_page_of_this_machine_needs_no_accounts(tmp_path: Path) -> None:
    for settings in (Settings(state_dir=tmp_path), Settings(state_dir=tmp_path, accounts="off")):
        assert only(check_accounts(settings)) == ("ok", "nobody has to sign in, and only this machine reaches the page")


@pytest.mark.parametrize("field", ["host", "published_on"])
def test_a_public_address_without_accounts_is_told(tmp_path: Path, field: str) -> None:
    public = Settings(state_dir=tmp_path, **{field: "0.0.0.0"})
    level, message = only(check_accounts(public))
    assert level == "wrong" and "0.0.0.0" in message
    (finding,) = check_accounts(public.model_copy(update={"accounts": "off"}))
    assert finding.level == "warning" and "everybody who reaches 0.0.0.0" in finding.message
    assert "CHATSERVER_ACCOUNTS=on" in finding.remedy


def test_accounts_are_counted_and_a_missing_administrator_is_told(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, accounts="on", host="0.0.0.0")
    assert only(check_accounts(settings)) == ("note", "people must sign in, and there is no account yet")
    migrate(Database.of(settings))
    users = Accounts(Database.of(settings), Passwords(memory_kib=8, rounds=1)).users
    users.create("ada")
    (finding,) = check_accounts(settings)
    assert finding.level == "warning" and "1 account, 0 of them administrators" in finding.message
    assert "users create NAME --admin" in finding.remedy
    users.create("root", role="admin")
    assert only(check_accounts(settings)) == ("ok", "people must sign in: 2 accounts, 1 of them administrator")


def test_a_database_that_does_not_answer_leaves_the_word_to_its_own_check(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, accounts="on", database_url="postgresql://ada:tea@127.0.0.1:1/chat")
    level, message = only(check_accounts(settings))
    assert level == "note" and "cannot see" in message and "tea" not in message
