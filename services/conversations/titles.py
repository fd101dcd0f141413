"""A title from the first question: its first line, cut at a word. Pure; whoever makes a conversation calls it."""

import re

LENGTH = 48
NAMELESS = "New chat"


def title_from(text: str) -> str:
    line = re.sub(r"\s+", " ", re.sub(r"^[#>*\s-]+", "", text.strip().partition("\n")[0]))
    if len(line) <= LENGTH:
        return line or NAMELESS
    cut = line[:LENGTH]
    word_end = cut.rfind(" ")
    return f"{cut[:word_end] if word_end > LENGTH / 2 else cut}…"
