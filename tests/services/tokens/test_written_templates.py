"""Plain Python writes what Jinja writes, for every text and order of turns; the rest it leaves to Jinja."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.errors import TemplateError
from services.tokens.rendering import render_template
from services.tokens.templates import TEMPLATES
from services.tokens.written_templates import written

texts = st.one_of(st.text(max_size=12), st.sampled_from(["{{ 1 }}", "{% raw %}", "\n", " a\n", "</s>", "<b>&amp;"]))
roles = st.sampled_from(["user", "assistant"])
tokens = st.fixed_dictionaries({}, optional={"bos_token": st.just("<s>"), "eos_token": st.sampled_from(["</s>", ""])})


@given(
    st.sampled_from(["vicuna-v1.1", "alpaca"]),
    st.lists(st.tuples(roles, texts), max_size=5),
    st.none() | texts,
    st.booleans(),
    tokens,
)
@settings(max_examples=150, deadline=None)
def test_the_text_is_that_of_jinja(name: str, said: list[Any], system: str | None, ask: bool, named: Any) -> None:
    head = [] if system is None else [("system", system)]
    turns = [{"role": role, "content": text} for role, text in [*head, *said]]
    if not turns:
        return
    jinja = TEMPLATES[name].jinja
    expected = render_template(jinja, turns, ask=ask, thinking=None, named_tokens=named)
    assert written(jinja, turns, ask=ask, named_tokens=named) == expected


@pytest.mark.parametrize("name", ["vicuna-v1.1", "alpaca"])
@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "a"}, {"role": "system", "content": "late"}],
        [{"role": "system", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}],
        [{"role": "tool", "content": "a"}],
    ],
)
def test_what_a_template_refuses_is_refused_in_its_words(name: str, turns: list[Any]) -> None:
    jinja = TEMPLATES[name].jinja
    with pytest.raises(TemplateError) as theirs:
        render_template(jinja, turns, ask=True, thinking=None, named_tokens={})
    with pytest.raises(TemplateError) as ours:
        written(jinja, turns, ask=True, named_tokens={})
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize(
    "turns",
    [
        [],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    ],
)
def test_turns_that_are_not_of_texts_are_left_to_jinja(turns: list[Any]) -> None:
    assert written(TEMPLATES["vicuna-v1.1"].jinja, turns, ask=True, named_tokens={}) is None


def test_another_template_is_left_to_jinja() -> None:
    assert written("{{ messages }}", [{"role": "user", "content": "a"}], ask=True, named_tokens={}) is None
