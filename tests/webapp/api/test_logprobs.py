"""Log probabilities over HTTP: with each chunk those of its tokens, also after a takeover and for one who resumes."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.end_to_end.system import System, running_system
from tests.stand_ins.synthetic_worker import logprob_of
from tests.webapp.api import responses_client
from tests.webapp.api.client import CHAT, TEXT, ask, error_of, post, stream, text_of
from tests.webapp.api.responses_client import PATH, events, is_delta
from tests.webapp.api.test_response_takeover import Reader, kill_owner

SAID = "It is 😀 four."
THINKING = f"<think>let me see</think>\n\n{SAID}"
INCLUDE = ["message.output_text.logprobs"]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Models: `sure` (tells all), `own` (its own tokens' alone), `shy` (none), `slow` (tells all, two workers)."""
    with running_system(tmp_path_factory.mktemp("logprobs"), lease_s=1.5) as system:
        fast = ("--rate", "50", "--chunk", "3", "--reasoning", "--slots", "64")
        options = {"sure": (*fast, "--logprobs", "top"), "own": (*fast, "--logprobs", "own"), "shy": fast}
        slow = ("--rate", "20", "--chunk", "4", "--reasoning", "--logprobs", "top")
        started = [*options.items(), ("slow", slow), ("slow", slow)]
        workers = [system.start("tests.stand_ins.synthetic_worker", "--model", m, *o) for m, o in started]
        for worker in workers:
            system.wait_for_worker(worker)
        yield system


@pytest.fixture(scope="module")
def url(system: System) -> str:
    return system.web()


def told(letter: str, num_top: int) -> dict[str, Any]:
    """What OpenAI's clients read of one token."""
    logprob, likeliest = logprob_of(ord(letter), num_top)
    return {**named(letter, logprob), "top_logprobs": [named(chr(each), its) for each, its in likeliest]}


def named(letter: str, logprob: float) -> dict[str, Any]:
    return {"token": letter, "logprob": round(logprob, 6), "bytes": list(letter.encode())}


def contents(frames: list[Any], choice: int = 0) -> list[tuple[str, list[Any]]]:
    """The text of each chunk that has some, and its log probabilities."""
    chosen = [each for frame in frames for each in frame["choices"] if each["index"] == choice]
    return [(each["delta"]["content"], each["logprobs"]["content"]) for each in chosen if each["delta"].get("content")]


def test_each_chunk_has_those_of_its_tokens_and_reasoning_has_none(url: str) -> None:
    frames = stream(url, CHAT, ask(THINKING, "sure", logprobs=True, top_logprobs=2, n=2)).frames()
    for choice in (0, 1):
        chunks = contents(frames, choice)
        assert "".join(text for text, _ in chunks) == SAID
        for text, logprobs in chunks:
            assert logprobs == [told(letter, 2) for letter in text]
    others = [each for frame in frames for each in frame["choices"] if not each["delta"].get("content")]
    assert text_of(frames, field="reasoning") == "let me see"
    assert {each["logprobs"] and tuple(each["logprobs"]) for each in others} == {None}


@pytest.mark.parametrize(("top", "number"), [({}, 0), ({"top_logprobs": 0}, 0), ({"top_logprobs": 20}, 20)])
def test_a_whole_answer_has_as_many_of_the_likeliest_tokens_as_are_asked_for(
    url: str, top: dict[str, int], number: int
) -> None:
    choice = post(url, CHAT, ask(THINKING, "sure", logprobs=True, **top)).json()["choices"][0]
    assert choice["message"]["content"] == SAID
    assert choice["logprobs"] == {"content": [told(letter, number) for letter in SAID], "refusal": None}
    assert all(len(each["top_logprobs"]) == number for each in choice["logprobs"]["content"])


def test_a_stop_string_takes_those_of_its_tokens_with_it(url: str) -> None:
    choice = post(url, TEXT, {"model": "sure", "prompt": "one two", "logprobs": 1, "stop": " t"}).json()["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == "one"


def test_a_completion_has_lists_of_them(url: str) -> None:
    body = {"model": "sure", "prompt": "a😀b", "logprobs": 2}
    whole = post(url, TEXT, body).json()["choices"][0]["logprobs"]
    top = [{chr(each): round(its, 6) for each, its in logprob_of(ord(letter), 2)[1]} for letter in "a😀b"]
    assert whole == {
        "tokens": ["a", "😀", "b"],
        "token_logprobs": [round(logprob_of(ord(letter), 0)[0], 6) for letter in "a😀b"],
        "top_logprobs": top,
        "text_offset": [0, 1, 2],
    }
    chunks = [frame["choices"][0]["logprobs"] for frame in stream(url, TEXT, body).frames()]
    for name, values in whole.items():
        assert [each for chunk in chunks if chunk for each in chunk[name]] == values
    assert post(url, TEXT, {**body, "logprobs": 0}).json()["choices"][0]["logprobs"] == {**whole, "top_logprobs": None}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, ask("x", "shy", logprobs=True), "logprobs"),
        (CHAT, ask("x", "own", logprobs=True, top_logprobs=1), "top_logprobs"),
        (CHAT, ask("x", "sure", top_logprobs=1), "top_logprobs"),
        (CHAT, ask("x", "sure", logprobs=False, top_logprobs=1), "top_logprobs"),
        (CHAT, ask("x", "sure", logprobs=True, top_logprobs=21), "top_logprobs"),
        (CHAT, ask("x", "sure", logprobs=3), "logprobs"),
        (TEXT, {"model": "shy", "prompt": "x", "logprobs": 0}, "logprobs"),
        (TEXT, {"model": "own", "prompt": "x", "logprobs": 1}, "logprobs"),
        (TEXT, {"model": "sure", "prompt": "x", "logprobs": 21}, "logprobs"),
        (TEXT, {"model": "sure", "prompt": "x", "logprobs": 1, "echo": True}, "echo"),
        (PATH, responses_client.ask("x", "shy", include=INCLUDE), "include"),
        (PATH, responses_client.ask("x", "sure", include=["file_search_call.results"]), "include"),
        (PATH, responses_client.ask("x", "own", include=INCLUDE, top_logprobs=1), "top_logprobs"),
        (PATH, responses_client.ask("x", "sure", top_logprobs=1), "top_logprobs"),
    ],
)
def test_what_cannot_be_told_is_refused_by_its_name(url: str, path: str, body: Any, param: str) -> None:
    response = post(url, path, body)
    assert (response.status_code, error_of(response)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "body", "field", "most"),
    [
        (CHAT, ask("x", "sure", logprobs=True, top_logprobs=20, n=64), "max_tokens", 744),
        (CHAT, ask("x", "sure", logprobs=True, n=10), "max_completion_tokens", 100_000),
        (TEXT, {"model": "sure", "prompt": ["x", "y"], "logprobs": 19, "n": 5}, "max_tokens", 5_000),
        (PATH, responses_client.ask("x", "sure", include=INCLUDE, top_logprobs=20), "max_output_tokens", 47_619),
    ],
)
def test_a_request_has_a_million_of_them_at_most(url: str, path: str, body: Any, field: str, most: int) -> None:
    """More held up a web process for seconds, with all its other readers, and grew it by hundreds of megabytes."""
    for least in ({}, {field: 1}):
        assert post(url, path, {**body, **least}).status_code == 200
    refusal = post(url, path, {**body, field: most + 1})
    assert (refusal.status_code, error_of(refusal)["param"]) == (400, field)
    assert f"room for {most:,} tokens" in error_of(refusal)["message"]


def test_an_engine_that_knows_its_own_tokens_alone_serves_those(url: str) -> None:
    content = post(url, CHAT, ask("ab", "own", logprobs=True)).json()["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in content] == ["a", "b"]


def test_a_reader_after_a_takeover_and_one_that_resumes_read_the_same(system: System, url: str) -> None:
    said = "It is four, and no other number. " * 3
    body = responses_client.ask(f"<think>hm</think>{said}", "slow", include=INCLUDE, top_logprobs=2)
    reader = Reader(
        requests.post(url + PATH, json={**body, "background": True, "stream": True}, stream=True, timeout=30)
    )
    reader.read_until("output_text.delta", 30)
    rid = reader.frames[0]["response"]["id"]
    kill_owner(system, rid)
    rest = events(system.web(relay_interval_s=0.2), rid, reader.frames[-1]["sequence_number"])
    expected = [told(letter, 2) for letter in said]
    deltas = [frame for frame in filter(is_delta, [*reader.frames, *rest]) if "output_text" in frame["type"]]
    assert [each for frame in deltas for each in frame["logprobs"]] == expected
    (done,) = [frame for frame in rest if frame["type"] == "response.output_text.done"]
    assert done["logprobs"] == expected
    whole = requests.get(f"{url}{PATH}/{rid}", timeout=30).json()
    assert whole == rest[-1]["response"]
    assert whole["top_logprobs"] == 2
    assert whole["output"][1]["content"][0]["logprobs"] == expected
    middle = deltas[-1]["sequence_number"] - 2
    (last,) = filter(is_delta, events(url, rid, middle))
    assert [each["token"] for each in last["logprobs"]] == list(last["delta"]) == list(said[-2:])
