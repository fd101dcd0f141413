"""`chatserver users`, and the refusal to serve others without accounts, as programs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.accounts.accounts import Accounts
from services.accounts.exposure import check_exposure
from services.command.application import application
from services.command.run.first_admin import invitation_line
from services.database.database import Database
from services.database.schema import migrate
from services.errors import ConfigurationError, Conflict, InvalidRequest, Unauthorized
from services.settings import Settings, load_settings
from tests.services.command.test_command import run

PASSWORD = "correct horse battery"


def test_an_installation_gets_its_first_users_from_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATSERVER_STATE_DIR", str(tmp_path))

    def told(*arguments: str, typed: str = "") -> str:
        result = CliRunner().invoke(application, ["users", *arguments], input=typed)
        if result.exception:
            raise result.exception
        return result.stdout

    assert told("create", "Root", "--admin", typed=f"{PASSWORD}\n") == "root can sign in as an administrator\n"
    accounts = Accounts(Database(f"sqlite:///{tmp_path}/chatserver.db"))
    assert accounts.users.sign_in("root", PASSWORD).is_admin
    with pytest.raises(Conflict, match="only administrator"):
        told("disable", "root")
    with pytest.raises(InvalidRequest, match="chatserver groups set"):
        told("invite", "--group", "staff")
    accounts.groups.set("staff")
    link = told("invite", "--group", "staff").strip()
    ada = accounts.invitations.accept(link.removeprefix("/sign-up/"), "ada", PASSWORD)
    assert (ada.role, ada.group) == ("user", "staff")
    told("password", "ada", typed="another password\n")
    assert told("disable", "ada") == "ada is disabled\n"
    with pytest.raises(Unauthorized, match="disabled"):
        accounts.users.sign_in("ada", "another password")
    told("enable", "ada")
    assert accounts.users.sign_in("ada", "another password").id == ada.id
    assert told("role", "ada", "admin") == "ada is an administrator now\n"
    listed = told("list", "--json")
    assert [row["name"] for row in json.loads(listed)] == ["ada", "root"] and "argon2" not in listed


@pytest.mark.parametrize(
    "variables",
    [
        {"CHATSERVER_HOST": "0.0.0.0"},
        {"CHATSERVER_HOST": "192.168.1.7"},
        {"CHATSERVER_HOST": "::"},
        {"CHATSERVER_HOST": "127.0.0.1", "CHATSERVER_PUBLISHED_ON": "0.0.0.0"},
    ],
)
def test_others_are_not_served_before_somebody_has_decided_about_accounts(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="CHATSERVER_ACCOUNTS=on") as refused:
        check_exposure(load_settings(variables))
    assert "users create NAME --admin" in str(refused.value)
    for chosen in ("on", "off"):
        check_exposure(load_settings({**variables, "CHATSERVER_ACCOUNTS": chosen}))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(host="localhost"),
        Settings(host="::1"),
        Settings(host="0.0.0.0", published_on="127.0.0.1"),
    ],
)
def test_this_machine_alone_needs_no_decision(settings: Settings) -> None:
    check_exposure(settings)


@pytest.mark.parametrize("program", ["web", "up"])
def test_a_program_that_would_serve_others_does_not_start(tmp_path: Path, program: str) -> None:
    variables = {"CHATSERVER_HOST": "0.0.0.0", "CHATSERVER_STATE_DIR": str(tmp_path)}
    refused = run(program, "--port", "0", folder=tmp_path, **variables)
    assert refused.returncode != 0 and "CHATSERVER_ACCOUNTS=on" in refused.stderr + refused.stdout


def test_up_prints_a_link_for_the_first_administrator_while_there_is_none(tmp_path: Path) -> None:
    settings = Settings(accounts="on", state_dir=tmp_path)
    assert "no link for the first administrator" in invitation_line(settings, "http://127.0.0.1:8000"), "no tables yet"
    migrate(Database.of(settings))
    line = invitation_line(settings, "http://127.0.0.1:8000")
    secret = line.partition("http://127.0.0.1:8000/sign-up/")[2]
    assert Accounts(Database.of(settings)).invitations.accept(secret, "root", PASSWORD).is_admin
    assert invitation_line(settings, "http://127.0.0.1:8000") == ""
