"""`chatserver groups`, as an operator uses it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.accounts.accounts import Accounts
from services.command.application import application
from services.database.database import Database
from services.errors import InvalidRequest


def test_a_group_is_made_filled_listed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATSERVER_STATE_DIR", str(tmp_path))

    def told(*arguments: str) -> str:
        result = CliRunner().invoke(application, ["groups", *arguments])
        if result.exception:
            raise result.exception
        return result.stdout

    assert "no groups" in told("list")
    accounts = Accounts(Database(f"sqlite:///{tmp_path}/chatserver.db"))
    accounts.users.create("ada")
    assert told("set", "lab") == "lab (0 members): the defaults\n"
    assert told("set", "lab", "--tokens-per-day", "5000") == "lab (0 members): tokens per day 5000\n"
    assert told("move", "ada", "lab") == "ada is in the group lab\n"
    with pytest.raises(InvalidRequest, match="no group is named 'bal'"):
        told("move", "ada", "bal")
    assert told("set", "lab", "--weight", "2") == "lab (1 members): tokens per day 5000, weight 2\n"
    (group,) = json.loads(told("list", "--json"))
    assert group == {"name": "lab", "limits": {"tokens_per_day": 5000, "weight": 2.0}, "num_members": 1}
    assert "lab" in told("list") and "5000" in told("list")
    assert told("move", "ada") == "ada is in no group\n"
    told("move", "ada", "lab")
    assert told("remove", "lab") == "lab is removed; 1 members are in no group now\n"
    assert accounts.users.named("ada").group == ""
