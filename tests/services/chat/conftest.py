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
def spawn() -> Iterator[Callable[..., None]]:
    """Starts threads that have ended when the test has."""
    with ended_threads() as start:
        yield start


@contextlib.contextmanager
def ended_threads() -> Iterator[Callable[..., None]]:
    threads: list[threading.Thread] = []

    def start(target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        threads.append(thread)
        thread.start()

    yield start
    for thread in threads:
        thread.join(5)


@pytest.fixture
def feed(redis_client: redis.Redis, namespace: str) -> Iterator[AnswerFeed]:
    """Started; its threads have ended when the test has."""
    with running_feed(redis_client, Keys(namespace)) as made:
        yield made


@contextlib.contextmanager
def running_feed(client: redis.Redis, keys: Keys) -> Iterator[AnswerFeed]:
    """A feed of a client of Redis."""
    with ended_threads() as spawn:
        made = AnswerFeed(Requests(client, keys), client, spawn=spawn)
        made.start()
        yield made
        made.stop()
