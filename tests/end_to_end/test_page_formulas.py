"""LaTeX in answers, in a real Chromium: drawn with our own fonts, harmless, and copied as it was written."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.end_to_end.chat_page import answer, ask, await_end, await_text

pytestmark = pytest.mark.browser

TEXT = r"Let \(a_1 * b\) cost $5 and \(c * d\) cost $6." + "\n\n\\[\nx\n=\n\\frac{a}{b}\n\\]\n\nand $$y^2$$ ends."


def test_formulas_are_drawn_with_our_fonts_and_money_stays_money(browser_page: Page) -> None:
    requests: list[str] = []
    browser_page.on("request", lambda request: requests.append(request.url))
    ask(browser_page, TEXT)
    await_end(browser_page)
    text = answer(browser_page).locator("> .prose")
    expect(text.locator(".formula .katex")).to_have_count(4)
    expect(text.locator(".formula.display .mfrac .frac-line")).to_be_visible()
    expect(text).to_contain_text("cost $5 and")
    expect(text).to_contain_text("cost $6.")
    expect(text.locator("em, h1, h2")).to_have_count(0)
    fraction = text.locator(".display .vlist > span").first
    assert fraction.evaluate("e => e.style.top !== ''"), "the policy let KaTeX place its parts"
    loaded = browser_page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].filter((f) => f.status === 'loaded').map((f) => f.family))"
    )
    assert "KaTeX_Math" in loaded
    origin = re.match(r"https?://[^/]+", browser_page.url)
    assert origin and all(url.startswith((origin[0], "data:")) for url in requests)


def test_a_formula_that_cannot_be_read_shows_its_source(browser_page: Page) -> None:
    broken = r"\(\frac{1}{\) and \(\undefinedcommand x\) and \(x + 1\) but \(never closed"
    ask(browser_page, broken)
    await_end(browser_page)
    text = answer(browser_page).locator("> .prose")
    expect(text.locator(".katex")).to_have_count(1)
    expect(text).to_contain_text(r"\(\frac{1}{\) and \(\undefinedcommand x\) and")
    expect(text).to_contain_text(r"but \(never closed")


def test_a_hostile_formula_makes_no_link_loads_nothing_and_covers_nothing(browser_page: Page) -> None:
    requests: list[str] = []
    browser_page.on("request", lambda request: requests.append(request.url))
    ask(
        browser_page,
        r"\(\href{javascript:window.hacked=1}{x}\) \(\includegraphics{https://evil.invalid/a.png}\) "
        r"\(\htmlId{composer}{x}\) \(\htmlStyle{position:fixed}{x}\) \(<img src=x onerror=window.hacked=1>\) "
        r"\(\rule{9999em}{9999em}\) \(\def\a{\a\a}\a\) \(\url{javascript:window.hacked=1}\)",
    )
    await_end(browser_page)
    text = answer(browser_page).locator("> .prose")
    expect(text.locator(".formula").first).to_be_attached()
    expect(text.locator("a, img, script, #composer")).to_have_count(0)
    assert browser_page.evaluate("window.hacked") is None
    assert [url for url in requests if "evil.invalid" in url] == []
    fixed = "e => [...e.querySelectorAll('*')].filter((x) => getComputedStyle(x).position === 'fixed').length"
    assert text.evaluate(fixed) == 0
    assert text.evaluate("e => e.scrollHeight") < 4_000, "maxSize holds"


def test_a_drawn_formula_stays_the_same_element_while_the_answer_grows(browser_page: Page) -> None:
    ask(browser_page, r"First \(a + b\) then " + "word " * 60 + r"and \(c\).")
    formula = answer(browser_page).locator(".formula .katex").first
    expect(formula).to_be_attached()
    formula.evaluate("e => { e.seen = true }")
    expect(answer(browser_page)).to_contain_text("word " * 30)
    assert formula.evaluate("e => e.seen") is True
    await_end(browser_page)
    assert formula.evaluate("e => e.seen") is True


def test_copying_gives_the_source(browser_page: Page) -> None:
    ask(browser_page, TEXT)
    await_text(browser_page)
    await_end(browser_page)
    expect(answer(browser_page).locator(".formula .katex")).to_have_count(4)
    answer(browser_page).locator(".foot").get_by_test_id("copy").click()
    assert browser_page.evaluate("navigator.clipboard.readText()") == TEXT
    answer(browser_page).locator("> .prose").evaluate("e => getSelection().selectAllChildren(e)")
    browser_page.keyboard.press("Control+c")
    assert browser_page.evaluate("navigator.clipboard.readText()") == TEXT
