"""How templates mark a model's reasoning in a prompt. `supervision.py` and `turn_tokens.py` read it.

Some templates open the reasoning in the prompt that asks for an answer (`<think>\\n`), but leave the mark out where
they write the same answer as history. So what the model has to generate first stands nowhere in the rendered text.
"""

import re

REASONING_NAME = re.compile(r"think|thought|reason", re.IGNORECASE)
_MARK = re.compile(
    r"</?(?P<xml>[\w:]*think[\w:]*)>|\[THINK\]|<\|START_THINKING\|>|<\|think_start\|>|<\|begin_of_thought\|>"
    r"|<\|channel>thought\n?|Here are my reasoning steps:\n?"
)
_CLOSINGS = {
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|think_start|>": "<|think_end|>",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|channel>thought": "<channel|>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
}


def pair(text: str) -> tuple[str, str] | None:
    """The mark that opens the last reasoning in `text`, and the mark that closes it; one of them may be missing."""
    found = list(_MARK.finditer(text))
    if not found:
        return None
    mark = found[-1]
    name = mark["xml"]
    return (f"<{name}>", f"</{name}>") if name else (mark[0], _CLOSINGS[mark[0].strip()])


def is_open(text: str) -> str:
    """The mark that would close the reasoning which `text` opens and does not close; empty if there is none."""
    marks = pair(text)
    return marks[1] if marks and text.rfind(marks[0]) > text.rfind(marks[1]) else ""
