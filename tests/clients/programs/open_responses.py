"""The compliance cases of the Open Responses specification, against the address in argv[1] with the key in argv[2].

What comes back is checked by the specification's own types, as `openresponses-types` has them. The cases are those of
the specification's tester; ours differs in one point: the model that answers repeats what it is told, so a message that
shall be answered by a call is that call.
"""

import inspect
import json
import sys
import urllib.error
import urllib.request

import openresponses_types
from openresponses_types import ResponseResource

URL, KEY = sys.argv[1:3]
EVENTS = {
    next(iter(model.model_fields["type"].annotation)).value: model
    for name, model in inspect.getmembers(openresponses_types, inspect.isclass)
    if name.endswith("StreamingEvent") and name != "ErrorStreamingEvent"
}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {"location": {"type": "string", "description": "The city and state"}},
        "required": ["location"],
    },
}
ARGUMENTS = '{"location": "San Francisco, CA"}'
CALL = f'<tool_call>{{"name": "get_weather", "arguments": {ARGUMENTS}}}</tool_call>'


def said(role: str, content: object) -> dict[str, object]:
    return {"type": "message", "role": role, "content": content}


def post(*messages: dict[str, object], model: str = "qwen3", **fields: object) -> bytes:
    body = json.dumps({"model": model, "input": messages, **fields}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(f"{URL}/v1/responses", body, headers), timeout=60) as answer:
        return answer.read()


def ask(*messages: dict[str, object], **fields: object) -> ResponseResource:
    return ResponseResource.model_validate_json(post(*messages, **fields))


def stream(*messages: dict[str, object], **fields: object) -> tuple[list[dict[str, object]], ResponseResource]:
    """Every event is one of the specification; the last one has the response."""
    *blocks, done, _ = post(*messages, stream=True, **fields).decode().split("\n\n")
    assert done == "data: [DONE]"
    data = [block.partition("\ndata: ")[2] for block in blocks if not block.startswith(":")]
    for each in data:
        EVENTS[json.loads(each)["type"]].model_validate_json(each)
    events = [json.loads(each) for each in data]
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    return events, ResponseResource.model_validate(events[-1]["response"])


def is_completed(response: ResponseResource, kind: str = "message") -> None:
    assert response.status == "completed" and kind in [item.type for item in response.output], response


def basic_response() -> None:
    is_completed(ask(said("user", "Say hello in exactly 3 words.")))


def streaming_response() -> None:
    events, response = stream(said("user", "Count from 1 to 5."))
    assert "response.output_text.delta" in [event["type"] for event in events]
    is_completed(response)


def system_prompt() -> None:
    is_completed(ask(said("system", "You are a pirate. Always respond in pirate speak."), said("user", "Say hello.")))


def tool_calling() -> None:
    is_completed(ask(said("user", CALL), tools=[WEATHER]), "function_call")


def tool_calling_streaming() -> None:
    events, response = stream(said("user", CALL), tools=[WEATHER])
    kinds = [(event["type"], event.get("item", {}).get("type")) for event in events]
    assert {
        ("response.output_item.added", "function_call"),
        ("response.function_call_arguments.delta", None),
        ("response.function_call_arguments.done", None),
        ("response.output_item.done", "function_call"),
    } <= set(kinds)
    is_completed(response, "function_call")


def image_input() -> None:
    """No model here reads pictures: the specification lets a server refuse what it cannot take."""
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    try:
        post(said("user", [{"type": "input_text", "text": "What do you see?"}, picture]))
    except urllib.error.HTTPError as refused:
        error = json.load(refused)["error"]
        assert refused.code == 400 and "input.0.content.1.type" in (error["param"], error["message"].split("=")[0])
    else:
        raise AssertionError("a picture was taken")


def multi_turn() -> None:
    alice = said("user", "My name is Alice."), said("assistant", "Hello Alice! How can I help you?")
    is_completed(ask(*alice, said("user", "What is my name?")))


def reasoning() -> None:
    is_completed(ask(said("user", "<think>hm</think>Four."), model="thinker"), "reasoning")


CASES = (
    basic_response,
    streaming_response,
    system_prompt,
    tool_calling,
    tool_calling_streaming,
    image_input,
    multi_turn,
    reasoning,
)
for case in CASES:
    case()
    print(case.__name__, "is right")
