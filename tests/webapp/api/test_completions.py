"""Completions of a real web process over a real queue, read byte by byte."""

import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from services.chat.journal import Head, Journal
from services.openai.bodies import ChatCompletionBody, CompletionBody
from services.openai.response_bodies import ResponseBody
from tests.end_to_end.system import System, running_system, wait_until
from tests.webapp.api.client import CHAT, TEXT, ask, error_of, open_request, post, stream, text_of


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Models: `echo` (fast), `thinker` (reasons), `slow` (20 tokens a second, one at a time)."""
    with running_system(tmp_path_factory.mktemp("api")) as system:
        options = {
            "echo": ("--rate", "50", "--chunk", "1000", "--slots", "64"),
            "thinker": ("--rate", "50", "--chunk", "3", "--reasoning", "--forms"),
            "slow": ("--rate", "20", "--chunk", "1", "--slots", "1"),
        }
        workers = [system.start("tests.stand_ins.synthetic_worker", "--model", m, *o) for m, o in options.items()]
        for worker in workers:
            system.wait_for_worker(worker)
        yield system


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web(max_user_requests=4)


UNKEPT = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "array", "items": {"oneOf": []}}}}


def head_of(system: System, rid: str) -> Head:
    found = Journal(system.redis, system.keys).head(rid)
    assert found is not None
    return found


def rids(system: System) -> set[str]:
    """All requests that were ever accepted."""
    pattern = re.compile(rb".*:\{(.*)\}:state")
    return {m[1].decode() for key in system.redis.scan_iter("*:state") if (m := pattern.fullmatch(key))}


def test_a_stream_has_the_bytes_of_openai(url: str) -> None:
    response = requests.post(
        url + CHAT, json=ask("hi", stream=True, stream_options={"include_usage": True}), timeout=30
    )
    base = response.headers["x-request-id"]
    head = f'"id":"chatcmpl-{base}","object":"chat.completion.chunk","created":0,"model":"echo",'
    head += '"system_fingerprint":null,"choices":'
    choice = '[{{"index":0,"delta":{},"logprobs":null,"finish_reason":{}}}],"usage":null'
    usage = (
        '{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"completion_tokens_details":{"reasoning_tokens":0}}'
    )
    bodies = [
        choice.format('{"role":"assistant","content":"","refusal":null}', "null"),
        choice.format('{"content":"hi"}', "null"),
        choice.format("{}", '"stop"'),
        f'[],"usage":{usage}',
    ]
    expected = "".join(f"data: {{{head}{body}}}\n\n" for body in bodies) + "data: [DONE]\n\n"
    assert re.sub(r'"created":\d+', '"created":0', response.text) == expected


def test_without_the_option_no_chunk_speaks_of_usage(url: str) -> None:
    frames = stream(url, CHAT, ask("hello")).frames()
    assert not any("usage" in frame for frame in frames) and text_of(frames) == "hello"
    assert [list(frame["choices"][0]["delta"]) for frame in frames] == [["role", "content", "refusal"], ["content"], []]


def test_a_whole_answer(url: str) -> None:
    response = post(url, CHAT, ask("hello"))
    body = response.json()
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": f"chatcmpl-{response.headers['x-request-id']}",
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 6,
            "completion_tokens": 5,
            "total_tokens": 11,
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "system_fingerprint": None,
    }


def test_an_answer_that_is_cut_says_so(url: str) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        choice = post(url, CHAT, ask("hello", **{name: 3})).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("hel", "length")


def test_reasoning_has_fields_of_its_own_under_both_names(url: str) -> None:
    question = ask("<think>let me see</think>four", "thinker")
    message = post(url, CHAT, question).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("four", *["let me see"] * 2)
    frames = stream(url, CHAT, question).frames()
    assert text_of(frames) == "four"
    assert text_of(frames, field="reasoning_content") == text_of(frames, field="reasoning") == "let me see"


def test_each_choice_is_a_request_and_the_usage_counts_all(system: System, url: str) -> None:
    response = post(url, CHAT, ask("hello", n=3))
    body, base = response.json(), response.headers["x-request-id"]
    assert [(each["index"], each["message"]["content"]) for each in body["choices"]] == [(n, "hello") for n in range(3)]
    assert body["usage"]["completion_tokens"] == 15 and body["usage"]["prompt_tokens"] == 6
    assert {f"{base}-{n}" for n in range(3)} <= rids(system)
    frames = stream(url, CHAT, ask("hello", n=2, stream_options={"include_usage": True})).frames()
    assert [text_of(frames, choice) for choice in (0, 1)] == ["hello"] * 2
    assert frames[-1]["choices"] == [] and frames[-1]["usage"]["completion_tokens"] == 10


WITH_PICTURE = {"model": "echo", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, None),
        (ask("x", "nobody"), 404, None),
        ({"model": "echo"}, 400, "messages"),
        ({"model": "echo", "messages": []}, 400, None),
        ({"model": "echo", "messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
        ({"model": "echo", "messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.tool_call_id"),
        (WITH_PICTURE, 400, "messages.0.content.0.type"),
        (ask("x", temperature=9), 400, "temperature"),
        (ask("x", max_tokens=0), 400, "max_tokens"),
        (ask("x", n=0), 400, "n"),
        (ask("x", stop=""), 400, "stop"),
        (ask("x", stream_options={"include_usage": True}), 400, None),
        (ask("x", tools=[{"type": "function", "function": {"name": "f"}}]), 400, "tools"),
        (ask("x", logprobs=True), 400, "logprobs"),
        (ask("x", top_logprobs=1), 400, "top_logprobs"),
        (ask("x", response_format={"type": "json_object"}), 400, "response_format"),
        (ask("x", response_format=UNKEPT), 400, "response_format.json_schema.schema.items.oneOf"),
        (ask("x", structured_outputs={"regex": "a"}, response_format={"type": "json_object"}), 400, None),
        (ask("x", structured_outputs={"regex": "("}), 400, "structured_outputs.regex"),
        (ask("x", chat_template_kwargs={"bos": "x"}), 400, "chat_template_kwargs.bos"),
        (ask("x", continue_final_message=True), 400, "continue_final_message"),
        (ask("x", continue_final_message=True, add_generation_prompt=True), 400, None),
        (ask("x" * 300_000), 400, None),
        (ask("x" * 1_000_000), 413, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(url: str, body: Any, status: int, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = requests.post(url + CHAT, data=data, headers={"Content-Type": "application/json"}, timeout=30)
    assert response.status_code == status, response.text
    if status != 413:
        error = error_of(response)
        assert (error["param"], error["type"]) == (param, "invalid_request_error")
        assert "Traceback" not in error["message"]


def test_fields_that_ask_for_nothing_and_unknown_ones_are_ignored(url: str) -> None:
    extra = {
        "tools": [], "tool_choice": "none", "logprobs": False, "top_logprobs": 0, "response_format": {"type": "text"},
        "modalities": ["text"], "functions": [], "user": "u", "metadata": {"a": "b"}, "store": True,
        "service_tier": "auto",
        "parallel_tool_calls": True, "prediction": None, "stop": None, "seed": 2**40, "top_k": -1, "top_p": 0,
        "never_heard_of": {"a": 1}, "reasoning_effort": "low", "verbosity": "low",
    }  # fmt: skip
    assert post(url, CHAT, ask("hello", **extra)).json()["choices"][0]["message"]["content"] == "hello"


def test_messages_in_parts_and_of_developers(url: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "be short"},
        {"role": "user", "content": "x", "name": "ann"},
        {"role": "assistant", "content": None, "reasoning_content": "hm"},
        {"role": "user", "content": parts},
    ]
    body = post(url, CHAT, {"model": "echo", "messages": messages}).json()
    assert body["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (ChatCompletionBody, {"model": "m", "messages": [1] * 10_000}),
        (ChatCompletionBody, {"model": "m", "messages": [{"role": "user", "content": [1] * 10_000}]}),
        (CompletionBody, {"model": "m", "prompt": [1] * 10_000}),
        (ResponseBody, {"model": "m", "input": [1] * 10_000}),
        (ResponseBody, {"model": "m", "input": [{"role": "user", "content": [1] * 10_000}]}),
    ],
)
def test_of_many_faults_few_are_described(kind: type[BaseModel], body: dict[str, Any]) -> None:
    """400,000 wrong messages in one body stopped the process for seconds and took hundreds of MiB."""
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(body)
    assert caught.value.error_count() <= 3, "one for each kind that the field may have"


def test_the_fault_is_named_that_the_value_has(url: str) -> None:
    error = error_of(post(url, CHAT, ask("x", stop=["a"] * 17)))
    assert (error["param"], "at most 16 items" in error["message"]) == ("stop", True)


def test_every_response_has_an_id(url: str) -> None:
    answers = [requests.get(f"{url}/v1/nothing", timeout=30), requests.get(f"{url}/v1/models", timeout=30)]
    answers.append(post(url, CHAT, ask("x", "nobody")))
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3


def test_a_body_of_another_type_is_refused(url: str) -> None:
    """Any page may send a form or plain text here without asking."""
    response = requests.post(url + CHAT, data=json.dumps(ask("x")), headers={"Content-Type": "text/plain"}, timeout=30)
    assert response.status_code == 400 and "Content-Type: application/json" in error_of(response)["message"]


def test_paths_that_are_not_there_have_errors_of_the_same_shape(url: str) -> None:
    assert error_of(requests.get(f"{url}/v1/nothing", timeout=30))["code"] == "not_found"
    assert error_of(requests.get(url + CHAT, timeout=30))["code"] == "method_not_allowed"


def test_too_many_requests_are_told_when_to_come_again(url: str) -> None:
    response = post(url, CHAT, ask("hello", "slow", n=5))
    assert response.status_code == 429 and error_of(response)["code"] == "rate_limit_exceeded"
    assert 0 < int(response.headers["Retry-After"]) <= 120


def test_a_stream_that_waits_says_so(system: System, url: str) -> None:
    with open_request(url, CHAT, ask("x" * 2_000, "slow", stream=True)) as first:
        first.recv(1)
        waiting = stream(url, CHAT, ask("hello", "slow"), Authorization="Bearer another")
        lines = iter(waiting.lines())
        assert "data: {" in next(lines)
        assert next(line for line in lines if line.startswith(":")).startswith(": queued, 0 ahead")
        waiting.response.close()


@pytest.mark.parametrize("sent_before", [b"", b"\r\n"])
@pytest.mark.parametrize("streamed", [True, False])
def test_who_leaves_cancels(system: System, url: str, streamed: bool, sent_before: bytes) -> None:
    """Bytes behind the body hid that the connection was closed."""
    before = rids(system)
    with open_request(url, CHAT, ask("x" * 2_000, "slow", stream=streamed)) as connection:
        rid = wait_until(lambda: rids(system) - before, "the request").pop()
        connection.sendall(sent_before)
    wait_until(lambda: head_of(system, rid).status == "cancelled", "the cancel")


def test_an_idempotency_key_without_a_value_is_none(system: System, url: str) -> None:
    before, question = rids(system), ask("x" * 2_000, "slow", stream=True)
    with requests.post(url + CHAT, json=question, headers={"Idempotency-Key": ""}, timeout=30, stream=True):
        rid = wait_until(lambda: rids(system) - before, "the request").pop()
    wait_until(lambda: head_of(system, rid).status == "cancelled", "the cancel")


def test_a_failure_under_a_key_is_not_worth_a_retry(system: System, url: str) -> None:
    """The key would bring the same failure for a day."""
    before, answers = rids(system), list[requests.Response]()
    asking = threading.Thread(
        target=lambda: answers.append(post(url, CHAT, ask("x" * 2_000, "slow"), Idempotency_Key="k2"))
    )
    asking.start()
    rid = wait_until(lambda: rids(system) - before, "the request").pop()
    Journal(system.redis, system.keys).cancel(rid, head_of(system, rid).user)
    asking.join()
    assert (answers[0].status_code, answers[0].headers["x-should-retry"]) == (409, "false")


def test_with_an_idempotency_key_a_retry_reads_the_first_answer(system: System, url: str) -> None:
    """And who leaves does not cancel: the retry is on its way."""
    key, question, before = {"Idempotency-Key": "k1"}, ask("0123456789" * 4, "slow", stream=True), rids(system)
    left = requests.post(url + CHAT, json=question, headers=key, timeout=30, stream=True)
    left.raw.read(1)
    left.close()
    answers: list[str] = []

    def retry() -> None:
        answers.append(text_of(stream(url, CHAT, question, Idempotency_Key="k1").frames()))

    retries = [threading.Thread(target=retry) for _ in range(2)]
    for each in retries:
        each.start()
    for each in retries:
        each.join()
    assert answers == ["0123456789" * 4] * 2 and len(rids(system) - before) == 1
    other = stream(url, CHAT, {**question, "max_tokens": 1}, Idempotency_Key="k1").frames()
    assert text_of(other) == "0", "another body is another question"


def test_an_end_in_mid_stream_is_an_error_and_no_end(system: System, url: str) -> None:
    before = rids(system)
    running = stream(url, CHAT, ask("x" * 2_000, "slow"))
    rid = wait_until(lambda: rids(system) - before, "the request").pop()
    lines = iter(running.lines())
    next(line for line in lines if "content" in line)
    Journal(system.redis, system.keys).cancel(rid, head_of(system, rid).user)
    rest = [line for line in lines if line]
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert error["code"] == "cancelled" and "[DONE]" not in "".join(rest)


def test_an_answer_outlives_its_worker(system: System, url: str) -> None:
    workers = [
        system.start("tests.stand_ins.synthetic_worker", "--model", "twins", "--rate", "20", "--chunk", "1")
        for _ in range(2)
    ]
    for worker in workers:
        system.wait_for_worker(worker)
    text, before = "0123456789" * 6, rids(system)
    running = stream(url, CHAT, ask(text, "twins", stream_options={"include_usage": True}))
    rid = wait_until(lambda: rids(system) - before, "the request").pop()
    wait_until(lambda: head_of(system, rid).toff > 10, "some text")
    owner = head_of(system, rid).wid
    next(w for w in workers if str(w.pid) in owner).send_signal(signal.SIGKILL)
    frames = running.frames()
    assert text_of(frames) == text and frames[-1]["usage"]["completion_tokens"] == 60


def test_a_form_is_carried_to_a_worker_that_keeps_forms(url: str) -> None:
    question = ask("<think>hm</think>{}", "thinker", response_format={"type": "json_object"})
    assert post(url, CHAT, question).json()["choices"][0]["message"]["content"] == "{}"


def test_texts_are_continued(url: str) -> None:
    body = post(url, TEXT, {"model": "echo", "prompt": ["abc", "de"], "n": 2, "echo": True}).json()
    texts = [(each["index"], each["text"]) for each in body["choices"]]
    assert texts == [(0, "abcabc"), (1, "abcabc"), (2, "dede"), (3, "dede")]
    assert body["object"] == "text_completion" and body["usage"]["completion_tokens"] == 10
    frames = stream(url, TEXT, {"model": "echo", "prompt": "abc"}).frames()
    assert "".join(frame["choices"][0]["text"] for frame in frames) == "abc"
    assert frames[-1]["choices"][0]["finish_reason"] == "stop"
    for prompt in ("", [], [1, 2], None):
        assert error_of(post(url, TEXT, {"model": "echo", "prompt": prompt}))["param"].startswith("prompt")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "model messages stream stream_options n max_tokens temperature top_p top_k seed stop logit_bias user metadata"
    " reasoning_effort chat_template_kwargs continue_final_message tools response_format prompt echo"
)
CHANGES = st.dictionaries(st.sampled_from(FIELDS.split()), JSON_VALUES, min_size=1, max_size=3)


@given(changes=CHANGES, path=st.sampled_from([CHAT, TEXT]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_is_a_failure_of_the_server(url: str, changes: dict[str, Any], path: str) -> None:
    response = post(url, path, {**ask("hi", max_tokens=2), "prompt": "hi", **changes})
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        assert error_of(response)["message"]


def test_the_body_of_a_question_does_not_count_while_it_is_answered(system: System) -> None:
    """Long answers to long questions would have filled the room for what everybody sends."""
    url, before = system.web(max_unread_mib=4), rids(system)
    with ExitStack() as stack:
        for number in range(8):
            stack.enter_context(open_request(url, CHAT, ask("x" * 1_000, "slow", stream=True, user="y" * 800_000)))
            wait_until(lambda expected=number + 1: len(rids(system) - before) == expected, "the request")
        assert text_of(stream(url, CHAT, ask("z" * 100_000)).frames()) == "z" * 100_000
    system.processes[-1].terminate()
