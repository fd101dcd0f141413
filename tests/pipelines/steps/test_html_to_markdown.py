"""Which turns become markdown; how, `tests/pipelines/html` says."""

import pytest

from pipelines.records.conversation import Conversation, as_record
from pipelines.steps.html_to_markdown import build
from services.jobs.steps.html_to_markdown import Converter, HtmlToMarkdownOptions
from tests.pipelines.steps.local import Ran, talk

HTML = "<p>Use <strong>this</strong>:</p><ul><li>one</li><li>two</li></ul>"
TYPED = [
    "std::vector<int> v; List<String> x",
    "if a<b and c>d then",
    "line1\nline2\n\n    indented",
    "2 / 3 cups of flour is needed",
    "snake_case and 2*3*4",
    HTML,
]


def converted(given: Conversation, **options: str) -> Ran:
    return Ran(build(HtmlToMarkdownOptions.model_validate(options)), given)


@pytest.mark.parametrize("converter", ["html-to-markdown", "markdownify"])
def test_an_answer_that_is_html_becomes_markdown_and_is_counted(converter: Converter) -> None:
    result = converted(talk("u:How?", "a:" + HTML, "u:And?", "a:Just *text*, a<b."), converter=converter)
    assert "**this**" in result.texts[1]
    assert "<" not in result.texts[1]
    assert result.texts[3] == "Just *text*, a<b."
    assert result.counts.changed == {"converted": 1}


@pytest.mark.parametrize("text", TYPED)
def test_what_people_typed_is_text(text: str) -> None:
    """FastChat: `vector<int>` loses its type, `a<b and c>d` becomes bold, indentation collapses."""
    given = talk("s:" + text, "u:" + text, "a:I see.")
    assert converted(given).kept[0] is given
    assert converted(given, when="always").texts[:2] == [text, text]


@pytest.mark.parametrize("converter", ["html-to-markdown", "markdownify"])
@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 3000 + "deep text" + "</div>" * 3000,
        "<p>x</p>" + "<pre>" * 20_000,
        "<ul><li>" * 600 + "deep text" + "</li></ul>" * 600,
        '<div class="box"></div>\n<script src="app.js"></script>',
        "<div><button>Regenerate</button></div>",
    ],
    ids=["div", "pre", "ul", "script", "button"],
)
def test_a_turn_of_which_text_would_be_lost_rejects_its_record_as_it_came(html: str, converter: Converter) -> None:
    given = talk("u:How?", "a:" + HTML, "u:And?", "a:" + html)
    result = converted(given, converter=converter, when="always")
    assert result.kept == []
    assert result.counts.rejected == {"not_convertible": 1}
    assert result.lines[0]["record"] == as_record(given)
    assert result.lines[0]["detail"]


def test_an_empty_answer_is_empty() -> None:
    assert converted(talk("u:How?", "a:<p><br></p>")).texts == ["How?", ""]
