"""Calls of tools through a real web process, queue and worker: on input, in whole answers and in streams."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.end_to_end.system import System, running_system
from tests.webapp.api.client import CHAT, ask, error_of, post, stream, text_of

RESPONSES = "/v1/responses"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
TIME = {"type": "function", "function": {"name": "time", "description": "The time."}}
TOOLS = [WEATHER, TIME]
FLAT = [{"type": "function", **tool["function"]} for tool in TOOLS]  # type: ignore[dict-item]
PARIS, ZONE = '{"city": "Paris"}', '{"zone": "CET"}'
CALLED = [("weather", PARIS), ("time", ZONE)]
SAID = {
    "hermes": f'Let me look.\n<tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n</tool_call>\n'
    f'<tool_call>\n{{"name": "time", "arguments": {ZONE}}}\n</tool_call>',
    "mistral": f'Let me look.[TOOL_CALLS][{{"name": "weather", "arguments": {PARIS}}}, '
    f'{{"name": "time", "arguments": {ZONE}}}]',
    "llama": f'{{"name": "weather", "parameters": {PARIS}}}; {{"name": "time", "parameters": {ZONE}}}',
}
FAMILIES = sorted(SAID)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A model for each family, one token in several steps; `hermes` reasons too. `plain` knows no tools."""
    with running_system(tmp_path_factory.mktemp("tools")) as system:
        options = {family: ("--tools", family) for family in FAMILIES} | {"plain": ()}
        options["hermes"] += ("--reasoning",)
        options["mistral"] += ("--forms",)
        synthetic = ("tests.stand_ins.synthetic_worker", "--rate", "100", "--chunk", "7")
        workers = [system.start(*synthetic, "--model", model, *more) for model, more in options.items()]
        for worker in workers:
            system.wait_for_worker(worker)
        yield system


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web(max_user_requests=8)


def called(message: dict[str, Any]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]


def results(first: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages that go on after an answer that called tools."""
    told = [{"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"} for call in first["tool_calls"]]
    return [{"role": "user", "content": "How warm is it?"}, first, *told]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_answer_calls_tools_and_goes_on_with_their_results(url: str, family: str) -> None:
    choice = post(url, CHAT, ask(SAID[family], family, tools=TOOLS)).json()["choices"][0]
    message = choice["message"]
    assert (called(message), choice["finish_reason"]) == (CALLED, "tool_calls")
    assert message["content"] == ("Let me look." if family != "llama" else None)
    ids = [call["id"] for call in message["tool_calls"]]
    assert len(set(ids)) == 2 and all(call["type"] == "function" for call in message["tool_calls"])
    after = post(url, CHAT, {"model": family, "messages": results(message), "tools": TOOLS}).json()["choices"][0]
    assert (after["message"]["content"], after["finish_reason"]) == ("18 degrees", "stop")
    assert "tool_calls" not in after["message"]


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_stream_each_delta_has_its_index_and_only_the_first_of_a_call_id_and_name(url: str, family: str) -> None:
    frames = stream(url, CHAT, ask(SAID[family], family, tools=TOOLS, stream_options={"include_usage": True})).frames()
    deltas = [each for frame in frames for choice in frame["choices"] for each in choice["delta"].get("tool_calls", ())]
    for index, (name, arguments) in enumerate(CALLED):
        first, *others = [delta for delta in deltas if delta["index"] == index]
        assert set(first) == {"index", "id", "type", "function"} and first["function"] == {
            "name": name,
            "arguments": "",
        }
        assert all(set(other) == {"index", "function"} and list(other["function"]) == ["arguments"] for other in others)
        assert "".join(other["function"]["arguments"] for other in others) == arguments
    assert text_of(frames) == ("Let me look." if family != "llama" else "")
    assert frames[-2]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    assert [frame["usage"] is not None for frame in frames] == [False] * (len(frames) - 1) + [True]


def test_reasoning_before_a_call_stays_reasoning(url: str) -> None:
    message = post(url, CHAT, ask("<think>hm</think>" + SAID["hermes"], "hermes", tools=TOOLS)).json()["choices"][0][
        "message"
    ]
    assert (message["reasoning"], message["content"], called(message)) == ("hm", "Let me look.", CALLED)


def test_whoever_repeats_a_question_reads_the_same_ids(url: str) -> None:
    body = ask(SAID["hermes"], "hermes", tools=TOOLS)
    whole = [post(url, CHAT, body, Idempotency_Key="a").json()["choices"][0]["message"]["tool_calls"] for _ in range(2)]
    other = post(url, CHAT, body).json()["choices"][0]["message"]["tool_calls"]
    assert whole[0] == whole[1] and whole[0][0]["id"] != other[0]["id"]


def test_without_tools_or_with_the_choice_none_a_call_is_text(url: str) -> None:
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": []}):
        choice = post(url, CHAT, ask(SAID["hermes"], "hermes", **fields)).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (SAID["hermes"], "stop")


def test_a_broken_call_is_text_and_a_cut_one_ends_with_length(url: str) -> None:
    broken = "<tool_call>\nweather please\n</tool_call>"
    choice = post(url, CHAT, ask(broken, "hermes", tools=TOOLS)).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (broken, "stop")
    cut_at = SAID["llama"].index("is")
    cut = post(url, CHAT, ask(SAID["llama"], "llama", tools=TOOLS, max_tokens=cut_at)).json()["choices"][0]
    assert (called(cut["message"]), cut["finish_reason"]) == ([("weather", '{"city": "Par')], "length")


def test_one_call_ends_the_answer_where_several_are_not_wanted(url: str) -> None:
    choice = post(url, CHAT, ask(SAID["hermes"], "hermes", tools=TOOLS, parallel_tool_calls=False)).json()["choices"][0]
    assert (called(choice["message"]), choice["finish_reason"]) == (CALLED[:1], "tool_calls")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_can_be_required(url: str, family: str) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    choice = post(url, CHAT, ask(PARIS + "}", family, tools=TOOLS, tool_choice=named)).json()["choices"][0]
    assert (called(choice["message"]), choice["finish_reason"]) == (CALLED[:1], "tool_calls")
    arguments = "parameters" if family == "llama" else "arguments"
    body = ask(f'time", "{arguments}": {ZONE}}}', family, tools=TOOLS, tool_choice="required")
    assert called(post(url, CHAT, body).json()["choices"][0]["message"]) == CALLED[1:]


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [{"type": "retrieval"}]}, "tools.0.type", "type function"),
    ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools.0.function.name", "is no name"),
    ({"tools": [TIME, TIME]}, "tools", "two tools have the name 'time'"),
    ({"tool_choice": "required"}, "tool_choice", "only allowed when tools are specified"),
    (
        {"tools": [TIME], "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice",
        "none of the tools",
    ),
    ({"functions": [{"name": "f"}]}, "functions", "not served"),
]


@pytest.mark.parametrize(("fields", "param", "words"), BAD, ids=[words for _, _, words in BAD])
def test_what_is_wrong_with_tools_is_named(url: str, fields: dict[str, Any], param: str, words: str) -> None:
    response = post(url, CHAT, ask("hi", "hermes", **fields))
    assert response.status_code == 400
    assert error_of(response)["param"] == param and words in error_of(response)["message"]


def test_messages_of_tools_are_checked(url: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    asked, calls = {"role": "user", "content": "hi"}, {"role": "assistant", "content": None, "tool_calls": [call]}

    def refused(*messages: dict[str, Any]) -> str:
        response = post(url, CHAT, {"model": "hermes", "messages": [asked, *messages], "tools": TOOLS})
        assert response.status_code == 400
        return str(error_of(response)["message"])

    assert "answers the call 'c2'" in refused(calls, {"role": "tool", "tool_call_id": "c2", "content": "x"})
    assert "answers the call 'c1'" in refused({"role": "tool", "tool_call_id": "c1", "content": "x"})
    assert "tool_call_id is missing" in refused(calls, {"role": "tool", "content": "x"})
    assert "send their results" in refused(calls)
    wrong = {**call, "function": {"name": "weather", "arguments": "Paris"}}
    assert "no JSON object" in refused({**calls, "tool_calls": [wrong]}, asked)
    parts = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "18"}]}
    empty = {**call, "function": {"name": "time", "arguments": ""}}
    body = {"model": "hermes", "messages": [asked, {**calls, "tool_calls": [empty]}, parts]}
    assert post(url, CHAT, body).json()["choices"][0]["message"]["content"] == "18"


def test_a_model_that_cannot_call_tools_is_never_asked_to(url: str) -> None:
    refused = post(url, CHAT, ask("hi", "plain", tools=TOOLS))
    assert refused.status_code == 400 and error_of(refused)["param"] == "tools"
    assert "cannot call tools" in error_of(refused)["message"]
    assert post(url, RESPONSES, {"model": "plain", "input": "hi", "tools": FLAT}).status_code == 400
    assert post(url, CHAT, ask("hi", "plain", tools=TOOLS, tool_choice="none")).status_code == 200


STRICT = [{"type": "function", "function": {**WEATHER["function"], "strict": True}}, TIME]  # type: ignore[dict-item]


def test_a_model_whose_workers_obey_no_grammar_is_given_no_strict_tools(url: str) -> None:
    refused = post(url, CHAT, ask(SAID["hermes"], "hermes", tools=STRICT))
    assert refused.status_code == 400 and error_of(refused)["param"] == "tools"
    assert "leave strict out" in error_of(refused)["message"]
    served = post(url, CHAT, ask(SAID["mistral"], "mistral", tools=STRICT)).json()["choices"][0]
    assert called(served["message"]) == CALLED


def test_a_strict_schema_that_no_grammar_can_promise_is_refused_by_its_path(url: str) -> None:
    function = {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"oneOf": []}}}}
    refused = post(url, CHAT, ask("hi", "mistral", tools=[TIME, {"type": "function", "function": function}]))
    assert refused.status_code == 400
    assert error_of(refused)["param"] == "tools.1.function.parameters.properties.a.oneOf"
    loose = {"type": "function", "function": {**function, "strict": False}}
    assert post(url, CHAT, ask("hi", "mistral", tools=[loose])).status_code == 200


def test_a_response_says_again_which_of_its_tools_are_strict(url: str) -> None:
    tools = [{"type": "function", **tool["function"]} for tool in STRICT]  # type: ignore[dict-item]
    told = post(url, RESPONSES, {"model": "mistral", "input": "hi", "tools": tools}).json()
    assert [tool["strict"] for tool in told["tools"]] == [True, False]


# -- responses ---------------------------------------------------------------------------------------------------------


def events(url: str, body: dict[str, Any], method: str = "POST", path: str = RESPONSES) -> list[dict[str, Any]]:
    response = requests.request(method, url + path, json=body or None, timeout=30)
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_a_response_calls_tools_with_the_events_of_the_specification(url: str) -> None:
    told = events(url, {"model": "hermes", "input": SAID["hermes"], "tools": FLAT, "stream": True})
    kinds = [event["type"].removeprefix("response.") for event in told]
    once = [kind for index, kind in enumerate(kinds) if index == 0 or kinds[index - 1] != kind]
    call = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    text = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    assert once == ["created", "in_progress", *text, "output_item.done", *call, *call, "completed"]
    numbers = [event["sequence_number"] for event in told]
    assert numbers == sorted(set(numbers))
    done = [event for event in told if event["type"].endswith("arguments.done")]
    assert [(event["name"], event["arguments"]) for event in done] == CALLED
    for index, event in enumerate(done, start=1):
        deltas = [each for each in told if each["type"].endswith("arguments.delta") and each["output_index"] == index]
        assert "".join(each["delta"] for each in deltas) == event["arguments"]
        assert {each["item_id"] for each in deltas} == {event["item_id"]}
    response = told[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "function_call"]
    assert all(item["status"] == "completed" for item in response["output"])
    assert response["tools"][0]["name"] == "weather" and response["tool_choice"] == "auto"
    rid = response["id"]
    for after in (numbers[4], numbers[-6]):
        rest = events(url, {}, "GET", f"{RESPONSES}/{rid}?stream=true&starting_after={after}")
        assert rest[0]["sequence_number"] > after
        assert rest[-1] == told[-1]
        assert [each for each in rest if not each["type"].endswith("delta")] == [
            each for each in told if not each["type"].endswith("delta") and each["sequence_number"] > after
        ]
    assert requests.get(f"{url}{RESPONSES}/{rid}", timeout=30).json()["output"] == response["output"]


def test_results_go_to_the_calls_of_the_response_before_or_of_the_same_input(url: str) -> None:
    first = post(url, RESPONSES, {"model": "mistral", "input": SAID["mistral"], "tools": FLAT}).json()
    calls = [item for item in first["output"] if item["type"] == "function_call"]
    assert [(call["name"], call["arguments"]) for call in calls] == CALLED
    outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": "18"} for call in calls]
    body = {"model": "mistral", "input": outputs, "tools": FLAT}
    after = post(url, RESPONSES, {**body, "previous_response_id": first["id"]}).json()
    assert after["output"][0]["content"][0]["text"] == "18"
    given = requests.get(f"{url}{RESPONSES}/{after['id']}/input_items?order=asc", timeout=30).json()["data"]
    assert [item["type"] for item in given] == ["function_call_output"] * 2
    whole = [{"role": "user", "content": "hi"}, *first["output"], *outputs]
    assert post(url, RESPONSES, {**body, "input": whole}).json()["output"][0]["content"][0]["text"] == "18"
    lost = post(url, RESPONSES, body)
    assert lost.status_code == 400 and "answers the call" in error_of(lost)["message"]


def test_a_response_can_be_made_to_call_a_tool(url: str) -> None:
    body = {
        "model": "llama",
        "input": PARIS + "}",
        "tools": FLAT,
        "tool_choice": {"type": "function", "name": "weather"},
    }
    response = post(url, RESPONSES, body).json()
    assert [(item["type"], item["name"]) for item in response["output"]] == [("function_call", "weather")]
    assert response["tool_choice"] == body["tool_choice"]
