"""docs/protocol.md tells the truth: each of its exchanges (docs/protocol/*.json) runs against a real web process.

The player here does what the document says under "Exchanges to run"; a client in another language can do the same with
the same files.
"""

import json
import queue
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import socketio

from services import errors
from services.places import ROOT
from tests.end_to_end.system import OrderedClient, System, session_cookie

DOCUMENT = ROOT / "docs" / "protocol.md"
EXCHANGES = sorted((ROOT / "docs" / "protocol").glob("*.json"))
EVENT_TIMEOUT_S = 20.0
SILENCE_S = 1.0
NOT_OF_REQUESTS = {"configuration", "storage_full"} | {"unauthorized", "unknown_response", "not_found"}  # of /v1 alone
OF_NO_CLASS = {"poison", "expired"}


class Player:
    """Plays one exchange over python-socketio: sends what the client sends, compares what the server says."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cookies = {"": "", "me": session_cookie(url)}
        self._bound: dict[str, Any] = {"<id>": uuid.uuid4().hex, "<length>": 0, "<nonce>": ""}
        self._text = ""
        self._events: queue.Queue[list[Any]] = queue.Queue()
        self.connect("me")

    def play(self, step: dict[str, Any]) -> None:
        if "send" in step:
            event, payload = self._filled(step["send"])
            self._match(step["ack"], self._client.call(event, payload, timeout=EVENT_TIMEOUT_S))
        elif "receive" in step:
            self._receive(*step["receive"])
        elif "text" in step or "text_of_at_least" in step:
            self._read(step)
        elif "silent" in step:
            with pytest.raises(queue.Empty):
                self._events.get(timeout=SILENCE_S)
        elif "disconnect" in step:
            self.close()
        elif step["connect"]:
            self.connect(step.get("as", "me"))
        else:
            with pytest.raises(socketio.exceptions.ConnectionError):
                self.connect(step["as"])
            self._match(step["error"], self._refusal)

    def connect(self, user: str) -> None:
        self._refusal: Any = None
        self._events = queue.Queue()
        self._client = OrderedClient(reconnection=False)
        for event in ("tokens", "rewind", "done"):
            self._client.on(event, lambda payload, event=event: self._events.put([event, payload]))
        self._client.on("connect_error", self._refused)
        if user not in self._cookies:
            self._cookies[user] = session_cookie(self._url)
        headers = {"Cookie": self._cookies[user]}
        self._client.connect(self._url, headers=headers, transports=["websocket"], wait_timeout=EVENT_TIMEOUT_S)

    def close(self) -> None:
        self._client.disconnect()

    def _refused(self, error: Any) -> None:
        self._refusal = error["data"] if isinstance(error, dict) else error

    def _receive(self, event: str, expected: Any) -> None:
        """The next event is this one; text that comes before it, repeats included, is applied."""
        name, payload = self._events.get(timeout=EVENT_TIMEOUT_S)
        while name == "tokens" and (event != name or expected.get("offset") != payload["offset"]):
            self._apply(name, payload)
            name, payload = self._events.get(timeout=EVENT_TIMEOUT_S)
        assert name == event, (name, payload)
        self._match(expected, payload)
        self._apply(name, payload)

    def _read(self, step: dict[str, Any]) -> None:
        wanted = self._filled(step.get("text"))
        length = step.get("text_of_at_least") or len(wanted)
        while len(self._text) < length:
            name, payload = self._events.get(timeout=EVENT_TIMEOUT_S)
            assert name == "tokens", (name, payload)
            self._apply(name, payload)
        assert wanted is None or self._text == wanted

    def _apply(self, name: str, payload: dict[str, Any]) -> None:
        """The rules of the document: text that continues ours is taken, of a repeat what goes beyond ours."""
        if name == "rewind":
            self._text = self._text[: payload["offset"]]
        elif name == "tokens":
            assert payload["offset"] <= len(self._text), f"a gap: {payload['offset']} after {len(self._text)}"
            self._text += payload["text"][len(self._text) - payload["offset"] :]
        if name != "done":
            self._bound["<nonce>"] = payload["nonce"]
        self._bound["<length>"] = len(self._text)

    def _filled(self, value: Any) -> Any:
        """What a value of a file stands for."""
        if isinstance(value, dict) and set(value) == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        if isinstance(value, dict):
            return {name: self._filled(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        return self._bound.get(value, value) if isinstance(value, str) else value

    def _match(self, expected: Any, found: Any) -> None:
        """Each named field is as expected; a name in angle brackets stands for whatever comes first."""
        if isinstance(expected, dict) and isinstance(found, dict):
            for name, value in expected.items():
                assert name in found, f"{name} is missing in {found}"
                self._match(value, found[name])
        elif isinstance(expected, str) and re.fullmatch("<.+>", expected) and expected != "<nonce>":
            assert self._bound.setdefault(expected, found) == found
        elif expected != "<nonce>":
            assert self._filled(expected) == found


@pytest.fixture(scope="module")
def url(system: System) -> Iterator[str]:
    system.echo_worker("--model", "fast", "--rate", "50", "--chunk", "1000")
    system.echo_worker("--model", "thinker", "--reasoning", "--rate", "20")
    yield system.web()


@pytest.mark.parametrize("path", EXCHANGES, ids=lambda path: path.stem)
def test_an_exchange_runs_as_the_document_says(url: str, path: Path) -> None:
    player = Player(url)
    for step in json.loads(path.read_text())["steps"]:
        player.play(step)
    player.close()


def test_the_document_shows_the_files_that_are_run() -> None:
    shown = dict(re.findall(r"\n\[(\S+)\]\(protocol/\S+\)\n\n```json\n(.*?)```\n", DOCUMENT.read_text(), re.DOTALL))
    assert shown == {path.name: path.read_text() for path in EXCHANGES}


def test_the_document_says_what_to_do_about_every_code() -> None:
    def codes(error: type[errors.ChatServerError]) -> set[str]:
        return {error.code}.union(*map(codes, error.__subclasses__()))

    rows = set(re.findall(r"^\| `([a-z_]+)` \| .* \| (?:send again|end)", DOCUMENT.read_text(), re.MULTILINE))
    assert rows == codes(errors.ChatServerError) - NOT_OF_REQUESTS | OF_NO_CLASS
