"""Plain HTTP for the API's tests: no client library, so that each byte counts."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def ask(text: str, model: str = "echo", **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **fields}


def post(url: str, path: str, body: object, **headers: str) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(url + path, json=body, headers=named, timeout=30)


def error_of(response: requests.Response) -> dict[str, Any]:
    """The error, whose shape is checked."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and isinstance(error["message"], str)
    return error


@dataclass
class Stream:
    """The server-sent events of one response, in order: JSON, comments, and `[DONE]`."""

    response: requests.Response

    def lines(self) -> Iterator[str]:
        for line in self.response.iter_lines():
            yield line.decode()

    def frames(self) -> list[Any]:
        """The JSON of all events but the last, which must be `[DONE]`."""
        data = [line.removeprefix("data: ") for line in self.lines() if line.startswith("data: ")]
        assert data and data[-1] == "[DONE]", data[-1:]
        return [json.loads(each) for each in data[:-1]]


def stream(url: str, path: str, body: dict[str, Any], **headers: str) -> Stream:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = requests.post(url + path, json={**body, "stream": True}, headers=named, timeout=30, stream=True)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/event-stream")
    return Stream(response)


def text_of(frames: list[Any], choice: int = 0, field: str = "content") -> str:
    """What the deltas of one choice add up to."""
    deltas = [each["delta"] for frame in frames for each in frame["choices"] if each["index"] == choice]
    return "".join(delta.get(field) or "" for delta in deltas)


@contextmanager
def open_request(url: str, path: str, body: dict[str, Any], method: str = "POST") -> Iterator[socket.socket]:
    """A connection that has sent a request, to be read or left."""
    payload, at = json.dumps(body).encode(), urlsplit(url)
    head = f"{method} {path} HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        yield connection
