"""A feed in threads, over the real server."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.wire.keys import Keys


@pytest.fixture
def spawn() -> Iterator[Callable[..., None]]:
    """Starts threads that have ended when the test has."""
    threads: list[threading.Thread] = []

    def start(target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()

    yield start
    for thread in threads:
        thread.join(5)


@pytest.fixture
def feed(redis_client: redis.Redis, namespace: str, spawn: Callable[..., None]) -> Iterator[AnswerFeed]:
    """Started; its threads have ended when the test has."""
    made = AnswerFeed(Requests(redis_client, Keys(namespace)), redis_client, spawn=spawn)
    made.start()
    yield made
    made.stop()
