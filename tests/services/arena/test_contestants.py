"""Who meets in a battle."""

import random

import pytest

from services.arena.contestants import Contestant, draw
from services.errors import InvalidRequest, Unavailable

ANY = Contestant()


def drawn(asked: tuple[Contestant, Contestant], served: list[str]) -> set[tuple[str, str]]:
    return {
        tuple(each.name for each in draw(asked, served, random.Random(seed)))  # type: ignore[misc]
        for seed in range(200)
    }


def test_two_different_models_are_drawn_on_either_side() -> None:
    assert drawn((ANY, ANY), ["a", "b", "c"]) == {(x, y) for x in "abc" for y in "abc" if x != y}


def test_a_chosen_model_stays_and_its_side_is_chances() -> None:
    assert drawn((Contestant("a"), ANY), ["a", "b"]) == {("a", "b"), ("b", "a")}
    assert drawn((ANY, Contestant("a")), ["a", "b"]) == {("a", "b"), ("b", "a")}


def test_one_model_meets_itself_with_two_settings() -> None:
    assert drawn((ANY, ANY), ["a"]) == {
        ("a (temperature 0.2)", "a (temperature 1.0)"),
        ("a (temperature 1.0)", "a (temperature 0.2)"),
    }
    asked = (Contestant("a", {"thinking": True}), Contestant("a", {"thinking": False}))
    assert len(drawn(asked, ["a", "b"])) == 2


def test_twice_the_same_settings_and_no_model_at_all_are_refused() -> None:
    same = Contestant("a", {"sampling": {"temperature": 0.5}})
    with pytest.raises(InvalidRequest, match="two models or two settings"):
        draw((same, same), ["a"], random.Random())
    with pytest.raises(Unavailable, match="no worker serves a model"):
        draw((ANY, ANY), [], random.Random())


def test_chance_and_length_make_no_other_contestant() -> None:
    settings = ({"seed": 1}, {"seed": 2, "max_new_tokens": 9}, {})
    alike = [Contestant("a", {"sampling": {"temperature": 0.5, **each}}) for each in settings]
    assert {each.name for each in alike} == {"a (temperature 0.5)"}
    with pytest.raises(InvalidRequest, match="not only another seed or max_new_tokens"):
        draw((alike[0], alike[1]), ["a"], random.Random())
    assert draw((alike[0], Contestant("b")), ["a", "b"], random.Random(0))


def test_a_name_shows_none_of_a_users_own_words_and_rounds_numbers() -> None:
    own = {"stop": ["my secret project"], "response_format": {"type": "json_schema"}, "logit_bias": {"5": 1.0}}
    sampling = {**own, "temperature": 0.7041, "seed": None, "top_k": 40}
    assert (
        Contestant("a", {"sampling": sampling, "thinking": True}).name == "a (temperature 0.7, thinking True, top_k 40)"
    )
    nearly = tuple(Contestant("a", {"sampling": {"temperature": number}}) for number in (0.7041, 0.7042))
    with pytest.raises(InvalidRequest, match="two models or two settings"):
        draw((nearly[0], nearly[1]), ["a"], random.Random())
