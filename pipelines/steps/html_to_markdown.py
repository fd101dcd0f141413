"""Converts assistant turns that are HTML to markdown. User turns are text: in them `vector<int>` is no tag.

A record is rejected unchanged if the converter cannot read one of its turns, or would leave nothing of it.

A converted record says so in `extra`, in every output format. A later run leaves it alone: what is HTML in its answers
then is what they show (`<p>` as text). Answers that hold HTML and stay as they are, since they may be source that
somebody asked for, are counted as `html_left`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import prose
from services.errors import InvalidRequest
from services.jobs.steps.html_to_markdown import HtmlToMarkdownOptions

ANSWERS_ARE, MARKDOWN = "answers_are", "markdown"  # a key of `extra`, and its value

_HTML_LEFT = re.compile(r"</(?:p|div|li|ul|ol|h[1-6]|pre|table)\s*>|<br\s*/?>", re.IGNORECASE)


def build(options: HtmlToMarkdownOptions) -> Step:
    from pipelines.html.convert import is_empty, to_markdown
    from pipelines.html.detect import looks_like_html

    def converted(turn: Turn) -> Turn:
        if turn.role != "assistant" or (options.when == "auto" and not looks_like_html(turn.text)):
            return turn
        markdown = to_markdown(turn.text, options.converter)
        if not markdown and not is_empty(turn.text):
            raise InvalidRequest("nothing that markdown can hold is in this turn: clean it without html_to_markdown")
        return Turn(turn.role, markdown)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            if conversation.extra.get(ANSWERS_ARE) == MARKDOWN:
                yield conversation
                continue
            try:
                turns = [converted(turn) for turn in conversation.turns]
            except InvalidRequest as error:
                ledger.reject(conversation, "not_convertible", str(error))
                continue
            pairs = list(zip(turns, conversation.turns, strict=True))
            if left := sum(new is old and _holds_html(new) for new, old in pairs):
                ledger.changed("html_left", left)
            if changed := sum(new is not old for new, old in pairs):
                ledger.changed("converted", changed)
            yield _marked(conversation.with_turns(turns)) if changed else conversation

    return step


def _marked(conversation: Conversation) -> Conversation:
    return replace(conversation, extra={**conversation.extra, ANSWERS_ARE: MARKDOWN})


def _holds_html(turn: Turn) -> bool:
    """An answer with HTML outside of its code. Most texts hold none at all: the first search is quick."""
    if turn.role != "assistant" or _HTML_LEFT.search(turn.text) is None:
        return False
    return _HTML_LEFT.search(prose(turn.text)) is not None
