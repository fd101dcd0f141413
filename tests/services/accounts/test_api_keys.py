"""API keys: shown once, kept as digests, gone when revoked."""

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
