"""Which turns become markdown; how, `tests/pipelines/html` says."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.formats.write import SUFFIXES, Writer
from pipelines.records.conversation import Conversation, as_record
from pipelines.steps.html_to_markdown import build
from services.jobs.steps.html_to_markdown import Converter, HtmlToMarkdownOptions
from tests.pipelines.formats.inputs import Reading
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


def converted(talked: Conversation, **options: str) -> Ran:
    return Ran(build(HtmlToMarkdownOptions.model_validate(options)), talked)


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
    talked = talk("s:" + text, "u:" + text, "a:I see.")
    assert converted(talked).kept[0] is talked
    assert converted(talked, when="always").texts[:2] == [text, text]


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
    talked = talk("u:How?", "a:" + HTML, "u:And?", "a:" + html)
    result = converted(talked, converter=converter, when="always")
    assert result.kept == []
    assert result.counts.rejected == {"not_convertible": 1}
    assert result.lines[0]["record"] == as_record(talked)
    assert result.lines[0]["detail"]


def test_an_empty_answer_is_empty() -> None:
    assert converted(talk("u:How?", "a:<p><br></p>")).texts == ["How?", ""]


SHOWN = st.sampled_from(
    ["&lt;p&gt;Hello&lt;/p&gt;", "<b>bold</b>", "a &amp; b", "&lt;ul&gt;&lt;li&gt;one", "`&lt;br&gt;`"]
)
BLOCKS = st.tuples(st.sampled_from(["p", "pre", "h2", "blockquote"]), SHOWN).map(lambda b: f"<{b[0]}>{b[1]}</{b[0]}>")
ANSWERS = st.lists(BLOCKS | SHOWN, min_size=1, max_size=4).map("".join)


@pytest.mark.parametrize("kind", SUFFIXES)
@pytest.mark.parametrize("when", ["auto", "always"])
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS)
def test_a_second_run_over_any_output_changes_nothing(tmp_path: Path, kind: str, when: str, answer: str) -> None:
    """An answer that showed how to write `<p>Hello</p>` lost the tags when its output was cleaned again."""
    once = converted(talk("u:How?", "a:" + answer), when=when).kept
    with Writer(tmp_path / "out", kind) as writer:
        for one in once:
            writer.write(one)
    read = Reading(tmp_path / "out").conversations
    again = [kept for one in read for kept in converted(one, when=when).kept]
    assert again == read == once


def test_html_that_stays_is_counted_unless_it_is_code() -> None:
    """Pages of other programs stayed HTML, and no number said so."""
    stays = "Hello!<br><br>1. <b>one</b> &amp; only", '<div class="standard-markdown"><p class="x">Two:</p></div>'
    result = converted(
        talk("u:<br>", "a:" + stays[0], "u:How?", "a:" + stays[1], "u:?", "a:Use `<br>`.\n```\n<br>\n```")
    )
    assert result.counts.changed == {"html_left": 2}
    assert result.texts[1::2][:2] == list(stays)
