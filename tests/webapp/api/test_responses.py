"""Responses of a real web process over a real queue, read byte by byte."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chat.journal import Journal
from tests.end_to_end.system import System, running_system, wait_until
from tests.webapp.api.client import error_of, open_request, post, stream
from tests.webapp.api.responses_client import PATH, ask, cancel, ended, events, frames_of, get, read, shown

THOUGHT, SAID = "let me see 𝄞", "It is four."
IMAGE = {"role": "user", "content": [{"type": "input_image"}]}
ASKED = f"<think>{THOUGHT}</think>{SAID}"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Models: `echo` (fast), `slow` (20 tokens a second). Both reason."""
    with running_system(tmp_path_factory.mktemp("responses")) as system:
        options = {
            "echo": ("--rate", "50", "--chunk", "1000", "--reasoning", "--slots", "64"),
            "slow": ("--rate", "20", "--chunk", "1", "--reasoning", "--slots", "64"),
        }
        workers = [system.start("tests.stand_ins.synthetic_worker", "--model", m, *o) for m, o in options.items()]
        for worker in workers:
            system.wait_for_worker(worker)
        yield system


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


@pytest.fixture(scope="module")
def other_url(system: System) -> str:
    """Another web process, which tells more text at once."""
    return system.web(relay_interval_s=0.4)


def test_a_whole_response_has_all_fields_of_openai(url: str) -> None:
    fields = {"instructions": "be short", "metadata": {"a": "b"}, "temperature": 0.5, "max_output_tokens": 200}
    response = post(url, PATH, ask(ASKED, truncation="auto", reasoning={"effort": "low"}, **fields))
    body, base = response.json(), response.headers["x-request-id"].removeprefix("resp_")
    assert body["created_at"] > 1_700_000_000 and body["created_at"] <= body["completed_at"]
    assert body == {
        "id": f"resp_{base}", "object": "response", "created_at": body["created_at"], "status": "completed",
        "background": False, "frequency_penalty": 0, "instructions": "be short", "max_output_tokens": 200,
        "max_tool_calls": None, "metadata": {"a": "b"}, "model": "echo", "parallel_tool_calls": True,
        "presence_penalty": 0, "previous_response_id": None, "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": None}, "safety_identifier": None, "service_tier": "default",
        "store": True, "temperature": 0.5, "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "auto", "user": None,
        "completed_at": body["completed_at"], "error": None, "incomplete_details": None,
        "usage": {
            "input_tokens": len(ASKED) + 1,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": len(ASKED),
            "output_tokens_details": {"reasoning_tokens": body["usage"]["output_tokens_details"]["reasoning_tokens"]},
            "total_tokens": 2 * len(ASKED) + 1,
        },
        "output": [
            {
                "id": f"rs_{base}-0", "type": "reasoning", "status": "completed", "summary": [],
                "content": [{"type": "reasoning_text", "text": THOUGHT}],
            },
            {
                "id": f"msg_{base}-1", "type": "message", "status": "completed", "role": "assistant",
                "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": SAID}],
            },
        ],
    }  # fmt: skip
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] >= len(THOUGHT)
    assert get(url, body["id"]).content == response.content, "it is the same whenever it is asked for"


def test_a_stream_has_the_bytes_of_the_specification(url: str) -> None:
    text = post(url, PATH, ask("<think>hm</think>hi", stream=True)).text
    first = frames_of(text)[0]["response"]
    base = first["id"].removeprefix("resp_")
    last = get(url, first["id"]).json()
    rs, msg = (f'{{"id":"rs_{base}-0","type":"reasoning",', f'{{"id":"msg_{base}-1","type":"message",')
    thought, said = (
        '{"type":"reasoning_text","text":"hm"}',
        '{"type":"output_text","annotations":[],"logprobs":[],"text":"hi"}',
    )
    on_rs = f'"item_id":"rs_{base}-0","output_index":0,"content_index":0'
    on_msg = f'"item_id":"msg_{base}-1","output_index":1,"content_index":0'
    role = '"role":"assistant",'
    expected = [
        ("created", f'0,"response":{dumped(first)}'),
        ("in_progress", f'1,"response":{dumped(first)}'),
        ("output_item.added", f'2,"output_index":0,"item":{rs}"status":"in_progress","summary":[],"content":[]}}'),
        ("content_part.added", f'3,{on_rs},"part":{thought.replace("hm", "")}'),
        ("reasoning_text.delta", f'5,{on_rs},"delta":"hm"'),
        ("reasoning_text.done", f'6,{on_rs},"text":"hm"'),
        ("content_part.done", f'7,{on_rs},"part":{thought}'),
        (
            "output_item.done",
            f'8,"output_index":0,"item":{rs}"status":"completed","summary":[],"content":[{thought}]}}',
        ),
        ("output_item.added", f'9,"output_index":1,"item":{msg}"status":"in_progress",{role}"content":[]}}'),
        ("content_part.added", f'10,{on_msg},"part":{said.replace("hi", "")}'),
        ("output_text.delta", f'12,{on_msg},"delta":"hi","logprobs":[]'),
        ("output_text.done", f'13,{on_msg},"text":"hi","logprobs":[]'),
        ("content_part.done", f'14,{on_msg},"part":{said}'),
        ("output_item.done", f'15,"output_index":1,"item":{msg}"status":"completed",{role}"content":[{said}]}}'),
        ("completed", f'16,"response":{dumped(last)}'),
    ]
    whole = "".join(
        f'event: response.{kind}\ndata: {{"type":"response.{kind}","sequence_number":{rest}}}\n\n'
        for kind, rest in expected
    )
    assert text == whole + "data: [DONE]\n\n"
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)


def dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_a_response_that_is_cut_is_incomplete(url: str) -> None:
    body = post(url, PATH, ask("hello", max_output_tokens=3)).json()
    assert (body["status"], shown(body)) == ("incomplete", "hel")
    assert body["incomplete_details"] == {"reason": "max_output_tokens"} and body["completed_at"] is None
    assert body["output"][-1]["status"] == "incomplete"
    assert events(url, body["id"])[-1] == {"type": "response.incomplete", "sequence_number": 10, "response": body}


@pytest.mark.parametrize("cut", [1, 10])
def test_reasoning_that_is_cut_has_no_message(url: str, cut: int) -> None:
    body = post(url, PATH, ask(ASKED, max_output_tokens=len("<think>") + cut)).json()
    assert [item["type"] for item in body["output"]] == ["reasoning"] and body["status"] == "incomplete"


def test_two_processes_that_cut_the_text_differently_number_it_alike(url: str, other_url: str) -> None:
    rid = post(url, PATH, ask(ASKED, "slow", background=True)).json()["id"]
    live, late = events(url, rid), events(other_url, rid)
    assert read(live) == read(late) and len(live) > len(late)
    for index in range(0, len(live), 3):
        after = live[index]["sequence_number"]
        assert read([*live[: index + 1], *events(other_url, rid, after)]) == read(live), after
    assert events(other_url, rid, live[-1]["sequence_number"]) == []


def test_a_reader_may_begin_between_the_numbers_of_two_deltas(url: str) -> None:
    rid = post(url, PATH, ask("hello", background=True)).json()["id"]
    ended(url, rid)
    deltas = [frame["delta"] for frame in events(url, rid, 6) if frame["type"].endswith("delta")]
    assert deltas == ["llo"], "`h` and `e` have the numbers 5 and 6"


def test_a_background_response_goes_on_without_its_reader(system: System, url: str, other_url: str) -> None:
    body = ask(ASKED, "slow", background=True, stream=True)
    with open_request(url, PATH, body) as connection:
        head = b""
        while not (found := re.search(rb"resp_\w+", head)):
            head += connection.recv(65_536)
    rid = found[0].decode()
    response = ended(other_url, rid)
    assert (response["status"], shown(response)) == ("completed", SAID)
    assert [frame["type"] for frame in events(other_url, rid)][:3] == [
        "response.created", "response.queued", "response.in_progress"
    ]  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False])
def test_who_leaves_a_response_in_the_foreground_cancels_it(system: System, url: str, streamed: bool) -> None:
    before = rids(system)
    with open_request(url, PATH, ask("x" * 2_000, "slow", stream=streamed)):
        rid = wait_until(lambda: rids(system) - before, "the request").pop()
    wait_until(lambda: get(url, rid).json()["status"] == "cancelled", "the cancel")


def rids(system: System) -> set[str]:
    pattern = re.compile(rb".*:\{(resp_.*)\}:state")
    return {m[1].decode() for key in system.redis.scan_iter("*:state") if (m := pattern.fullmatch(key))}


def test_a_response_can_be_looked_at_while_it_waits_and_runs(system: System, url: str) -> None:
    system.redis.sadd(system.keys.models, "nobody")
    waiting = post(url, PATH, ask("hello", "nobody", background=True)).json()
    assert (waiting["status"], waiting["output"]) == ("queued", [])
    assert get(url, waiting["id"]).json() == waiting
    assert cancel(url, waiting["id"]).json()["status"] == "cancelled"
    assert [frame["sequence_number"] for frame in events(url, waiting["id"])] == [0, 1, 2, 3]
    rid = post(url, PATH, ask("x" * 2_000, "slow", background=True)).json()["id"]
    running = wait_until(lambda: (body := get(url, rid).json())["output"] and body, "the first text")
    assert (running["status"], running["output"][0]["status"], running["usage"]) == ("in_progress", "in_progress", None)
    cancel(url, rid)


def test_a_cancelled_response_ends_for_all_readers_and_stays_as_it_is(url: str, other_url: str) -> None:
    rid = post(url, PATH, ask("x" * 2_000, "slow", background=True)).json()["id"]
    reader = stream_of(other_url, rid)
    wait_until(lambda: "delta" in next(reader), "the first text")
    cancelled = cancel(url, rid).json()
    assert cancelled["status"] == "cancelled" and cancelled["output"][0]["status"] == "incomplete"
    rest = [line.removeprefix("data: ") for line in reader if line.startswith("data: ")]
    end = json.loads(rest[-2])
    assert (end["type"], end["response"], rest[-1]) == ("response.incomplete", cancelled, "[DONE]")
    assert sum('"type":"response.incomplete"' in line for line in rest) == 1
    assert cancel(other_url, rid).json() == cancelled == get(url, rid).json()


def stream_of(url: str, rid: str) -> Iterator[str]:
    response = requests.get(f"{url}{PATH}/{rid}", params={"stream": "true"}, timeout=30, stream=True)
    return (line.decode() for line in response.iter_lines())


@pytest.mark.parametrize("model", ["echo", "slow"])
def test_a_deleted_response_is_gone_with_its_text(system: System, url: str, model: str) -> None:
    """`slow` still runs: its worker must not answer it once more."""
    rid = post(url, PATH, ask("secret " * 100, model, background=True)).json()["id"]
    wait_until(lambda: get(url, rid).json()["output"], "the first text")
    assert requests.delete(f"{url}{PATH}/{rid}", timeout=30).json() == {
        "id": rid,
        "object": "response",
        "deleted": True,
    }
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("GET", "/input_items"),
        ("GET", "?stream=true"),
    ):
        response = requests.request(method, f"{url}{PATH}/{rid}{path}", timeout=30)
        assert response.status_code == 404 and error_of(response)["code"] == "unknown_response", (method, path)
    queue = {key for key in system.redis.scan_iter("*:ids") if system.redis.hexists(key, rid)}
    wait_until(lambda: not any(system.redis.hexists(key, rid) for key in queue), "the worker's end of it")
    left = [system.redis.hgetall(system.keys.state(rid)), system.redis.xrange(system.keys.journal(rid))]
    assert b"secret" not in repr(left).encode() and len(left[1]) == 1
    assert 0 < system.redis.ttl(system.keys.state(rid)) <= 600


def test_another_users_response_is_unknown(url: str) -> None:
    rid = post(url, PATH, ask("hello"), Authorization="Bearer ann").json()["id"]
    assert get(url, rid, key="ann").status_code == 200
    for response in (
        get(url, rid),
        get(url, rid, key="bob"),
        get(url, rid, key="bob", stream="true"),
        get(url, rid, "/input_items", key="bob"),
        post(url, f"{PATH}/{rid}/cancel", {}, Authorization="Bearer bob"),
        requests.delete(f"{url}{PATH}/{rid}", headers={"Authorization": "Bearer bob"}, timeout=30),
    ):
        assert response.status_code == 404 and error_of(response)["code"] == "unknown_response"
    continued = post(url, PATH, ask("x", previous_response_id=rid), Authorization="Bearer bob")
    assert (continued.status_code, error_of(continued)["param"]) == (400, "previous_response_id")
    assert get(url, rid, key="ann").json()["status"] == "completed"


@pytest.mark.parametrize("rid", ["resp_none", "x" * 200, "{a}", "a%20b", "%F0%9D%84%9E"])
def test_an_id_that_is_none_is_unknown(url: str, rid: str) -> None:
    assert get(url, rid).status_code == 404 and error_of(get(url, rid))["code"] == "unknown_response"


def test_an_answer_of_another_route_is_no_response(url: str) -> None:
    chat = post(url, "/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "hello"}]})
    assert get(url, f"{chat.headers['x-request-id']}-0").status_code == 404


def test_what_is_not_stored_cannot_be_asked_for_again(url: str) -> None:
    body = post(url, PATH, ask("hello", store=False)).json()
    assert (body["store"], shown(body)) == (False, "hello")
    assert get(url, body["id"]).status_code == 404
    assert error_of(post(url, PATH, ask("hello", store=False, background=True)))["param"] == "store"


def test_a_response_goes_on_with_the_conversation_of_the_one_before(system: System, url: str) -> None:
    first = post(url, PATH, ask(ASKED, instructions="be long")).json()
    second = post(url, PATH, ask("and then?", previous_response_id=first["id"])).json()
    system.redis.sadd(system.keys.models, "nobody")
    body = ask("and now?", "nobody", previous_response_id=second["id"], instructions="be short", background=True)
    third = post(url, PATH, body).json()
    assert third["previous_response_id"] == second["id"]
    head = Journal(system.redis, system.keys).head(third["id"])
    assert head is not None
    assert json.loads(head.payload)["messages"] == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": SAID, "reasoning": THOUGHT},
        {"role": "user", "content": "and then?"},
        {"role": "assistant", "content": "and then?"},
        {"role": "user", "content": "and now?"},
    ]
    waiting = post(url, PATH, ask("x", previous_response_id=third["id"]))
    assert (waiting.status_code, error_of(waiting)["param"]) == (400, "previous_response_id")
    cancel(url, third["id"])


def test_input_comes_as_items_and_its_output_is_taken_back_as_input(system: System, url: str) -> None:
    system.redis.sadd(system.keys.models, "nobody")
    output = post(url, PATH, ask(ASKED)).json()["output"]
    items = [
        {"role": "developer", "content": "be short"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": each} for each in "ab"]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "?"},
        *output,
        {"role": "user", "content": "go on"},
    ]  # fmt: skip
    response = post(url, PATH, {"model": "nobody", "input": items, "background": True})
    rid = response.json()["id"]
    head = Journal(system.redis, system.keys).head(rid)
    assert head is not None
    assert json.loads(head.payload)["messages"] == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": SAID, "reasoning": THOUGHT},
        {"role": "user", "content": "go on"},
    ]
    listed = get(url, rid, "/input_items", order="asc").json()
    assert [(item["type"], item.get("role")) for item in listed["data"]] == [
        ("message", "system"), ("message", "user"), ("reasoning", None), ("message", "assistant"), ("message", "user")
    ]  # fmt: skip
    assert (listed["object"], listed["has_more"], listed["first_id"]) == ("list", False, listed["data"][0]["id"])
    page = get(url, rid, "/input_items", limit=2).json()
    assert page["data"] == listed["data"][:2:-1] and page["has_more"]
    assert get(url, rid, "/input_items", limit=9, after=page["last_id"]).json()["data"] == listed["data"][2::-1]
    cancel(url, rid)


def test_thinking_can_be_switched_off(system: System, url: str) -> None:
    system.redis.sadd(system.keys.models, "nobody")
    rid = post(url, PATH, ask("x", "nobody", background=True, reasoning={"effort": "none"})).json()["id"]
    head = Journal(system.redis, system.keys).head(rid)
    assert head is not None and json.loads(head.payload)["thinking"] is False
    cancel(url, rid)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        (b"{", 400, None),
        (ask("x", "nobody-at-all"), 404, None),
        ({"model": "echo"}, 400, "input"),
        ({"model": "echo", "input": []}, 400, None),
        ({"model": "echo", "input": ""}, 400, None),
        ({"model": "echo", "input": 5}, 400, "input"),
        ({"model": "echo", "input": [{"type": "item_reference", "id": "msg_1"}]}, 400, "input.0.type"),
        ({"model": "echo", "input": [{"type": "web_search_call", "output": "1"}]}, 400, "input.0.type"),
        ({"model": "echo", "input": [{"type": "function_call_output", "output": "1"}]}, 400, "input.0.call_id"),
        ({"model": "echo", "input": [{"content": "x"}]}, 400, "input.0.role"),
        ({"model": "echo", "input": [{"role": "user"}]}, 400, "input.0.content"),
        ({"model": "echo", "input": [IMAGE]}, 400, "input.0.content.0.type"),
        (ask("x", tools=[{"type": "function", "name": "f"}]), 400, "tools"),
        (ask("x", tool_choice="required"), 400, "tool_choice"),
        (ask("x", text={"format": {"type": "json_object"}}), 400, "text.format"),
        (ask("x", reasoning={"summary": "auto"}), 400, "reasoning.summary"),
        (ask("x", include=["message.output_text.logprobs"]), 400, "include"),
        (ask("x", conversation="conv_1"), 400, "conversation"),
        (ask("x", prompt={"id": "p"}), 400, "prompt"),
        (ask("x", top_logprobs=3), 400, "top_logprobs"),
        (ask("x", temperature=9), 400, "temperature"),
        (ask("x", max_output_tokens=0), 400, "max_output_tokens"),
        (ask("x", truncation="some"), 400, "truncation"),
        (ask("x", metadata={"a": 1}), 400, "metadata.a"),
        (ask("x", metadata={"a": "b" * 513}), 400, "metadata.a"),
        (ask("x", metadata={str(n): "" for n in range(17)}), 400, "metadata"),
        (ask("x", previous_response_id="resp_none"), 400, "previous_response_id"),
        (ask("x", previous_response_id="{}"), 400, "previous_response_id"),
        (ask("\ud800"), 400, None),
        (ask("x" * 300_000), 400, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(url: str, body: Any, status: int, param: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = requests.post(url + PATH, data=data, headers={"Content-Type": "application/json"}, timeout=30)
    assert response.status_code == status, response.text
    error = error_of(response)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize(
    ("query", "param"),
    [({"starting_after": 3}, "starting_after"), ({"stream": "true", "starting_after": "x"}, "starting_after"),
     ({"stream": "true", "starting_after": -1}, "starting_after"), ({"stream": "perhaps"}, "stream")],
)  # fmt: skip
def test_a_query_that_is_wrong_is_named(url: str, query: dict[str, Any], param: str) -> None:
    rid = post(url, PATH, ask("hello")).json()["id"]
    response = get(url, rid, **query)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


def test_fields_that_ask_for_nothing_and_unknown_ones_are_ignored(url: str) -> None:
    extra = {
        "tools": [], "tool_choice": "auto", "include": ["reasoning.encrypted_content"], "top_logprobs": 0, "user": "u",
        "text": {"format": {"type": "text"}, "verbosity": "medium"}, "reasoning": {"effort": "high", "summary": None},
        "parallel_tool_calls": False, "max_tool_calls": 3, "stream_options": {"include_obfuscation": False},
        "service_tier": "auto", "prompt_cache_key": "k", "safety_identifier": "s", "never_heard_of": {"a": 1},
    }  # fmt: skip
    assert shown(post(url, PATH, ask("hello", **extra)).json()) == "hello"


def test_with_an_idempotency_key_a_retry_reads_the_first_response(system: System, url: str, other_url: str) -> None:
    before, question = rids(system), ask(ASKED, "slow", background=True)
    first = post(url, PATH, question, Idempotency_Key="k1").json()
    again = post(other_url, PATH, question, Idempotency_Key="k1").json()
    streamed = frames_of(stream(other_url, PATH, question, Idempotency_Key="k2").response.text)
    assert again["id"] == first["id"] and streamed[-1]["response"]["status"] == "completed"
    assert {**again, "status": "", "output": []} == {**first, "status": "", "output": []}
    assert len(rids(system) - before) == 2


@pytest.mark.parametrize("streamed", [True, False])
def test_a_retry_after_the_delete_does_not_ask_again(system: System, url: str, streamed: bool) -> None:
    before, question = rids(system), ask("hello", stream=streamed)
    post(url, PATH, question, Idempotency_Key="k3").raise_for_status()
    (rid,) = rids(system) - before
    requests.delete(f"{url}{PATH}/{rid}", timeout=30).raise_for_status()
    again = post(url, PATH, question, Idempotency_Key="k3")
    assert (again.status_code, error_of(again)["code"]) == (404, "unknown_response")
    assert rids(system) - before == {rid}


NAMES = [
    *("model", "input", "instructions", "previous_response_id", "stream", "background", "store", "max_output_tokens"),
    *("temperature", "top_p", "truncation", "reasoning", "text", "metadata", "tools", "include", "type", "role"),
    *("content", "effort", "format"),
]
FIELDS = st.sampled_from(NAMES)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["echo", "user", "message", "", "none"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(FIELDS, VALUES, max_size=8))
def test_no_body_makes_the_server_fail(url: str, body: dict[str, Any]) -> None:
    response = requests.post(
        url + PATH, data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=30
    )
    assert response.status_code < 500 and "Traceback" not in response.text


def test_the_document_has_the_routes(url: str) -> None:
    paths = requests.get(f"{url}/v1/openapi.json", timeout=30).json()["paths"]
    assert set(paths[PATH]) == {"post"} and set(paths[PATH + "/{rid}"]) == {"get", "delete"}
    parameters = {each["name"] for each in paths[PATH + "/{rid}"]["get"]["parameters"]}
    assert {"rid", "stream", "starting_after"} <= parameters


def test_a_body_that_nobody_reads_takes_no_room(system: System) -> None:
    """Readers of one's own waiting response could fill the room for what everybody sends."""
    url = system.web(max_unread_mib=4)
    rid = post(url, PATH, ask("x" * 2_000, "slow", background=True)).json()["id"]
    with ExitStack() as stack:
        for _ in range(8):
            asking = open_request(url, f"{PATH}/{rid}?stream=true", {"unread": "x" * 800_000}, "GET")
            assert b" 200 OK" in stack.enter_context(asking).recv(4_096)
        assert post(url, PATH, ask("z" * 150_000)).status_code == 200
    requests.post(f"{url}{PATH}/{rid}/cancel", timeout=30)
    system.processes[-1].terminate()
