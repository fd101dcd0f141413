"""Previews in Redis: asked once for one order, signed, found again by their content."""

from typing import Any

import pytest
import redis

from services.errors import Gone
from services.jobs.previews import PreviewExample, PreviewResult, Previews
from services.wire.keys import Keys

SPEC: dict[str, Any] = {"config": {"name": "mine"}, "data": ["/data/in.jsonl"], "digests": ["d1"]}
FOUND = PreviewResult(("1 conversation",), (PreviewExample("data.jsonl:1", (("Hi", False), ("Ho", True))),))


@pytest.fixture
def previews(redis_client: redis.Redis, namespace: str) -> Previews:
    return Previews(redis_client, Keys(namespace), b"our key")


def test_the_same_order_gets_the_preview_that_is_under_way_and_later_what_it_found(previews: Previews) -> None:
    preview, is_new = previews.order(SPEC)
    assert is_new and preview.state == "waiting"
    assert previews.order(SPEC) == (preview, False)
    previews.begin(preview)
    assert previews.get(preview.id).state == "running"
    previews.end(preview, FOUND)
    again, is_new = previews.order(SPEC)
    assert not is_new and (again.state, again.result) == ("ended", FOUND)


def test_other_data_or_a_preview_that_found_a_problem_is_read_anew(previews: Previews) -> None:
    preview, _ = previews.order(SPEC)
    previews.end(preview, PreviewResult(problem="the model is not there"))
    again, is_new = previews.order(SPEC)
    assert is_new and (again.id, again.state, again.result.problem) == (preview.id, "waiting", "")
    other, is_new = previews.order({**SPEC, "digests": ["d2"]})
    assert is_new and other.id != preview.id


def test_a_preview_that_nobody_keeps_any_more_says_what_to_do(previews: Previews) -> None:
    with pytest.raises(Gone, match="press Preview again"):
        previews.get("0" * 32)


def test_previews_expire(previews: Previews, redis_client: redis.Redis, namespace: str) -> None:
    preview, _ = previews.order(SPEC)
    key = Keys(namespace).preview(preview.id)
    assert 0 < redis_client.ttl(key) <= 300
    previews.end(preview, FOUND)
    assert 300 < redis_client.ttl(key) <= 900


def test_only_who_has_the_key_orders(previews: Previews, redis_client: redis.Redis, namespace: str) -> None:
    strangers = Previews(redis_client, Keys(namespace), b"another key")
    ours, _ = previews.order(SPEC)
    assert previews.signed(previews.get(ours.id))
    theirs, _ = strangers.order({**SPEC, "data": ["/etc/passwd"]})
    assert not previews.signed(previews.get(theirs.id))
    key = Keys(namespace).preview(ours.id)
    changed = (redis_client.get(key) or b"").replace(b"/data/in.jsonl", b"/etc/passwd")
    redis_client.set(key, changed)
    assert not previews.signed(previews.get(ours.id))
