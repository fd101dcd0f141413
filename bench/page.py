"""How long the chat page's scripts hold up a frame: `python -m bench.page`, while an answer of 20,000 tokens comes.

Chromium's own trace says how much processor time scripts took on the page's thread: a busy machine does not change it.
What ran between two frames that the page drew counts as the later one's. The answer is markdown with
code and tables, four characters a token.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect, sync_playwright

from tests.end_to_end.chat_page import answer
from tests.end_to_end.system import running_system

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
SCRIPTS = {"FunctionCall", "EvaluateScript", "FireAnimationFrame", "TimerFire", "RunMicrotasks", "V8.GC_SCAVENGER"}
CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "disabled-by-default-v8.gc"]
CHARACTERS_PER_TOKEN = 4
TYPE = "(box, text) => { box.value = text; box.dispatchEvent(new Event('input')) }"  # Chromium types lines slowly
PARAGRAPH = (
    "## The harbour\n\nThe *harbour master* counts the boats that leave, and `count(boats)` those that come back.\n\n"
    "```python\ndef count(boats: list[str]) -> int:\n    return len(boats)  # each of them\n```\n\n"
    "| boat | master |\n|---|---|\n| Heron | Ada |\n| Stork | Grace |\n\n- one\n- two\n\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--rate", type=int, default=200, help="tokens a second")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times_ms = sorted(measure(Path(folder), given.tokens, given.rate))
    p95, longest = times_ms[int(0.95 * len(times_ms))], times_ms[-1]
    median = statistics.median(times_ms)
    print(f"{given.tokens:,} tokens at {given.rate}/s: {len(times_ms):,} frames with scripts, ", end="")
    print(f"median {median:.1f} ms, p95 {p95:.1f} ms, longest {longest:.1f} ms")


def measure(folder: Path, tokens: int, rate: int) -> list[float]:
    """Milliseconds of scripting of each frame."""
    text = (PARAGRAPH * (tokens * CHARACTERS_PER_TOKEN // len(PARAGRAPH) + 1))[: tokens * CHARACTERS_PER_TOKEN]
    with running_system(folder) as system, sync_playwright() as playwright:
        system.echo_worker("--rate", str(rate), "--chunk", str(CHARACTERS_PER_TOKEN))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        preferences = json.dumps({"sampling": {"max_new_tokens": 131_072}})
        page.add_init_script(f"localStorage.setItem('chatserver.preferences', {json.dumps(preferences)})")
        page.goto(system.web())
        expect(page.get_by_test_id("model")).to_have_value("echo", timeout=60_000)
        trace = folder / "trace.json"
        page.get_by_test_id("input").evaluate(TYPE, text)
        browser.start_tracing(page=page, path=trace, categories=CATEGORIES)
        page.get_by_test_id("send").click()
        expect(answer(page)).to_have_attribute("data-state", "finished", timeout=600_000)
        browser.stop_tracing()
        assert_whole(page, text)
        browser.close()
    return frame_times_ms(json.loads(trace.read_text("utf-8"))["traceEvents"])


def assert_whole(page: Page, text: str) -> None:
    shown = page.evaluate("document.querySelector('[data-role=assistant] > .prose').innerText.length")
    assert shown > len(text) / 2, f"the page shows {shown:,} characters of {len(text):,}"


def frame_times_ms(events: list[dict[str, Any]]) -> list[float]:
    """Of each frame that the page drew, how long scripts ran in it and since the one before."""
    drawn = [event for event in events if event["name"] == "FireAnimationFrame" and event.get("ph") == "X"]
    thread = statistics.mode((event["pid"], event["tid"]) for event in drawn)
    ours = [event for event in events if (event["pid"], event["tid"]) == thread]
    ends = sorted(event["ts"] + event["dur"] for event in drawn)
    times, frame = [0.0] * (len(ends) + 1), 0
    for start, duration in outermost(ours):
        while frame < len(ends) and start >= ends[frame]:
            frame += 1
        times[frame] += duration / 1000
    return [time for time in times if time > 0]


def outermost(events: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    """Start and processor time, in microseconds, of scripts that no other script called."""
    end = 0.0
    scripts = (event for event in events if event["name"] in SCRIPTS and event.get("ph") == "X")
    for event in sorted(scripts, key=lambda event: event["ts"]):
        if event["ts"] >= end:
            end = event["ts"] + event["dur"]
            yield event["ts"], event.get("tdur", event["dur"])


if __name__ == "__main__":
    main()
