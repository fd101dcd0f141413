"""A wrong field is told in words for people, whatever its type and limits, and not in those of pydantic."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.errors import ConfigurationError
from services.field_errors import in_words
from services.jobs.recipe import parse_recipe
from services.jobs.steps import known_steps
from services.jobs.training import TrainingConfig, checked_training, read_training
from services.settings import Settings, load_settings

MODELS: list[type[BaseModel]] = [Settings, TrainingConfig, *known_steps().values()]
WRONG: tuple[Any, ...] = (
    *(object(), None, True, -1, 0, 10**30, 1.5, float("nan"), "", "x" * 1000, "nan", b"\xff"),
    *([], ["a"] * 5000, [object()], {}, {"a": object()}),
)


def refusals(kind: type[BaseModel]) -> list[str]:
    found = []
    for name in kind.model_fields:
        for value in WRONG:
            try:
                kind(**{name: value})
            except ValidationError as error:
                found += [in_words(problem) for problem in error.errors()]
            except ConfigurationError:  # ours already
                pass
    return found


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_no_field_is_refused_in_the_words_of_a_library(kind: type[BaseModel]) -> None:
    for words in refusals(kind):
        assert re.match(r"(must (be|have) \S|is \S|give \S)", words), words
        assert not re.search(r"[Ii]nput|instance|[Vv]alid |constraint|should", words), words


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate": 0}, "learning_rate=0: must be greater than 0"),
        ({"epochs": "many"}, "epochs='many': must be a number"),
        ({"seq_len": "1.5"}, "seq_len='1.5': must be a whole number"),
        ({"method": "best"}, "method='best': must be full, lora or qlora"),
    ],
)
def test_the_form_of_a_fine_tuning_says_what_a_field_must_be(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        checked_training({**read_training("smollm2-135m").model_dump(), **fields})
    assert words in str(refused.value)
    assert refused.value.field == next(iter(fields))


def test_a_recipe_and_a_setting_say_it_alike() -> None:
    with pytest.raises(ConfigurationError, match="min_turns is 1: must be at least 2"):
        parse_recipe("steps:\n  - roles:\n      min_turns: 1\n")
    with pytest.raises(ConfigurationError, match="CHATSERVER_SLOTS='many': must be a whole number"):
        load_settings({"CHATSERVER_SLOTS": "many"})
    with pytest.raises(ConfigurationError, match="CHATSERVER_LOG_FORMAT='xml': must be human or json"):
        load_settings({"CHATSERVER_LOG_FORMAT": "xml"})
