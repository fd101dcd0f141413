"""Answers that obey a grammar, by the packaged model on each engine, and takeovers in their middle."""

import json
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest

from services.engines import ENGINES
from services.grammar.notations import written
from services.wire.messages import ChatRequest, Message, SamplingDefaults, SamplingOptions
from tests.workers.text_decoders import packaged_source, packaged_tokenizer
from workers.engine import Engine, EngineEvent, EngineOptions
from workers.generation import Plan
from workers.planner import ChatPlanner
from workers.select_engine import adapter_of

TOKENIZER = packaged_tokenizer()
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "mood": {"enum": ["calm", "très gai", 'so "so"']},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{0,3}o[a-z]{0,3}$"}, "maxItems": 2},
    },
    "required": ["name", "age", "mood"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "schema": PERSON}


def is_person(text: str) -> bool:
    told = json.loads(text)
    named = set(told) - {"tags"} == {"name", "age", "mood"} and len(told["name"]) <= 12
    tags = told.get("tags", [])
    return (
        named
        and 18 <= told["age"] <= 99
        and told["mood"] in PERSON["properties"]["mood"]["enum"]  # type: ignore[index]
        and all("o" in tag for tag in tags)
        and len(tags) <= 2
    )


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.model) for n in ("openvino", "llamacpp", "transformers")]
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    for package in ENGINES[request.param].packages:
        pytest.importorskip(package, reason=f"{request.param} is not installed: {ENGINES[request.param].install}")
    made = adapter_of(request.param)(packaged_source(), EngineOptions(slots=2, context_tokens=512, repeatable=True))
    made.start()
    yield made
    made.stop()


def planned(engine: Engine, form: dict[str, Any] | None, max_new_tokens: int = 300, **sampling: Any) -> Plan:
    options = SamplingOptions(max_new_tokens=max_new_tokens, response_format=form, **{"temperature": 0.0, **sampling})
    question = (Message("user", "Tell me about Ann, who is 31 years old, as JSON."),)
    return ChatPlanner(TOKENIZER, engine, SamplingDefaults())(ChatRequest("r", "ann", "m", question, options))


def generated(engine: Engine, plan: Plan, done: list[int]) -> tuple[str, list[int], EngineEvent]:
    """The text and the tokens of an answer that goes on behind `done`, and its end."""
    plan.answer.replay(done)
    rest = plan.grammar.after(plan.answer.spoken) if plan.grammar else None
    sampling = replace(
        plan.sampling,
        max_new_tokens=plan.sampling.max_new_tokens - len(done),
        num_answered=len(done),
        grammar=written(rest, plan.notation) if rest else "",
    )
    events: SimpleQueue[EngineEvent] = SimpleQueue()
    engine.submit(f"r{id(plan)}-{len(done)}", [*plan.prompt_ids, *done], sampling, events.put)
    while True:
        event = events.get(timeout=120)
        for token_id in event.token_ids:
            plan.answer.push(token_id)
        if event.outcome:
            plan.answer.finish()
            return plan.answer.text, plan.answer.token_ids, event  # type: ignore[attr-defined]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5}, {"temperature": 1.0, "min_p": 0.9}])
def test_an_answer_is_an_instance_of_its_schema(engine: Engine, sampling: dict[str, Any]) -> None:
    text, _, end = generated(engine, planned(engine, FORM, **sampling), [])
    assert (end.outcome, end.reason) == ("finished", "stop"), (end, text)
    assert is_person(text), text


def test_a_takeover_anywhere_in_an_object_leaves_it_whole(engine: Engine) -> None:
    whole, ids, _ = generated(engine, planned(engine, FORM), [])
    for done in range(1, len(ids), 7):
        text, _, end = generated(engine, planned(engine, FORM), ids[:done])
        assert end.reason == "stop" and is_person(text), text
    text, again, end = generated(engine, planned(engine, FORM), ids)
    assert (text, again, end.reason) == (whole, ids, "stop"), "a whole object is not gone on with"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "choice", "choice": ["no", "perhaps"]}, {"no", "perhaps"}),
        ({"type": "regex", "regex": "(7|8)9"}, {"79", "89"}),
    ],
)
def test_an_answer_is_one_of_a_choice_or_matches_a_pattern(
    engine: Engine, form: dict[str, Any], expected: set[str]
) -> None:
    assert generated(engine, planned(engine, form), [])[0] in expected


def test_an_object_that_does_not_fit_ends_by_its_length(engine: Engine) -> None:
    text, _, end = generated(engine, planned(engine, {"type": "json_object"}, max_new_tokens=4), [])
    assert (end.outcome, end.reason) == ("finished", "length")
    assert text.startswith("{")


def test_a_neighbour_without_a_form_is_left_alone(engine: Engine) -> None:
    alone = generated(engine, planned(engine, None, 24), [])[0]
    events: SimpleQueue[EngineEvent] = SimpleQueue()
    formed = planned(engine, FORM)
    assert formed.grammar is not None
    sampling = replace(formed.sampling, grammar=written(formed.grammar, formed.notation))
    engine.submit("formed", formed.prompt_ids, sampling, events.put)
    assert generated(engine, planned(engine, None, 24), [])[0] == alone
    engine.cancel("formed")
