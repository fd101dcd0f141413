"""Every route of the OpenAPI document, asked what the document allows and what it forbids, by a tool that is not ours.

Schemathesis makes the requests from the document. Whatever it sends, the server answers in time, with an error of the
API's shape if it refuses, and never with a failure of its own.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode

from services.grammar.json_schema import MAX_DEPTH
from services.openai.bodies import MAX_CHOICES, MAX_TOKENS
from services.wire.parsing import MAX_MESSAGES
from services.wire.tools import MAX_TOOLS
from tests.end_to_end.system import System, running_system
from tests.webapp.api.client import CHAT, TEXT, ask, error_of, post

MODEL = "echo"
TRAINABLE = "smollm2-135m"
FINE_TUNINGS = "/v1/fine_tuning/jobs"
BODY_NAMES = ("model", "input_file_id", "training_file")  # of what is there, in bodies
ANSWER_S = 30.0


@dataclass
class Api:
    """A web process, what its document says, and what it has written to its log."""

    url: str
    log: Path
    document: Any
    ids: dict[str, str]  # of the things that are there, by the names of the routes' parameters

    def routes(self) -> list[APIOperation]:
        return [found.ok() for found in self.document.get_all_operations()]

    def cases(self, operation: APIOperation) -> st.SearchStrategy[Case]:
        """Requests of one route: most of them about things that are there."""
        made = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
        return st.builds(self._about_real_things, made, st.integers(0, 3))

    def _about_real_things(self, case: Case, chance: int) -> Case:
        if chance == 0:
            return case
        for name in set(case.path_parameters or ()) & set(self.ids):
            case.path_parameters[name] = self.ids[name]
        if isinstance(case.body, dict):
            case.body.update({name: self.ids[name] for name in BODY_NAMES if name in case.body})
            if "training_file" in case.body:
                case.body["model"] = TRAINABLE
        return case


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("routes")) as system:
        options = ("--rate", "200", "--chunk", "1000", "--slots", "64", "--reasoning", "--forms", "--tools", "hermes")
        system.echo_worker("--model", MODEL, *options)
        yield system


@pytest.fixture(scope="module")
def api(system: System) -> Api:
    url = system.web(max_user_requests=10_000, max_queue=10_000, max_user_batches=10_000)
    log = system.folder / f"process-{len(system.processes) - 1}.log"
    return Api(url, log, schemathesis.openapi.from_url(f"{url}/v1/openapi.json"), things(url))


def things(url: str) -> dict[str, str]:
    """A model, files, a batch, a fine-tuning and a response. Nobody trains: the fine-tuning stays queued."""
    file_id, training_file = uploaded(url, "batch"), uploaded(url, "fine-tune")
    order = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    batch_id = post(url, "/v1/batches", order).json()["id"]
    training = {"model": TRAINABLE, "training_file": training_file}
    job_id = post(url, FINE_TUNINGS, training).json()["id"]
    rid = post(url, "/v1/responses", {"model": MODEL, "input": "hi"}).json()["id"]
    return {
        "name": MODEL,
        "model": MODEL,
        "file_id": file_id,
        "input_file_id": file_id,
        "training_file": training_file,
        "batch_id": batch_id,
        "job_id": job_id,
        "rid": rid,
    }


def uploaded(url: str, purpose: str) -> str:
    form: Any = {"purpose": (None, purpose), "file": ("in.jsonl", b"{}\n")}
    return str(requests.post(f"{url}/v1/files", files=form, timeout=30).json()["id"])


def survives(api: Api, route: APIOperation, num_examples: int, *, repeatable: bool) -> None:
    """Send so many requests. Fails with one that hurts the server, made as small as it can be."""
    written = api.log.stat().st_size

    @given(case=api.cases(route))
    @settings(
        max_examples=num_examples,
        derandomize=repeatable,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def send(case: Case) -> None:
        check(case.call(base_url=api.url, timeout=ANSWER_S))

    send()
    with api.log.open() as log:
        log.seek(written)
        assert "Traceback" not in log.read()


def check(response: Any) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert error_of(response)["message"]


def test_the_names_that_requests_are_given_are_those_of_things_that_are_there(api: Api) -> None:
    """The routes of fine-tunings were asked about no job that exists, and so could not fail."""
    names = {name for route in api.routes() for name in re.findall(r"{(\w+)}", route.path)}
    assert names <= set(api.ids), "a route whose thing `things` does not make"
    assert requests.get(f"{api.url}{FINE_TUNINGS}/{api.ids['job_id']}", timeout=30).status_code == 200


@pytest.mark.timeout(600)
def test_no_request_makes_a_route_fail(api: Api, subtests: pytest.Subtests) -> None:
    for route in api.routes():
        with subtests.test(route.label):
            survives(api, route, 12, repeatable=True)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
def test_none_of_many_requests_makes_a_route_fail(api: Api, subtests: pytest.Subtests) -> None:
    for route in api.routes():
        with subtests.test(route.label):
            survives(api, route, 1_000 if route.body else 200, repeatable=False)


def nested(levels: int) -> dict[str, Any]:
    """A form whose schema has so many levels below its outermost."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "maxItems": 1}
    return {"type": "json_schema", "json_schema": {"name": "deep", "schema": schema}}


def sized(num_bytes: int) -> dict[str, Any]:
    """A question whose body has exactly so many bytes, as `requests` writes it."""
    body = ask("hi", user="")
    return {**body, "user": "x" * (num_bytes - len(json.dumps(body)))}


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


TURN = {"role": "user", "content": "hi"}
BOUNDS: dict[str, tuple[str, Callable[[int], dict[str, Any]], int]] = {  # the path, a body of a size, the largest size
    "answers": (CHAT, lambda size: ask("hi", n=size), MAX_CHOICES),
    "stop strings": (CHAT, lambda size: ask("hi", stop=["x"] * size), 16),
    "characters of a stop string": (CHAT, lambda size: ask("hi", stop="x" * size), 256),
    "new tokens": (CHAT, lambda size: ask("hi", max_tokens=size), MAX_TOKENS),
    "messages": (CHAT, lambda size: ask("hi", messages=[TURN] * size), MAX_MESSAGES),
    "characters of the messages": (CHAT, lambda size: ask("x" * size), 200_000),
    "tools": (CHAT, lambda size: ask("hi", tools=[tool(f"f{n}") for n in range(size)]), MAX_TOOLS),
    "levels of a schema": (CHAT, lambda size: ask("[]", response_format=nested(size)), MAX_DEPTH),
    "bytes of a body": (CHAT, sized, 865_536),
    "prompts": (TEXT, lambda size: {"model": MODEL, "prompt": ["hi"] * size}, MAX_CHOICES),
    "answers to two prompts": (TEXT, lambda size: {"model": MODEL, "prompt": ["a", "b"], "n": size}, MAX_CHOICES // 2),
    "items": ("/v1/responses", lambda size: {"model": MODEL, "input": [TURN] * size}, MAX_MESSAGES),
    "metadata": (
        "/v1/responses",
        lambda size: {"model": MODEL, "input": "hi", "metadata": {str(n): "" for n in range(size)}},
        16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_body_at_a_bound_is_answered_and_one_over_it_is_refused(api: Api, bound: str) -> None:
    path, body, most = BOUNDS[bound]
    answered, refused = (post(api.url, path, body(size)) for size in (most, most + 1))
    assert answered.status_code == 200, answered.text
    assert refused.status_code in (400, 413) and refused.json()["error"]["message"]
