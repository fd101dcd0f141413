"""Turns made to end a converter: they are converted or refused by name, never more."""

import pytest

from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from services.errors import InvalidRequest


@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_turn_without_a_free_character_is_refused(converter: Converter) -> None:
    """Code is taken out and a private-use character stands for it; all 6,400 in a turn ended the whole job."""
    every = "".join(map(chr, range(0xE000, 0xF900)))
    with pytest.raises(InvalidRequest, match="private-use"):
        to_markdown(f"<p>{every}</p><pre><code>x</code></pre>", converter)


@pytest.mark.parametrize("span", ["99999999999", "-1", "x", ""])
@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_cell_that_spans_the_world_is_a_cell(converter: Converter, span: str) -> None:
    made = to_markdown(f'<table><tr><td colspan="{span}">x</td><td>y</td></tr></table>', converter)
    assert "x" in made and "y" in made and len(made) < 100_000


def test_a_number_that_is_none_is_read_or_refused() -> None:
    """`²` is a digit to Python's isdigit, and none to its int."""
    with pytest.raises(InvalidRequest, match="cannot read"):
        to_markdown('<table><tr><td colspan="²">x</td></tr></table>', "markdownify")
