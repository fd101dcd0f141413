"""Code or a text in a fence that nothing in it closes. Pure; readers and writers of conversations call it."""

import re

FENCE = re.compile("`{3,}")


def document(language: str, text: str) -> str:
    """A document that an answer wrote beside itself, as part of the answer: code in a fence."""
    if not language:
        return text
    longest = max((len(found) for found in FENCE.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
