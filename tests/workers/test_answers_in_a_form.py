"""Answers that obey a grammar, on each engine, and takeovers in their middle.

transformers has a model of two random layers over the packaged vocabulary: the packaged one takes minutes on a CPU.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest
from tokenizers import Tokenizer

from services.engines import ENGINES
from services.grammar.notations import written
from services.models.catalogue import ModelSource
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import ChatRequest, Message, SamplingDefaults, SamplingOptions
from tests.pipelines.training.runs import write_base
from tests.services.tokens.chat_tokenizers import fast
from tests.workers.test_tool_calls import TEMPLATES
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
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    for package in ENGINES[request.param].packages:
        pytest.importorskip(package, reason=f"{request.param} is not installed: {ENGINES[request.param].install}")
    source = random_source(tmp_path_factory) if request.param == "transformers" else packaged_source()
    made = adapter_of(request.param)(source, EngineOptions(slots=2, context_tokens=512, repeatable=True))
    made.start()
    yield made
    made.stop()


def random_source(folders: pytest.TempPathFactory) -> ModelSource:
    folder = folders.mktemp("random")
    write_base(folder, TOKENIZER)
    return ModelSource("random", "folder", folder)


def planned(engine: Engine, form: dict[str, Any] | None, max_new_tokens: int = 300, **sampling: Any) -> Plan:
    options = SamplingOptions(max_new_tokens=max_new_tokens, response_format=form, **{"temperature": 0.0, **sampling})
    question = (Message("user", "Tell me about Ann, who is 31 years old, as JSON."),)
    return ChatPlanner(TOKENIZER, engine, SamplingDefaults())(ChatRequest("r", "ann", "m", question, options))


def whole_vocabulary() -> Tokenizer:
    """A copy of the packaged model's, whose tokens the engines write."""
    return Tokenizer.from_str(TOKENIZER.decoder().to_str())


def called(
    engine: Engine, choice: str, manner: str = "hermes", schema: dict[str, Any] = PERSON, **sampling: Any
) -> Plan:
    """A request that must call a tool, of a model that calls tools in this manner."""
    own = ChatTokenizer(
        fast(
            whole_vocabulary(),
            own=TEMPLATES[manner],
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            unk_token=None,
        )
    )
    options = SamplingOptions(**{"max_new_tokens": 300, "temperature": 0.0, **sampling})
    question = (Message("user", "Tell me about Ann, who is 31 years old."),)
    tools = tuple(
        {"type": "function", "function": {"name": name, "description": "", "parameters": schema}}
        for name in ("describe", "remember")
    )
    one = {"parallel_tool_calls": choice == "required"}
    request = ChatRequest("r", "ann", "m", question, options, tools=tools, tool_choice=choice, **one)
    return ChatPlanner(own, engine, SamplingDefaults())(replace(request, strict_tools=("describe", "remember")))


def has_called(plan: Plan, end: EngineEvent) -> bool:
    """Whether the answer is calls of the tools with their arguments. The last may be cut by the length."""
    answer: Any = plan.answer
    places = [at for at, _ in answer.parts]
    parts = [(kind, answer.text[at:to]) for (at, kind), to in zip(answer.parts, [*places[1:], None], strict=True)]
    names = [text for kind, text in parts if kind == "call"]
    arguments = [text for kind, text in parts if kind == "arguments"]
    whole = arguments[:-1] if end.reason == "length" and len(arguments) > 1 else arguments
    return bool(names) and set(names) <= {"describe", "remember"} and all(map(is_person, whole))


def generated(engine: Engine, plan: Plan, done: list[int]) -> tuple[str, list[int], EngineEvent]:
    """The text and the tokens of an answer that goes on behind `done`, and its end."""
    plan.answer.replay(done)
    obeying = plan.answer.obeying  # type: ignore[attr-defined]
    rest = plan.grammar.after(obeying) if plan.grammar and obeying is not None else None
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
        if event.outcome or plan.answer.is_over:
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


def test_required_calls_are_of_tools_that_were_offered_with_arguments_of_their_schemas(engine: Engine) -> None:
    plan = called(engine, "required", temperature=1.5)
    text, _, end = generated(engine, plan, [])
    assert has_called(plan, end), text


def test_a_required_call_in_tags_has_arguments_of_its_schema(engine: Engine) -> None:
    age, mood = {"type": "integer", "minimum": 18, "maximum": 99}, {"enum": ["calm", "très gai"]}
    about = {"age": age, "mood": mood, "notes": {"type": "string"}}
    schema = {"type": "object", "properties": about, "required": list(about)}
    plan = called(engine, ":describe", "qwen-coder", schema, temperature=1.5, max_new_tokens=60)
    text = generated(engine, plan, [])[0]
    assert re.match(r'describe\{"age": (1[89]|[2-9][0-9]), "mood": "(calm|très gai)", "notes": "', text), text


def test_a_takeover_in_the_middle_of_a_call_leaves_it_whole(engine: Engine) -> None:
    ids = generated(engine, called(engine, ":describe"), [])[1]
    for done in range(3, len(ids), len(ids) // 3):
        plan = called(engine, ":describe")
        text, _, end = generated(engine, plan, ids[:done])
        assert has_called(plan, end), text


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


def test_an_object_without_a_schema_is_one_as_far_as_it_goes(engine: Engine) -> None:
    text, _, end = generated(engine, planned(engine, {"type": "json_object"}, max_new_tokens=4), [])
    assert text.startswith("{") and end.outcome == "finished"
    assert end.reason == "length" or isinstance(json.loads(text), dict)


def test_an_object_that_does_not_fit_ends_by_its_length(engine: Engine) -> None:
    text, _, end = generated(engine, planned(engine, FORM, max_new_tokens=4), [])
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
