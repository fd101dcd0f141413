"""What is written without a parser has the characters that the pre-pass and a converter give it."""

import json

import pytest

from pipelines.html.convert import CONVERTERS, Converter, parsed_markdown
from pipelines.html.usual import usual_markdown
from services.places import ROOT
from tests.pipelines.html.golden_pairs import pairs
from tests.pipelines.html.usual_answers import answer

NUM_ANSWERS = 3000  # one in fourteen is usual


@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_usual_answer_has_the_markdown_of_each_converter(converter: Converter) -> None:
    written = {html: text for html in map(answer, range(NUM_ANSWERS)) if (text := usual_markdown(html)) is not None}
    assert len(written) > NUM_ANSWERS // 20
    assert {html: parsed_markdown(html, converter) for html in written} == written


@pytest.mark.parametrize("converter", CONVERTERS)
def test_most_answers_of_chatgpts_page_are_usual_and_have_the_markdown_of_each_converter(converter: Converter) -> None:
    records = json.loads((ROOT / "pipelines/samples/sharegpt_html.json").read_text("utf-8"))
    turns = [turn["value"] for record in records for turn in record["conversations"]]
    html = {turn for turn in turns if turn.startswith("<div")}
    written = {turn: text for turn in html if (text := usual_markdown(turn)) is not None}
    assert len(written) > 0.7 * len(html)
    assert {turn: parsed_markdown(turn, converter) for turn in written} == written


def test_the_golden_pairs_that_are_usual_are_right() -> None:
    written = {pair.name: usual_markdown(pair.html) for pair in pairs()}
    usual = {name: markdown for name, markdown in written.items() if markdown is not None}
    assert len(usual) > 20
    assert usual == {pair.name: pair.markdown for pair in pairs() if pair.name in usual}


BROKEN = (
    "<p>|</p>|<p>a</p>b|a<p>b</p>|<p>a<p>b</p>|<ul></ul>|<li>a</li>|<p><strong>|<pre>|<p>a</em></p>|<table></table>"
)


@pytest.mark.parametrize("html", ["", *BROKEN.split("|")])
def test_broken_html_is_not_usual(html: str) -> None:
    assert usual_markdown(html) is None


COUNTERS = ("<strong>2</strong> / 2", "2 / <em>2</em>", "<code>1</code> / <em>2</em>", "1 / 2")


@pytest.mark.parametrize("text", COUNTERS)
def test_a_first_paragraph_that_may_be_the_counter_of_the_page_is_not_usual(text: str) -> None:
    assert usual_markdown(f"<p>{text}</p><p>Text</p>") is None
    assert usual_markdown(f"<p>{text} x</p><p>Text</p>") is not None


def test_a_link_with_other_letters_than_those_of_ascii_is_not_usual() -> None:
    assert usual_markdown('<p><a href="https://a.example/straße">a</a></p>') is None


def test_lists_within_lists_without_end_are_not_usual() -> None:
    assert usual_markdown("<ul><li>a" * 5000) is None
    assert usual_markdown("<ul><li>a" * 50 + "</li></ul>" * 50) is None


def test_a_link_that_carries_code_is_not_usual() -> None:
    assert usual_markdown('<p><a href="javascript:x">a</a></p>') is None
    assert usual_markdown('<p><a href="https://a.example/" onclick="x">a</a></p>') is None
