"""Every pair of the golden corpus, through both converters."""

import pytest

from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from tests.pipelines.html.golden_pairs import Pair, pairs

PAIRS = pairs()
# Where a converter cannot meet a pair, and why.
DEVIATIONS: dict[tuple[Converter, str], str] = {}


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(PAIRS) >= 150
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_html_becomes_the_markdown_that_is_right(pair: Pair, converter: Converter) -> None:
    equal = to_markdown(pair.html, converter) == pair.markdown
    if (converter, pair.name) in DEVIATIONS:
        assert not equal, "the converter meets this pair now: delete the deviation"
    else:
        assert to_markdown(pair.html, converter) == pair.markdown
