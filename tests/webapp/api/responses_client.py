"""Plain HTTP for the tests of responses: orders, looks, and streams whose framing is checked."""

import json
from typing import Any

import requests

from tests.end_to_end.system import wait_until

PATH = "/v1/responses"


def ask(question: str, model: str = "echo", **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": question, **fields}


def get(url: str, rid: str, rest: str = "", key: str = "", **query: object) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.get(f"{url}{PATH}/{rid}{rest}", params=query, headers=headers, timeout=30)  # type: ignore[arg-type]


def cancel(url: str, rid: str) -> requests.Response:
    return requests.post(f"{url}{PATH}/{rid}/cancel", timeout=30)


def events(url: str, rid: str, after: int | None = None) -> list[Any]:
    """The stream of a response that was ordered before, whose `event:` lines are checked."""
    response = get(url, rid, stream="true", **({} if after is None else {"starting_after": after}))
    assert response.status_code == 200, response.text
    return frames_of(response.text)


def frames_of(body: str) -> list[Any]:
    """The events of a whole stream, whose framing is checked."""
    *blocks, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    frames = []
    for block in (each for each in blocks if not each.startswith(":")):
        name, data = block.split("\n")
        frames.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {frames[-1]['type']}"
    return frames


def is_delta(frame: dict[str, Any]) -> bool:
    return bool(frame["type"].endswith(".delta"))


def read(frames: list[Any]) -> tuple[list[Any], dict[str, str]]:
    """What a client has in the end: all events but deltas, and the text of each item from its deltas."""
    texts: dict[str, str] = {}
    for frame in filter(is_delta, frames):
        texts[frame["item_id"]] = texts.get(frame["item_id"], "") + frame["delta"]
    return [frame for frame in frames if not is_delta(frame)], texts


def ended(url: str, rid: str) -> Any:
    """The response, once it has ended."""

    def look() -> Any:
        body = get(url, rid).json()
        return body if body["status"] not in ("queued", "in_progress") else None

    return wait_until(look, "the end of the response")


def shown(response: Any) -> str:
    """Its text."""
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)
