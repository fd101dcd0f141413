"""The arena's API without a browser: who may see what, and what the queue refuses."""

import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from werkzeug.test import TestResponse

from services.chat.queue import RequestQueue
from services.connection.embedded import EmbeddedServer
from services.database.database import Database
from services.jobs.jobs import Jobs
from services.serving.registry import Registry, WorkerInfo
from services.settings import Settings
from services.wire.keys import Keys
from tests.services.arena.database import finish
from tests.services.judgements.people import People
from tests.webapp.conversations.test_routes import Page
from webapp.application import create_app

BATTLES = "/api/arena/battles"
MODELS = ("secret-one", "secret-two")


@pytest.fixture
def settings(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Settings:
    return Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path, max_user_requests=2)


@pytest.fixture
def pages(settings: Settings, database: Database) -> tuple[Page, Page]:
    app = create_app(settings, database)[0]
    return Page(app.test_client()), Page(app.test_client())


@pytest.fixture
def served(redis_client: Redis, namespace: str) -> Registry:
    """Workers that take nothing."""
    registry, now = Registry(redis_client, Keys(namespace)), time.time()
    for model in MODELS:
        registry.announce(WorkerInfo(f"w-{model}", model, "none", 4, 1, 12.34, 2048, "h", 1, now, now))
    return registry


def begin(page: Page, battle_id: str = "b1", **more: Any) -> TestResponse:
    return page.ask("POST", BATTLES, {"id": battle_id, "question": "Why?", **more})


def answered(page: Page, database: Database, battle_id: str = "b1") -> dict[str, Any]:
    """A battle of which the archivist has both answers."""
    made = begin(page, battle_id)
    assert made.status_code == 201, made.text
    battle: dict[str, Any] = made.json["battle"]  # type: ignore[index]
    for side in ("left", "right"):
        finish(database, battle["rounds"][0][side]["id"], f"because ({side})")
    return battle


def test_a_battle_is_blind_on_every_route_until_its_vote(
    pages: tuple[Page, Page], database: Database, served: Registry
) -> None:
    page = pages[0]
    battle = answered(page, database)
    assert battle["rounds"][0]["left"]["state"] == "open"
    answer = battle["rounds"][0]["left"]["id"]
    blind = [
        page.ask("GET", f"{BATTLES}/b1"),
        begin(page),
        page.ask("GET", "/api/conversations"),
        page.ask("GET", "/api/conversations/b1"),
        page.ask("GET", "/api/search?q=because"),
        page.ask("POST", f"/api/messages/{answer}/feedback", {"verdict": "up"}),
    ]
    for seen in blind:
        assert "secret" not in seen.text and "temperature" not in seen.text, seen.request.path
    assert blind[3].status_code == blind[5].status_code == 404
    told = page.json("POST", f"{BATTLES}/b1/vote", {"vote": "left"})["battle"]
    assert {told["left"]["model"], told["right"]["model"]} == set(MODELS)
    shown = page.json("GET", "/api/conversations/b1")
    assert shown["folder"] == "Arena" and len(shown["messages"]) == 3
    assert page.json("POST", f"/api/messages/{answer}/feedback", {"verdict": "up"})["feedback"]["verdict"] == "up"


def test_another_users_battle_is_not_found(pages: tuple[Page, Page], database: Database, served: Registry) -> None:
    answered(pages[0], database)
    other = pages[1]
    for seen in (
        other.ask("GET", f"{BATTLES}/b1"),
        other.ask("POST", f"{BATTLES}/b1/vote", {"vote": "tie"}),
        other.ask("POST", f"{BATTLES}/b1/questions", {"number": 1, "question": "And?"}),
        begin(other),
    ):
        assert seen.status_code == 404, seen.text


def test_a_stranger_and_a_foreign_page_vote_on_nothing(pages: tuple[Page, Page], served: Registry) -> None:
    client = pages[0].client
    foreign = {"Origin": "http://evil.example"}
    for headers, status in ((foreign, 403), ({"Origin": "http://127.0.0.1:8000"}, 404)):
        seen = client.post(
            f"{BATTLES}/b1/vote", json={"vote": "tie"}, base_url="http://127.0.0.1:8000", headers=headers
        )
        assert seen.status_code == status, seen.text


def test_what_the_queue_refuses_leaves_nothing_behind_and_names_no_model(
    pages: tuple[Page, Page], served: Registry, redis_client: Redis, namespace: str
) -> None:
    page, twice = pages[0], {"model": MODELS[1]}
    settings = [{**twice, "settings": {"thinking": switch}} for switch in (True, False)]
    assert begin(page, "b1", sides=settings).status_code == 201
    refused = begin(page, "b2", sides=[{"model": MODELS[0]}, twice])  # one queue has room
    assert refused.status_code == 429 and "secret" not in refused.text, refused.text
    assert refused.json["error"]["retry_after_s"] > 0  # type: ignore[index]
    assert page.ask("GET", f"{BATTLES}/b2").status_code == 404
    assert RequestQueue(redis_client, Keys(namespace), MODELS[0]).length() == 0
    assert page.ask("GET", f"{BATTLES}/b1").status_code == 200


def test_a_second_question_goes_to_both(pages: tuple[Page, Page], database: Database, served: Registry) -> None:
    page = pages[0]
    answered(page, database)
    battle = page.json("POST", f"{BATTLES}/b1/questions", {"number": 1, "question": "And?"})["battle"]
    assert [each["question"] for each in battle["rounds"]] == ["Why?", "And?"]
    assert battle["rounds"][1]["right"]["state"] == "open"
    assert page.ask("POST", f"{BATTLES}/b1/vote", {"vote": "left"}).status_code == 409, "an answer is not whole"
    assert page.ask("POST", f"{BATTLES}/b1/questions", {"number": True, "question": "And?"}).status_code == 400


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"question": " "}, "question"),
        ({"question": 5}, "question"),
        ({"id": "a/b"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"sides": [{}]}, "sides"),
        ({"sides": [{"model": "a", "owner": "b"}, {}]}, "sides"),
        ({"sides": [{"settings": {"system": "x"}}, {}]}, "settings"),
        ({"sides": [{"settings": {"sampling": {"stop": ["my words"]}}}, {}]}, "settings"),
        ({"sides": [{}, {"settings": {"sampling": {"response_format": {"type": "json_object"}}}}]}, "settings"),
        ({"sides": [{}, {"settings": {"sampling": {"logit_bias": {"5": 1}}}}]}, "settings"),
    ],
)
def test_what_is_no_battle_is_refused_by_field(
    pages: tuple[Page, Page], served: Registry, more: dict[str, Any], field: str
) -> None:
    refused = begin(pages[0], **more)
    assert refused.status_code == 400 and refused.json["error"].get("field") == field, refused.text  # type: ignore[index]


def test_without_a_worker_the_arena_says_what_to_do(pages: tuple[Page, Page]) -> None:
    refused = begin(pages[0])
    assert refused.status_code == 503 and "chatserver worker" in refused.text


def test_the_leaderboard_counts_votes_and_follows_them(
    pages: tuple[Page, Page], database: Database, served: Registry
) -> None:
    page = pages[0]
    assert page.json("GET", "/api/arena/leaderboard") == {"standings": [], "votes": 0, "groups": 0, "unranked": 0}
    answered(page, database)
    winner = page.json("POST", f"{BATTLES}/b1/vote", {"vote": "right"})["battle"]["right"]["name"]
    board = page.json("GET", "/api/arena/leaderboard")
    assert (board["votes"], board["standings"][0]["name"], board["standings"][0]["high"]) == (1, winner, None)


def test_the_button_submits_the_training_on_what_people_preferred(
    pages: tuple[Page, Page], database: Database, settings: Settings, redis_client: Redis
) -> None:
    page, people = pages[0], People(database)
    for number in range(20):
        people.battle(f"b{number}", f"Question {number}?", "good", "bad", "left")
    choices = page.json("GET", "/api/arena/improvement")
    assert (choices["pairs"], choices["min_pairs"], choices["models"]) == (20, 20, ["smollm2-135m"])
    made = page.json("POST", "/api/arena/improvement", {"preset": "smollm2-135m"})
    assert made == page.json("POST", "/api/arena/improvement", {"preset": "smollm2-135m", "model": "smollm2-135m"})
    jobs = Jobs(redis_client, Keys(settings.namespace), (settings.state_dir / "job_key").read_bytes())
    spec = jobs.get(made["job"]).spec
    assert (spec["config"]["objective"], spec["serve"], made["pairs"]) == ("dpo", True, 20)
    assert Path(spec["data"][0]).is_relative_to(settings.state_dir), "where jobs may read"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"preset": "/etc/passwd"}, "preset"),
        ({"preset": ["smollm2-135m"]}, "preset"),
        ({"preset": "smollm2-135m", "model": "/models/other"}, "model"),
        ({"preset": "smollm2-135m"}, None),  # no vote yet
    ],
)
def test_a_browser_names_no_file_and_too_few_judgements_are_told(
    pages: tuple[Page, Page], body: dict[str, Any], field: str | None
) -> None:
    refused = pages[0].ask("POST", "/api/arena/improvement", body)
    assert refused.status_code == 400 and refused.json["error"].get("field") == field, refused.text  # type: ignore[index]


def test_only_administrators_train(pages: tuple[Page, Page]) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.9", "Origin": "http://127.0.0.1:8000"}
    refused = pages[0].ask("POST", "/api/arena/improvement", {"preset": "smollm2-135m"}, headers=forwarded)
    assert refused.status_code == 403
