"""The web application without sockets: pages, headers, probes, origins, the key that signs cookies."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis

from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import Claim, TrainedModel, TrainedModels
from services.settings import Settings
from services.wire.keys import Keys
from webapp.access.newcomers import PER_MINUTE
from webapp.application import MAX_MESSAGE_OVERHEAD_BYTES, create_app, origin_check


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path)


@pytest.fixture
def visitor(settings: Settings) -> FlaskClient:
    return create_app(settings)[0].test_client()


def test_the_session_is_kept_in_a_cookie_that_scripts_cannot_read(visitor: FlaskClient) -> None:
    first = visitor.get("/api/session")
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert visitor.get("/api/session").json == first.json


def test_the_page_gets_its_limits_from_the_server(visitor: FlaskClient, settings: Settings) -> None:
    page = visitor.get("/").text
    assert f'data-max-characters="{settings.max_message_chars}"' in page
    assert f'data-max-bytes="{4 * settings.max_message_chars + MAX_MESSAGE_OVERHEAD_BYTES}"' in page


def test_every_answer_forbids_foreign_scripts_and_frames(visitor: FlaskClient) -> None:
    policy = visitor.get("/healthz").headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy


def test_readiness_is_redis_and_liveness_is_not(settings: Settings) -> None:
    visitor = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))[0].test_client()
    assert visitor.get("/healthz").status_code == 200
    refused = visitor.get("/readyz")
    assert refused.status_code == 503 and refused.json is not None
    assert refused.json["error"]["code"] == "unavailable"
    assert visitor.get("/api/models").status_code == 503


def test_readiness_says_that_the_memory_of_redis_is_full(settings: Settings, tmp_path: Path) -> None:
    """No status said so while nothing could be asked."""
    with EmbeddedServer(tmp_path) as server, connect(server.url, role="command") as redis:
        visitor = create_app(settings.model_copy(update={"redis_url": server.url}))[0].test_client()
        assert visitor.get("/readyz").status_code == 200
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] // 2)
        refused = visitor.get("/readyz")
        assert refused.status_code == 503 and refused.json is not None and refused.headers["Retry-After"] == "30"
        assert "the memory of Redis is" in refused.json["error"]["message"]


def test_an_internet_address_makes_a_bounded_number_of_users(visitor: FlaskClient) -> None:
    """Each is a user with places in the queue of its own; a program made 93 a second."""

    def newcomer(address: str) -> int:
        visitor.delete_cookie("chatserver")
        return visitor.get("/api/session", environ_base={"REMOTE_ADDR": address}).status_code

    assert {newcomer("8.8.4.4") for _ in range(PER_MINUTE)} == {200}
    refused = visitor.get("/api/session", environ_base={"REMOTE_ADDR": "8.8.4.4"})
    assert refused.status_code == 200, "who has a cookie is no newcomer"
    visitor.delete_cookie("chatserver")
    refused = visitor.get("/", environ_base={"REMOTE_ADDR": "8.8.4.4"})
    assert refused.status_code == 429 and 1 <= int(refused.headers["Retry-After"]) <= 60
    assert newcomer("8.8.8.8") == 200
    assert {newcomer("127.0.0.1") for _ in range(2 * PER_MINUTE)} == {200}


def test_a_failure_of_ours_shows_its_code_and_no_traceback(
    visitor: FlaskClient, redis_client: Redis, namespace: str
) -> None:
    redis_client.set(Keys(namespace).models, "not a set", ex=60)
    answer = visitor.get("/api/models")
    assert answer.status_code == 500 and answer.json is not None
    assert (
        answer.json["error"]["code"] == "internal" and "Traceback" not in answer.text and "WRONGTYPE" not in answer.text
    )


def test_the_page_offers_trained_models_while_they_are_wanted(
    visitor: FlaskClient, redis_client: Redis, namespace: str
) -> None:
    def offered() -> list[tuple[str, str]]:
        answer = visitor.get("/api/models").json
        assert answer is not None and "/runs" not in str(answer)
        return [(row["name"], row["state"]) for row in answer["models"]]

    trained = TrainedModels(redis_client, Keys(namespace))
    trained.register(TrainedModel("july", "/runs/july/model", "opt", "j1", 0.0))
    assert offered() == []
    trained.serve("july")
    assert offered() == [("july", "wanted")]
    trained.keep_claim(Claim("july", "a standby worker"))
    assert offered() == [("july", "loading")]
    Registry(redis_client, Keys(namespace)).announce(WorkerInfo("w", "july", "none", 4, 0, 0.0, 100, "host", 1, 0.0))
    assert offered() == [("july", "served")]
    Registry(redis_client, Keys(namespace)).leave("w")
    trained.stop_serving("july")
    assert offered() == []


def test_models_are_empty_before_the_first_worker(visitor: FlaskClient) -> None:
    assert visitor.get("/api/models").json == {"models": []}


def test_a_page_of_our_origin_or_of_a_named_one_may_open_a_socket() -> None:
    """A list of further origins locked the page's own out."""
    ours = {"wsgi.url_scheme": "http", "HTTP_HOST": "chat.local:8000"}
    check = origin_check("https://a.example, https://b.example/")
    assert (
        check("http://chat.local:8000", ours) and check("https://a.example", ours) and check("https://b.example", ours)
    )
    assert not check("https://evil.example", ours) and not check("https://chat.local:8000", ours)
    behind_tls = {**ours, "HTTP_X_FORWARDED_PROTO": "https"}
    assert origin_check("")("https://chat.local:8000", behind_tls)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/api/session", "/api/models", "/jobs", "/static/app.js", "/socket.io/?EIO=4&transport=polling", "/v1/x"],
)
def test_a_name_that_somebody_made_resolve_to_us_gets_nothing(visitor: FlaskClient, path: str) -> None:
    """DNS rebinding: a page of that name used the models of whoever looked at it."""
    for host in (
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "x@localhost",
    ):
        answer = visitor.get(path, headers={"Host": host})
        assert answer.status_code == 403 and "Set-Cookie" not in answer.headers
        assert "CHATSERVER_ALLOWED_ORIGINS" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_our_own_names_are_answered(visitor: FlaskClient, host: str) -> None:
    assert visitor.get("/api/session", headers={"Host": host}).status_code == 200


def test_the_refusal_is_a_page_for_people_and_json_for_programs(visitor: FlaskClient) -> None:
    page = visitor.get("/", headers={"Host": "<b>evil.example", "Accept": "text/html,*/*"})
    assert page.mimetype == "text/html" and "<h1>Not under this name</h1>" in page.text and "<b>" not in page.text
    program = visitor.get("/api/session", headers={"Host": "evil.example", "Accept": "text/html"})
    assert program.json is not None and program.json["error"]["code"] == "forbidden"


def test_a_probe_may_use_any_name(visitor: FlaskClient) -> None:
    assert [visitor.get(path, headers={"Host": "web:8000"}).status_code for path in ("/healthz", "/readyz")] == [
        200,
        200,
    ]


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({"allowed_origins": "https://chat.example.org"}, "chat.example.org", 200),
        ({"allowed_origins": "https://chat.example.org:8443"}, "chat.example.org:80", 200),
        ({"allowed_origins": "https://chat.example.org"}, "evil.example", 403),
        ({"host": "0.0.0.0"}, "chat.example.org", 200),
        ({"host": "0.0.0.0", "published_on": "127.0.0.1"}, "chat.example.org", 403),
        ({"host": "0.0.0.0", "published_on": "127.0.0.1"}, "localhost:8000", 200),
        ({"host": "0.0.0.0", "published_on": "0.0.0.0"}, "chat.example.org", 200),
        ({"host": "127.0.0.2"}, "127.0.0.2:8000", 200),
        ({"host": "localhost"}, "evil.example", 403),
    ],
)
def test_which_names_are_ours_follows_from_the_settings(
    settings: Settings, options: dict[str, str], host: str, status: int
) -> None:
    visitor = create_app(settings.model_copy(update=options))[0].test_client()
    assert visitor.get("/api/session", headers={"Host": host}).status_code == status


def test_a_cookie_that_came_over_tls_never_travels_without_it(visitor: FlaskClient) -> None:
    plain = visitor.get("/api/session").headers["Set-Cookie"]
    other = visitor.application.test_client()
    behind_tls = other.get("/api/session", headers={"X-Forwarded-Proto": "https"}).headers["Set-Cookie"]
    assert "Secure" not in plain and "Secure" in behind_tls


# -- the disk of Redis ---------------------------------------------------------------------------------------------


def test_readiness_names_the_full_disk(
    settings: Settings, tmp_path: Path, redis_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedServer(tmp_path, binary=redis_binary, appendfsync="no") as server:
        visitor = create_app(settings.model_copy(update={"redis_url": server.url}))[0].test_client()
        assert visitor.get("/readyz").status_code == 200
        monkeypatch.setattr("services.machine.disk.free_bytes", lambda folder: 3 << 20)
        refused = visitor.get("/readyz")
    assert refused.status_code == 503 and refused.json is not None
    assert refused.json["error"]["message"] == f"the disk of {server.folder} is full: free 3 MiB"
    down = visitor.get("/api/models").json
    assert down is not None and down["error"]["message"].startswith(
        f"the disk of {server.folder} is full: free 3 MiB ("
    )
