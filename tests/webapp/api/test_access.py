"""Who may use the API: programs of this machine, and everybody else with a key. And its list of models."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient
from redis import Redis

from services.accounts.api_keys import ApiKeys
from services.connection.embedded import EmbeddedServer
from services.serving.registry import Registry, WorkerInfo
from services.settings import Settings
from services.wire.keys import Keys
from webapp.application import create_app

PAGE = "https://pages.example"


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, allowed_origins=PAGE)


@pytest.fixture
def program(settings: Settings) -> FlaskClient:
    return create_app(settings)[0].test_client()


@pytest.fixture
def secret(redis_client: Redis, namespace: str) -> str:
    return ApiKeys(redis_client, Keys(namespace)).create("webui", "team")


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("headers", [{}, bearer("anything"), bearer(""), {"Authorization": "Basic eDp5"}])
def test_programs_of_this_machine_need_no_key(program: FlaskClient, headers: dict[str, str]) -> None:
    assert program.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "192.0.2.7"},
        {"Origin": "https://evil.example"},
        {"Origin": PAGE},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_who_may_be_a_stranger_needs_one(program: FlaskClient, secret: str, headers: dict[str, str]) -> None:
    refused = program.get("/v1/models", headers={**headers, **bearer("sk-chatserver-guess")})
    assert refused.status_code == 401 and refused.json is not None
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert (
        refused.json["error"]["code"] == "invalid_api_key"
        and "chatserver keys create" in refused.json["error"]["message"]
    )
    assert program.get("/v1/models", headers={**headers, **bearer(secret)}).status_code == 200


def test_from_another_machine_a_key_is_needed(program: FlaskClient, secret: str) -> None:
    there = {"REMOTE_ADDR": "192.0.2.7"}
    assert program.get("/v1/models", environ_overrides=there).status_code == 401
    assert program.get("/v1/models", headers=bearer(secret), environ_overrides=there).status_code == 200


def test_keys_can_be_required_of_everybody(settings: Settings, secret: str) -> None:
    program = create_app(settings.model_copy(update={"api_keys_required": True}))[0].test_client()
    assert program.get("/v1/models", headers=bearer("anything")).status_code == 401
    assert program.get("/v1/models", headers={"authorization": f"bearer {secret}"}).status_code == 200


def test_only_pages_of_named_origins_may_read(program: FlaskClient) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-os"  # the official client's
    for origin, shared in ((PAGE, PAGE), ("https://evil.example", None)):
        preflight = program.options("/v1/chat/completions", headers={"Origin": origin, **asked})
        assert preflight.status_code == 200 and preflight.headers.get("Access-Control-Allow-Origin") == shared
        wanted = asked["Access-Control-Request-Headers"] if shared else None
        assert preflight.headers.get("Access-Control-Allow-Headers") == wanted
    assert "Access-Control-Allow-Origin" not in program.options("/api/models", headers={"Origin": PAGE}).headers


def test_models_are_listed_in_openais_shape(program: FlaskClient, redis_client: Redis, namespace: str) -> None:
    Registry(redis_client, Keys(namespace)).announce(
        WorkerInfo("w", "org/small", "none", 4, 0, 0.0, 2048, "h", 1, 1_700_000_000.5)
    )
    card = {
        "id": "org/small",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "chatserver",
        "max_model_len": 2048,
    }
    assert program.get("/v1/models").json == {"object": "list", "data": [card]}
    assert program.get("/v1/models/org/small").json == card
    unknown = program.get("/v1/models/other")
    assert unknown.status_code == 404 and unknown.json is not None
    assert unknown.json["error"]["code"] == "model_not_found"


def test_the_document_names_every_route_and_field(program: FlaskClient) -> None:
    document = program.get("/v1/openapi.json").json
    assert document is not None and document["openapi"].startswith("3.1")
    assert {"/v1/models", "/v1/models/{name}", "/v1/chat/completions", "/v1/completions"} <= set(document["paths"])
    reference = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    fields = document["components"]["schemas"][reference["$ref"].rpartition("/")[2]]["properties"]
    assert {"messages", "max_completion_tokens", "stream_options", "n"} <= set(fields)


def test_a_failure_of_redis_has_the_shape_of_the_api(settings: Settings) -> None:
    program = create_app(settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"}))[0].test_client()
    refused = program.get("/v1/models")
    assert refused.status_code == 503 and refused.json is not None
    assert refused.json["error"]["type"] == "server_error" and refused.headers["Retry-After"] == "1"
