"""Assistant turns that are HTML become markdown. What people typed is text: `vector<int>` is no tag."""

from collections.abc import Iterable, Iterator

from pipelines.conversation import Conversation, Turn
from pipelines.ledger import Ledger
from pipelines.steps import Step
from services.recipe import HtmlToMarkdownOptions


def build(options: HtmlToMarkdownOptions) -> Step:
    from pipelines.html.convert import to_markdown
    from pipelines.html.detect import looks_like_html

    def converted(turn: Turn) -> Turn:
        if turn.role != "assistant" or (options.when == "auto" and not looks_like_html(turn.text)):
            return turn
        return Turn(turn.role, to_markdown(turn.text, options.converter))

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            turns = [converted(turn) for turn in conversation.turns]
            changed = sum(new is not old for new, old in zip(turns, conversation.turns, strict=True))
            if changed:
                ledger.changed("converted", changed)
            yield conversation.with_turns(turns) if changed else conversation

    return step
