"""What counts as prose in markdown."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.prose import GAP, edit_prose, other_spans, prose


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text", "plain text"),
        ("a\n```python\nx = 1\n\n\ny\n```\nb", f"a\n{GAP}\nb"),
        ("~~~\ncode ``` here\n~~~\nb", f"{GAP}\nb"),
        ("````md\n```\ninner\n```\n````\nb", f"{GAP}\nb"),
        ("- item\n\n  ```\n  x\n  ```\n- next", f"- item\n\n  {GAP}\n- next"),
        ("1. ```sh\n   ls\n   ```\nb", f"1. {GAP}\nb"),
        ("> ```\n> x\n> ```\nb", f"> {GAP}\nb"),
        ("never closed:\n```\nx = 1", f"never closed:\n{GAP}"),
        ("no ```fence``` here", f"no {GAP} here"),
        ("use `x` and ``a ` b``.", f"use {GAP} and {GAP}."),
        ("a stray ` backtick\n\nand another ` one", "a stray ` backtick\n\nand another ` one"),
        (r"an escaped \` backtick ` here", r"an escaped \` backtick ` here"),
        ("see https://example.com/a_(b)?q=1. Next", f"see {GAP}. Next"),
        ("see https://example.com/a?q=1. Next", f"see {GAP}. Next"),
        ("见https://example.com/a，然后", f"见{GAP}，然后"),
        ("go to www.example.com now, ewww.no", f"go to {GAP} now, ewww.no"),
        ("[the text](https://example.com/x) and [b](/path 'title')", f"[the text]({GAP}) and [b]({GAP} 'title')"),
        ("so $x^2$ and $$\\int f$$ and \\(y\\), \\[z\\]", f"so {GAP} and {GAP} and {GAP}, {GAP}"),
        ("from $5 to $6 or $7", "from $5 to $6 or $7"),
        ("std::vector a :// b", "std::vector a :// b"),
    ],
)
def test_code_mathematics_and_addresses_are_no_prose(text: str, expected: str) -> None:
    assert prose(text) == expected


MARKUP = st.text(st.sampled_from("`~$\\()[]:/w.h \n>-1a*"), max_size=200)


@given(MARKUP | st.text())
def test_spans_are_in_order_and_without_overlap_in_any_text(text: str) -> None:
    done = 0
    for start, end in other_spans(text):
        assert done <= start < end <= len(text)
        done = end
    assert edit_prose(text, lambda piece: piece) == text


@pytest.mark.parametrize(
    "part", ["`", "``` ", "`a``b```c````", "$a ", "\\(", "](", "[](", "://", "a://", "~~~\n", "w.", "](("]
)
def test_a_text_made_to_be_slow_is_not(part: str) -> None:
    text = part * (200_000 // len(part))
    start = time.process_time()
    prose(text)
    assert time.process_time() - start < 2
