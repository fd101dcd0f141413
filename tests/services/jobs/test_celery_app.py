"""Celery's configuration: which broker our URLs become, and that a broker that is away holds nobody up."""

from pathlib import Path
from typing import Any

import pytest

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, free_port
from services.errors import ConfigurationError
from services.jobs.celery_app import VISIBILITY_TIMEOUT_S, make_celery, num_waiting, wake
from services.settings import load_settings
from services.wire.keys import SWEEPS_QUEUE, Keys
from tests.servers import ClusterOfServers, Node, sentinels


def celery(url: str, **options: Any) -> Any:
    return make_celery(load_settings({}, redis_url=url, **options))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("redis://127.0.0.1:6379/3", "redis://127.0.0.1:6379/3"),
        ("redis://ann:p%40ss@host", "redis://ann:p%40ss@host:6379/0"),
        ("redis://[::1]:7000", "redis://[::1]:7000/0"),
        ("rediss://:secret@host:6380/1", "rediss://:secret@host:6380/1"),
        ("unix:///run/redis.sock?db=2", "redis+socket:///run/redis.sock?virtual_host=2"),
        (
            "redis+sentinel://:secret@a:1,b/chat/4",
            "sentinel://:secret@a:1/4;sentinel://:secret@b:26379/4",
        ),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
    ],
)
def test_our_urls_become_those_of_celery(ours: str, theirs: str) -> None:
    assert celery("redis://elsewhere", broker_url=ours).conf.broker_url == theirs


def test_without_a_broker_url_messages_go_where_everything_is() -> None:
    assert celery("redis://here:1/2").conf.broker_url == "redis://here:1/2"


def test_certificates_are_checked_unless_the_url_says_otherwise() -> None:
    assert celery("rediss://host").conf.broker_use_ssl["ssl_cert_reqs"] == "required"
    assert celery("rediss://host?ssl_cert_reqs=none").conf.broker_use_ssl["ssl_cert_reqs"] == "none"
    assert celery("rediss+sentinel://host/chat").conf.broker_use_ssl["ssl_cert_reqs"] == "required"
    assert not celery("redis://host").conf.broker_use_ssl


def test_a_cluster_cannot_be_the_broker_and_the_message_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"REDIS_URL names a Redis Cluster.*CHATSERVER_BROKER_URL"):
        celery("redis+cluster://a:1,b:2")
    with pytest.raises(ConfigurationError, match="CHATSERVER_BROKER_URL='redis://h:x'"):
        celery("redis://a", broker_url="redis://h:x")


def test_the_visibility_timeout_is_the_same_wherever_it_counts() -> None:
    conf = celery("redis://host").conf
    options = (conf.broker_transport_options, conf.result_backend_transport_options, conf)
    assert {place["visibility_timeout"] for place in options} == {VISIBILITY_TIMEOUT_S}


def test_a_wake_up_is_a_message_under_our_prefix(redis_server: EmbeddedServer, namespace: str) -> None:
    if isinstance(redis_server, ClusterOfServers):
        pytest.skip("Celery cannot use a cluster")
    app = celery(redis_server.url, namespace=namespace)
    assert num_waiting(app, SWEEPS_QUEUE) == 0
    wake(app, "a")
    assert num_waiting(app, SWEEPS_QUEUE) == 1
    with connect(redis_server.url, role="test") as redis:
        found = list(redis.scan_iter("*[[]*", count=1000)) + list(redis.scan_iter(f"{namespace}*", count=1000))
        assert found and all(key.startswith(Keys(namespace).celery.encode()) for key in found), found
    app.close()


def test_a_broker_that_is_away_does_not_stop_the_submission(caplog: pytest.LogCaptureFixture) -> None:
    wake(celery(f"redis://127.0.0.1:{free_port()}"), "a")
    assert "will find the job by themselves" in caplog.text


def test_messages_pass_through_a_socket_file_and_through_sentinel(redis_binary: Path, tmp_path: Path) -> None:
    node = Node(redis_binary, tmp_path, save="", unixsocket=str(tmp_path / "r.sock"))
    try:
        app = celery(f"unix://{tmp_path / 'r.sock'}?db=1")
        wake(app, "a")
        assert num_waiting(app, SWEEPS_QUEUE) == 1
    finally:
        node.end()
    with sentinels(redis_binary, tmp_path) as (url, primary, _):
        wake(celery(url), "a")
        assert primary.client.llen(Keys("chatserver").celery + SWEEPS_QUEUE) == 1
