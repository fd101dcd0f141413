"""Removes from answers what a chat program put there for its page, and no model should learn to write.

    citations   ChatGPT's (`\\ue200cite\\ue202turn0search3\\ue201`, also without its private-use characters;
                `【8†source】`), Bing's (`[^1^][1]`)
    reasoning   Open WebUI's `<details type="reasoning" …>…</details>` at the begin of an answer
    label       `Copy code` as the first line of a code block, also of one that lost its fence: under a language's name

Code keeps its citations. If the user wrote a mark of some kind, the talk is about that kind: all of its marks stay. An
answer that is nothing but marks becomes empty, so the step stands before `roles`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import edit_prose
from services.jobs.steps.chat_marks import ChatMarksOptions

CITATIONS = {
    "citation": re.compile(
        r"[ ]*(?:\ue200(?:file)?cite\ue202[^\ue200\ue201\n]{1,400}\ue201"
        r"|\b(?:file)?cite(?:turn\d{1,4}[a-z]{1,12}\d{1,4})+\b)"
    ),
    "source": re.compile(r"[ ]*【\d{1,4}(?::\d{1,4})?†[^【】\n]{0,80}】"),
    "footnote": re.compile(r"[ ]*\[\^\d{1,3}\^\](?:\[\d{1,3}\])?"),
}
WHOLE = {
    "reasoning": re.compile(r"\A\s*<details type=\"reasoning\"[^<>]{0,200}>.*?</details>\s*", re.DOTALL),
    "label": re.compile(r"(?<=\n)Copy code\n"),
}
# In every mark of the kind. Most texts hold none of these, which is quick to see.
SIGNS = {"citation": "cite", "source": "\u2020", "footnote": "[^", "reasoning": "<details", "label": "Copy code"}
_LABELLED = re.compile(r"^[ \t]*(?:```[\w+#.-]{0,30}|[a-z][\w+#.-]{0,30})\nCopy code\n", re.MULTILINE)


def build(options: ChatMarksOptions) -> Step:
    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            asked = "\n".join(turn.text for turn in conversation.turns if turn.role == "user")
            found: Counter[str] = Counter()
            turns = [_cleared(turn, asked, found) for turn in conversation.turns]
            for mark, number in sorted(found.items()):
                ledger.changed(mark, number)
            yield conversation.with_turns(turns) if found else conversation

    return step


def _cleared(turn: Turn, asked: str, found: "Counter[str]") -> Turn:
    if turn.role != "assistant":
        return turn
    text = turn.text
    for name, mark in CITATIONS.items():
        if SIGNS[name] in text and mark.search(text) and not mark.search(asked):
            text = edit_prose(text, partial(_without, mark, name, found))
    if SIGNS["reasoning"] in text and not WHOLE["reasoning"].search(asked):
        text = _without(WHOLE["reasoning"], "reasoning", found, text)
    if SIGNS["label"] in text and SIGNS["label"] not in asked:
        text = _LABELLED.sub(lambda block: _without(WHOLE["label"], "label", found, block[0]), text)
    return turn if text == turn.text else Turn(turn.role, text)


def _without(mark: re.Pattern[str], name: str, found: "Counter[str]", text: str) -> str:
    text, number = mark.subn("", text)
    found.update({name: number} if number else {})
    return text
