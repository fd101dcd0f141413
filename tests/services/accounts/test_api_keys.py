"""API keys: shown once, kept as digests, gone when revoked."""

import orjson
import pytest
from redis import Redis

from services.accounts.api_keys import ApiKeys
from services.errors import Conflict, InvalidRequest
from services.wire.keys import Keys


def test_a_key_stands_for_its_user_until_it_is_revoked(redis_client: Redis, namespace: str) -> None:
    keys = ApiKeys(redis_client, Keys(namespace))
    first, second = keys.create("webui", "team"), keys.create("batch", "night")
    assert first != second and [(each.name, each.user) for each in keys.list()] == [
        ("batch", "night"),
        ("webui", "team"),
    ]
    assert (keys.user_of(first), keys.user_of(second), keys.user_of(first + "x")) == ("team", "night", "")
    assert keys.revoke("webui").ending == first[-4:] and keys.user_of(first) == ""
    assert keys.user_of(second) == "night"


def test_redis_never_holds_a_key(redis_client: Redis, namespace: str) -> None:
    secret = ApiKeys(redis_client, Keys(namespace)).create("webui", "team")
    stored = redis_client.hgetall(Keys(namespace).api_keys)
    assert not any(secret[14:].encode() in part for pair in stored.items() for part in pair)


def test_wrong_names_are_refused_with_their_remedy(redis_client: Redis, namespace: str) -> None:
    keys = ApiKeys(redis_client, Keys(namespace))
    keys.create("webui", "team")
    with pytest.raises(Conflict, match="revoke it or choose another name"):
        keys.create("webui", "other")
    with pytest.raises(InvalidRequest, match="name"):
        keys.create("a b", "team")
    with pytest.raises(InvalidRequest, match="keys: webui"):
        keys.revoke("nobody")


def test_the_last_use_of_a_key_is_known(redis_client: Redis, namespace: str) -> None:
    keys = ApiKeys(redis_client, Keys(namespace))
    secret = keys.create("webui", "team")
    assert keys.list()[0].used is None
    keys.user_of(secret)
    [used] = keys.list()
    assert used.used is not None and used.used >= used.created
    keys.revoke("webui")
    assert not redis_client.exists(Keys(namespace).api_key_uses)


def test_a_build_without_last_uses_reads_the_keys(redis_client: Redis, namespace: str) -> None:
    """It made an object of every field that stood there, and failed on one that it did not know."""
    keys = ApiKeys(redis_client, Keys(namespace))
    keys.user_of(keys.create("webui", "team"))
    [stored] = redis_client.hvals(Keys(namespace).api_keys)
    assert set(orjson.loads(stored)) == {"name", "user", "created", "ending"}


def test_users_name_their_keys_without_hearing_of_each_others(redis_client: Redis, namespace: str) -> None:
    keys = ApiKeys(redis_client, Keys(namespace))
    first, second = keys.create_own("laptop", "user-1"), keys.create_own("laptop", "user-2")
    with pytest.raises(Conflict):
        keys.create_own("laptop", "user-1")
    with pytest.raises(InvalidRequest, match="user-1, user-2"):
        keys.revoke("laptop")
    assert [each.user for each in keys.list("user-2")] == ["user-2"]
    keys.revoke("laptop", "user-2")
    assert (keys.user_of(first), keys.user_of(second)) == ("user-1", "")
