"""`chatserver limits`, as an operator uses it."""

import json
from pathlib import Path

import pytest
import redis

from services.chat.quotas import Quotas
from services.connection.embedded import EmbeddedServer
from services.wire.keys import Keys
from services.wire.limits import UserLimits
from tests.services.command.test_command import run


@pytest.fixture
def variables(redis_server: EmbeddedServer, namespace: str) -> dict[str, str]:
    return {
        "REDIS_URL": redis_server.url,
        "CHATSERVER_NAMESPACE": namespace,
        "CHATSERVER_USER_IN_FLIGHT": "7",
    }


def test_limits_are_set_listed_and_unset(
    variables: dict[str, str], redis_client: redis.Redis, namespace: str, tmp_path: Path
) -> None:
    quotas = Quotas(redis_client, Keys(namespace), default=UserLimits(in_flight=7))
    assert "no user has limits" in run("limits", "list", folder=tmp_path, **variables).stdout
    said = run("limits", "set", "ann", "--tokens-per-day", "5000", "--weight", "2.5", folder=tmp_path, **variables)
    assert said.stdout == "ann: 5000 tokens a day, 7 requests in flight, weight 2.5\n", said.stderr
    assert quotas.get("ann") == UserLimits(5000, 7, 2.5)
    (row,) = json.loads(run("limits", "list", "--json", folder=tmp_path, **variables).stdout)
    assert (row["user"], row["tokens_used"], row["tokens_per_day"], row["most_in_flight"]) == ("ann", 0, 5000, 7)
    assert run("limits", "unset", "ann", folder=tmp_path, **variables).stdout == "ann has the defaults\n"
    assert quotas.all() == {}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "name a limit"),
        (["--weight", "0"], "weight 0 is not from 0.1 to 100"),
        (["--in-flight", "-1"], "at least 0"),
    ],
)
def test_a_wrong_limit_is_refused(variables: dict[str, str], tmp_path: Path, options: list[str], why: str) -> None:
    refused = run("limits", "set", "ann", *options, folder=tmp_path, **variables)
    assert refused.returncode != 0 and why in refused.stderr and "Traceback" not in refused.stderr
