"""Converts assistant turns that are HTML to markdown. User turns are text: in them `vector<int>` is no tag.

A record is rejected unchanged if the converter cannot read one of its turns, or would leave nothing of it.
"""

from collections.abc import Iterable, Iterator

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from services.errors import InvalidRequest
from services.jobs.steps.html_to_markdown import HtmlToMarkdownOptions


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
            try:
                turns = [converted(turn) for turn in conversation.turns]
            except InvalidRequest as error:
                ledger.reject(conversation, "not_convertible", str(error))
                continue
            changed = sum(new is not old for new, old in zip(turns, conversation.turns, strict=True))
            if changed:
                ledger.changed("converted", changed)
            yield conversation.with_turns(turns) if changed else conversation

    return step
