"""Programs that speak OpenAI's API over HTTP, keep its rules strictly, and write down every breach of the other side.

    program = Completions("program-0", urls)
    reading = program.run(Question("", "hello", 40), Behaviour(), deadline=time.monotonic() + 30)
    assert reading.done and not reading.breaches

`Completions` streams a chat completion under an `Idempotency-Key`: after a break it asks the next web process for the
same and reads the answer from its beginning. `Responses` streams a background response: after a break it asks the next
web process for what comes after the last number. The readings of both are judged by `tests/faults/invariants.py`. The
server makes the request's id, so a question's `rid` is only the key.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import requests

from tests.faults.tabs import RETRY_S, Behaviour, Question, Reading
from tests.faults.worker import MODEL

TIMEOUT_S = 10.0  # of silence: comments come more often
LATER = (429, 503)  # a later try may be accepted
CUT = {"length": "length", "max_output_tokens": "length"}  # words of the API → the code of an end


class Broken(Exception):
    """A stream or a connection ended before the answer did."""


class Program:
    """One program. `run` is for one thread at a time."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        self.name = name
        self.readings: list[Reading] = []
        self._urls = list(urls)
        self._http = requests.Session()

    def run(self, question: Question, behaviour: Behaviour, deadline: float) -> Reading:
        """Ask, and read until the end or until `deadline` (`time.monotonic()`)."""
        del behaviour  # a program does nothing beside reading
        reading = Reading(question, self.name)
        self.readings.append(reading)
        while time.monotonic() < deadline and not reading.done and not reading.breaches:
            try:
                self._attempt(reading)
            except (Broken, requests.RequestException) as error:
                reading.note(f"broken: {error!r:.200}")
                self._urls.append(self._urls.pop(0))
                time.sleep(RETRY_S)
        return reading

    def close(self) -> None:
        self._http.close()

    def _attempt(self, reading: Reading) -> None:
        """One request and its stream. Raises Broken or RequestException when the answer has not ended with it."""
        raise NotImplementedError

    def _frames(self, reading: Reading, method: str, path: str, **options: Any) -> Iterator[Any]:
        """The JSON of the events of one stream, which must end with `[DONE]`."""
        url = self._urls[0] + path
        with self._http.request(method, url, stream=True, timeout=TIMEOUT_S, **options) as response:
            reading.note(f"{method} {url}: {response.status_code}")
            if response.status_code != 200:
                self._refused(reading, response)
            for line in response.iter_lines(chunk_size=1):
                if line == b"data: [DONE]":
                    return
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
        raise Broken("the stream has no end")

    @staticmethod
    def _refused(reading: Reading, response: requests.Response) -> None:
        reading.refusals[str(response.status_code)] += 1
        if response.status_code not in LATER:
            reading.breach(f"refused: {response.status_code} {response.text:.300}")
        raise Broken(response.text[:200])

    @staticmethod
    def _known(reading: Reading, rid: str) -> None:
        """The server named the request. Another name at another attempt is a second answer."""
        if reading.acknowledged_at is None:
            reading.acknowledged_at = time.monotonic()
            reading.question = replace(reading.question, rid=rid)
        elif reading.rid != rid:
            reading.breach(f"answered again as {rid}")


class Completions(Program):
    """Reads from the beginning after each break: what it has read must come again."""

    def _attempt(self, reading: Reading) -> None:
        if not reading.acknowledged_at:
            reading.nonce = reading.rid  # the key, also once the request has its own id
        text, finish = "", ""
        body = {"model": MODEL, "messages": [{"role": "user", "content": reading.question.text}],
                "max_tokens": reading.question.max_new_tokens, "stream": True}  # fmt: skip
        headers = {"Idempotency-Key": reading.nonce}
        for frame in self._frames(reading, "POST", "/v1/chat/completions", json=body, headers=headers):
            if "error" in frame:
                reading.note(f"error: {frame['error']}")
                raise Broken(frame["error"]["code"])
            self._known(reading, frame["id"].removeprefix("chatcmpl-") + "-0")  # its only choice
            (choice,) = frame["choices"]
            reading.note(f"{choice['finish_reason']} have {len(text)}")
            if finish:
                reading.breach(f"{frame} after the end")
            text, finish = text + _said(choice["delta"]), choice["finish_reason"] or ""
            self._shown(reading, text)
        if not finish:
            reading.breach("[DONE] without a finish_reason")
        if text != reading.text:
            reading.breach(f"ended after {len(text)}, an attempt before had {len(reading.text)}")
        reading.apply_done({"status": "finished", "code": CUT.get(finish, finish), "offset": len(text)})

    @staticmethod
    def _shown(reading: Reading, text: str) -> None:
        if not (text.startswith(reading.text) or reading.text.startswith(text)):
            reading.breach(f"another text: {text!r:.80} after {reading.text!r:.80}")
        if len(text) > len(reading.text):
            reading.text = text
            reading.arrivals.append(time.monotonic())


class Responses(Program):
    """Goes on after the last number that it has seen."""

    def __init__(self, name: str, urls: Sequence[str]) -> None:
        super().__init__(name, urls)
        self._last: dict[str, int] = {}  # question's key → sequence number

    def _attempt(self, reading: Reading) -> None:
        if not reading.acknowledged_at:
            reading.nonce = reading.rid
            body = {"model": MODEL, "input": reading.question.text, "stream": True, "background": True,
                    "max_output_tokens": reading.question.max_new_tokens}  # fmt: skip
            headers = {"Idempotency-Key": reading.nonce}
            frames = self._frames(reading, "POST", "/v1/responses", json=body, headers=headers)
        else:
            after = {"stream": "true", "starting_after": str(self._last[reading.nonce])}
            frames = self._frames(reading, "GET", f"/v1/responses/{reading.rid}", params=after)
        for frame in frames:
            self._apply(reading, frame)

    def _apply(self, reading: Reading, frame: dict[str, Any]) -> None:
        reading.note(f"{frame['type']} {frame.get('sequence_number')} have {len(reading.text)}")
        if frame["type"] == "error":
            raise Broken(str(frame))
        if reading.done:
            reading.breach(f"{frame['type']} after the end")
        if frame["type"] == "response.created":
            self._known(reading, frame["response"]["id"])
        if frame["sequence_number"] <= self._last.get(reading.nonce, -1):
            reading.breach(f"number {frame['sequence_number']} after {self._last[reading.nonce]}")
        self._last[reading.nonce] = frame["sequence_number"]
        if frame["type"] in ("response.reasoning_text.delta", "response.output_text.delta"):
            reading.text += frame["delta"]
            reading.arrivals.append(time.monotonic())
        elif frame["type"] in ("response.completed", "response.incomplete", "response.failed"):
            self._ended(reading, frame["response"])

    @staticmethod
    def _ended(reading: Reading, response: dict[str, Any]) -> None:
        whole = "".join(part["text"] for item in response["output"] for part in item["content"])
        if whole != reading.text:
            reading.breach(f"the end holds {whole!r:.80} of {len(whole)}, the deltas {reading.text!r:.80}")
        reason = (response["incomplete_details"] or {}).get("reason", "stop")
        reading.apply_done({"status": "finished", "code": CUT.get(reason, reason), "offset": len(whole)})


def _said(delta: dict[str, Any]) -> str:
    """Of reasoning or of the answer: a worker may begin with either (`tests/contracts/protocol_model.py`)."""
    return (delta.get("reasoning_content") or "") + (delta.get("content") or "")


KINDS: dict[str, Callable[[str, Sequence[str]], Program]] = {"completion": Completions, "response": Responses}
