"""Takes a picture of a page that is running, for the documents.

    python -m bench.screenshot http://127.0.0.1:8000/jobs/JID docs/training.png --theme dark --width 390
    python -m bench.screenshot http://127.0.0.1:8000 docs/phone.png --width 390 --height 844 --ask "What is …?"

It needs Debian's Chromium and Playwright, as the browser tests do.
"""

import argparse
import re
import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, expect, sync_playwright

ANSWER_MS = 120_000
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--width", type=int, default=1280, help="of the window; below 800 as on a phone")
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--whole", action="store_true", help="the whole page, not only what the window shows")
    parser.add_argument("--ask", default="", metavar="QUESTION", help="on the chat page, first; with its whole answer")
    given = parser.parse_args()
    take(given.url, given.out, given.theme, (given.width, given.height), whole=given.whole, question=given.ask)
    print(f"wrote {given.out}")


def take(
    url: str, out: Path, theme: Literal["light", "dark"], size: tuple[int, int], *, whole: bool, question: str = ""
) -> None:
    """Waits until the page has asked for everything once; a page that asks again and again is never idle."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,
            device_scale_factor=2,
            is_mobile=size[0] < 800,
        )
        with page.expect_response(lambda answer: "/api/" in answer.url):
            page.goto(url)
        if question:
            ask(page, question)
        else:
            page.locator("#content").filter(has_text=re.compile(r"\S")).wait_for()  # its policy refuses texts of code
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.screenshot(path=out, full_page=whole)
        browser.close()


def ask(page: Page, question: str) -> None:
    """Waits for the model before, and for the end of its answer after."""
    expect(page.get_by_test_id("model")).not_to_have_value("", timeout=ANSWER_MS)
    page.get_by_test_id("input").fill(question)
    page.get_by_test_id("send").click()
    expect(page.locator("[data-testid=message][data-role=assistant][data-state=finished]")).to_be_visible(
        timeout=ANSWER_MS
    )


if __name__ == "__main__":
    main()
