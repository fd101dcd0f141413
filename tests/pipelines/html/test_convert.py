"""What holds for every input: code is exact, nothing raises, nothing active is left, no mark stays behind."""

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.html.convert import CONVERTERS, Converter, to_markdown
from pipelines.html.prepass import prepare
from services.errors import InvalidRequest

converters = st.sampled_from(sorted(CONVERTERS))
# What a parser of HTML must change (NUL, carriage returns) cannot come back.
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"))
code_texts = st.one_of(texts, st.text("`~ \t\n<>&|#-*_\\ab1.", max_size=60))
TAGS = "p div span pre code b em a ul ol li table tr td th h2 blockquote br hr img button script svg math input sup"
tags = st.sampled_from(TAGS.split())
fragments = st.one_of(
    texts,
    st.builds("<{}>".format, tags),
    st.builds("</{}>".format, tags),
    st.builds('<{} class="{}" href="{}" onclick={}>'.format, tags, texts, texts, texts),
    st.sampled_from(
        [
            "2 / 2",
            "Copy code",
            "```",
            "&nbsp;",
            "&#xE000;",
            "<!--",
            "<![CDATA[",
            "$x$",
            "\ue000",
            "\ue0010\ue002",
            "\0",
            "\r\n",
            "\ud83d",
        ]
    ),
)
markup = st.lists(fragments, max_size=20).map("".join)


@given(code_texts, converters)
@settings(max_examples=300, deadline=None)
def test_code_comes_back_exactly(code: str, converter: Converter) -> None:
    markdown = to_markdown(f"<p>a</p><pre><code>{html.escape(code)}</code></pre><p>b</p>", converter)
    match = re.fullmatch(r"a\n\n(`{3,})\n(.*)\n\1\n\nb", markdown, re.DOTALL)
    assert match is not None and match[2] == code.removesuffix("\n")
    assert match[1] not in code


@given(code_texts, converters)
@settings(max_examples=100, deadline=None)
def test_code_in_an_item_comes_back_behind_its_indentation(code: str, converter: Converter) -> None:
    markdown = to_markdown(f"<ul><li><p>a</p><pre><code>{html.escape(code)}</code></pre></li></ul>", converter)
    lines = markdown.split("\n")[3:-1]
    assert "\n".join(line.removeprefix("  ") for line in lines) == code.removesuffix("\n")


@given(markup, converters)
@settings(max_examples=500, deadline=None)
def test_no_markup_raises_and_every_character_can_be_written(text: str, converter: Converter) -> None:
    markdown = to_markdown(text, converter)
    markdown.encode()
    assert not markdown.startswith("\n") and not markdown.endswith("\n")


@given(markup, converters)
@settings(max_examples=200, deadline=None)
def test_no_mark_of_the_pre_pass_stays(text: str, converter: Converter) -> None:
    clean = re.sub("[\ue000-\uf8ff]|&", "", text)
    assert re.search("[\ue000-\uf8ff]", to_markdown(clean, converter)) is None


@pytest.mark.parametrize("converter", CONVERTERS)
def test_lone_surrogates_become_the_replacement_character(converter: Converter) -> None:
    assert to_markdown("<p>a\ud83db \ud83d\ude00</p>", converter) == "a\ufffdb \U0001f600"


@pytest.mark.parametrize("converter", CONVERTERS)
def test_deep_nesting_is_no_error(converter: Converter) -> None:
    assert "deep" in to_markdown("<div>" * 300 + "deep" + "</div>" * 300, converter)


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("tags", ["<div>", "<blockquote>", "<span>", "<b>", "<ul><li>", "<div></p>"])
def test_deeper_nesting_than_converters_keep_is_refused(tags: str, converter: Converter) -> None:
    with pytest.raises(InvalidRequest, match="nests elements more than 320 deep"):
        to_markdown(tags * 3000 + "deep text", converter)


ALIKE = {
    "<ul><li>one</li>\n<ul><li>a</li><ol><li>b</li></ol></ul>\n<li>two</li></ul>": "- one\n  - a\n    1. b\n- two",
    "<ol><li><p>one</p></li><ul><li>a</li></ul><li><p>two</p></li></ol>": "1. one\n\n   - a\n\n2. two",
    '<p>x</p><ol start="-1"><li>a</li><li>b</li></ol>': "x\n\n1. a\n2. b",
    '<ol start="9999999999"><li>a</li></ol>': "1. a",
    '<ol start="0"><li>a</li></ol>': "0. a",
    "<table><tr><th>a</th></tr><tr><td>x<ul><li>y<ol><li>z</li></ol></li></ul></td></tr></table>": (
        "| a |\n| --- |\n| x y z |"
    ),
    "<h2>a<ul><li>b</li></ul></h2>": "## a b",
    "<pre>python<code>x = 1</code></pre>": "```python\nx = 1\n```",
    "<pre><span>C++</span>\n<code>int x;</code></pre>": "```c++\nint x;\n```",
    '<pre>bash<code class="language-bash">$ ls</code></pre>': "```bash\n$ ls\n```",
    "<pre>python <code>script.py</code></pre>": "```\npython script.py\n```",
    "<pre>foo<code>(x)</code></pre>": "```\nfoo(x)\n```",
}


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("markup", ALIKE)
def test_both_converters_make_the_same_of(markup: str, converter: Converter) -> None:
    """Lists in lists lost their level, a negative number became no markdown, and a language was glued to its code."""
    assert to_markdown(markup, converter) == ALIKE[markup]


@pytest.mark.parametrize("converter", CONVERTERS)
def test_many_elements_side_by_side_are_no_nesting(converter: Converter) -> None:
    assert to_markdown("<p>a<b>b</b></p>" * 400, converter) == "\n\n".join(["a**b**"] * 400)


def test_an_unknown_converter_is_named() -> None:
    with pytest.raises(InvalidRequest, match="no converter 'pandoc'"):
        to_markdown("<p>a</p>", "pandoc")  # type: ignore[arg-type]


def test_marks_are_chosen_around_the_characters_of_the_turn() -> None:
    taken = "".join(map(chr, range(0xE000, 0xE010)))
    assert not set(prepare(f"<p>{taken}</p><pre>x</pre>").marks) & set(taken)
    assert not set(prepare("<p>&#xE000;&#57345</p>").marks) & {"\ue000", "\ue001"}
