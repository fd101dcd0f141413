"""Markdown → HTML by a CommonMark renderer → our converter: the same text, character by character."""

import pytest
from markdown_it import MarkdownIt

from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from tests.pipelines.html.markdown_documents import document

NUM_DOCUMENTS = 500


@pytest.mark.parametrize("converter", CONVERTERS)
def test_99_percent_of_generated_documents_come_back_exactly(converter: Converter) -> None:
    renderer = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    documents = [document(seed) for seed in range(NUM_DOCUMENTS)]
    different = [seed for seed, text in enumerate(documents) if to_markdown(renderer.render(text), converter) != text]
    assert len(different) <= NUM_DOCUMENTS // 100, f"seeds that do not come back: {different}"


def test_the_documents_hold_every_construct() -> None:
    text = "\n".join(document(seed) for seed in range(50))
    for construct in (
        "\n- ",
        "\n1. ",
        "\n9. ",
        "\n  - ",
        "\n> ",
        "\n> > ",
        "```python",
        "`````",
        "| --- |",
        "\n---",
        "](",
        "~~",
        "  \n",
    ):
        assert construct in text
