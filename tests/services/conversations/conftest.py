"""What works on a database with the schema of this build, of both kinds."""

import pytest
from redis import Redis

from services.chat.requests import Requests
from services.conversations.asking import Asker
from services.conversations.conversations import Conversations
from services.conversations.prompt import PromptLimits
from services.database.database import Database
from services.wire.keys import Keys


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def requests(redis_client: Redis, namespace: str) -> Requests:
    """With one model, `echo`, that nobody serves."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "echo")
    redis_client.expire(keys.models, 600)
    return Requests(redis_client, keys, answer_ttl_s=600)


@pytest.fixture
def asker(database: Database, requests: Requests) -> Asker:
    return Asker(database, requests, PromptLimits(1_000, 10_000))
