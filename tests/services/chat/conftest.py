"""A feed in threads, over the real server."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.wire.keys import Keys


@pytest.fixture
def feed(redis_client: redis.Redis, namespace: str) -> Iterator[AnswerFeed]:
    """Started; its threads have ended when the test has."""
    with running_feed(redis_client, Keys(namespace)) as made:
        yield made


@contextlib.contextmanager
def running_feed(client: redis.Redis, keys: Keys) -> Iterator[AnswerFeed]:
    """A feed of a client of Redis."""
    threads: list[threading.Thread] = []

    def spawn(target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()

    made = AnswerFeed(Requests(client, keys), client, spawn=spawn)
    made.start()
    yield made
    made.stop()
    for thread in threads:
        thread.join(5)
