"""The operator's endpoint decides before a request is queued, and its outage does what the setting says."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
import redis

from services.chat.moderation import FinishedAnswer, Moderator, Verdict, VerdictKind
from services.chat.requests import Requests
from services.errors import ConfigurationError, ContentRefused, Unavailable
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, SamplingOptions
from tests.moderation import Endpoint, send


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as made:
        yield made


def question(rid: str = "r1", text: str = "hello") -> ChatRequest:
    return ChatRequest(rid, "ann", "m", (Message("user", text),))


def moderated(client: redis.Redis, namespace: str, url: str, outage: VerdictKind = "refuse") -> Requests:
    keys = Keys(namespace)
    client.sadd(keys.models, "m")
    return Requests(client, keys, moderator=Moderator(url, timeout_s=0.4, outage=outage))


def test_what_passes_is_queued_and_asked_about_once(
    redis_client: redis.Redis, namespace: str, endpoint: Endpoint
) -> None:
    requests = moderated(redis_client, namespace, endpoint.url)
    for _ in range(2):
        requests.submit(question())
    assert requests.queue("m").waiting() == ["r1"] and requests.journal.verdict("r1") == ""
    (asked,) = endpoint.asked
    assert asked == {
        "stage": "question",
        "id": "r1",
        "user": "ann",
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "prompt": "",
        "tools": [],
        "stop": [],
        "response_format": None,
    }


def test_tools_forms_and_stop_texts_are_shown_too(
    redis_client: redis.Redis, namespace: str, endpoint: Endpoint
) -> None:
    """The model reads a tool's description and writes a form's words, so neither may pass unseen."""
    tool = {"type": "function", "function": {"name": "f", "description": "bad", "parameters": {}}}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"const": "bad"}}}
    sampling = SamplingOptions(stop=("bad",), response_format=form)
    said = (Message("user", "hello"),)
    requests = moderated(redis_client, namespace, endpoint.url)
    requests.submit(ChatRequest("r1", "ann", "m", said, sampling, tools=(tool,)))
    (asked,) = endpoint.asked
    assert (asked["tools"], asked["stop"], asked["response_format"]) == ([tool], ["bad"], form)


def test_what_is_refused_leaves_nothing_and_says_why(
    redis_client: redis.Redis, namespace: str, endpoint: Endpoint
) -> None:
    requests = moderated(redis_client, namespace, endpoint.url)
    with pytest.raises(ContentRefused, match="it says refuse") as refused:
        requests.submit(question(text="something bad"))
    assert (refused.value.code, refused.value.http_status) == ("content_refused", 400)
    assert not redis_client.exists(requests.keys.state("r1")) and requests.queue("m").length() == 0


def test_a_flag_stands_with_the_request(redis_client: redis.Redis, namespace: str, endpoint: Endpoint) -> None:
    requests = moderated(redis_client, namespace, endpoint.url)
    requests.submit(question(text="something odd"))
    assert requests.queue("m").waiting() == ["r1"]
    assert requests.journal.verdict("r1") == "flag: it says flag"


def test_the_log_says_in_one_line_what_was_flagged_and_who_asked_it(
    redis_client: redis.Redis, namespace: str, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    requests = moderated(redis_client, namespace, endpoint.url)
    endpoint.reply = lambda handler: send(handler, b'{"verdict": "flag", "reason": "two\\nlines"}')
    for _ in range(2):
        requests.submit(question())
    (record,) = (record for record in caplog.records if record.name == "chatserver.requests")
    assert (record.levelname, record.getMessage()) == ("WARNING", "flagged: two lines")
    assert (vars(record)["rid"], vars(record)["user"]) == ("r1", "ann")


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever: each byte begins a socket's timeout anew."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)  # this is what it does


FAULTS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "a server error": lambda handler: send(handler, b"{}", 500),
    "a redirection": lambda handler: send(handler, b"", 302),
    "no JSON": lambda handler: send(handler, b"<html>"),
    "no object": lambda handler: send(handler, b'["pass"]'),
    "another verdict": lambda handler: send(handler, b'{"verdict": "maybe"}'),
    "a book": lambda handler: send(handler, b" " * 100_000),
    "a drip": drip,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_refuses_for_a_while_and_within_the_limit(
    redis_client: redis.Redis, namespace: str, endpoint: Endpoint, fault: str
) -> None:
    requests = moderated(redis_client, namespace, endpoint.url)
    endpoint.reply = FAULTS[fault]
    began = time.monotonic()
    with pytest.raises(Unavailable, match="the moderation does not answer") as refused:
        requests.submit(question())
    assert time.monotonic() - began < 5 and refused.value.retry_after_s == 5
    assert not redis_client.exists(requests.keys.state("r1"))
    endpoint.reply = None
    requests.submit(question())


@pytest.mark.parametrize(("outage", "verdict"), [("pass", ""), ("flag", "flag: no verdict")])
def test_an_outage_may_let_requests_pass_or_flag_them(
    redis_client: redis.Redis, namespace: str, outage: VerdictKind, verdict: str
) -> None:
    requests = moderated(redis_client, namespace, "http://127.0.0.1:9/", outage)
    requests.submit(question())
    assert requests.queue("m").waiting() == ["r1"] and requests.journal.verdict("r1") == verdict


def test_an_endpoint_that_was_away_is_spared_the_answers_for_a_while(endpoint: Endpoint) -> None:
    """Of a thousand answers that wait to be archived each would wait for its limit."""
    moderator = Moderator(endpoint.url, timeout_s=0.4, outage="flag")
    answer = FinishedAnswer("r1", "ann", "m", "sea", "")
    endpoint.reply = FAULTS["no JSON"]
    assert {moderator.judge_answer(answer).reason for _ in range(9)} == {"no verdict"} and len(endpoint.asked) == 1
    endpoint.reply = None
    assert moderator.judge(question()).kind == "pass", "a question is shown to it all the same"


def test_nothing_is_moderated_unless_a_setting_says_so() -> None:
    assert Moderator.from_settings(Settings()) is None
    assert Moderator.from_settings(Settings(moderation_url="https://judge.example/x")) is not None
    with pytest.raises(ConfigurationError, match="no http:// or https:// URL"):
        Moderator.from_settings(Settings(moderation_url="judge.example"))


def test_a_long_reason_is_cut() -> None:
    assert len(Verdict.decode(json.dumps({"verdict": "flag", "reason": "x" * 9000}).encode()).reason) == 500
