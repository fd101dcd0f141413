"""Rejects records that hold a blocked phrase.

A phrase matches whole words, in any case, with any white space or emphasis between them. The names of domains, modules
and identifiers (`openai.com`, `import openai_key`) are not words. The step searches only prose (see
`pipelines/text/prose.py`).
"""

import re
from collections.abc import Callable, Iterable, Iterator

from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import prose
from services.jobs.steps.blocked_phrases import BlockedPhrasesOptions

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han. There a phrase may stand anywhere.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")


def build(options: BlockedPhrasesOptions) -> Step:
    find = _finder(options.phrases)

    def phrase_in(conversation: Conversation) -> str:
        texts = (turn.text for turn in conversation.turns if turn.role in options.roles)
        return next(filter(None, map(find, texts)), "")

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            if phrase := phrase_in(conversation):
                ledger.reject(conversation, "blocked_phrase", phrase)
            else:
                yield conversation

    return step


def _finder(phrases: tuple[str, ...]) -> Callable[[str], str]:
    """Text → the first phrase in it, as the recipe spells it, or "" ."""
    phrases = tuple(phrase for phrase in phrases if phrase.strip())
    words = {max(_folded(phrase).split(), key=len) for phrase in phrases}  # one of each phrase: none here, no phrase
    pattern = re.compile("|".join(f"({_pattern(_folded(phrase).split())})" for phrase in phrases) or r"(?!)")

    def find(text: str) -> str:
        folded = _folded(text)
        if not any(word in folded for word in words):
            return ""
        match = pattern.search(prose(folded))
        return phrases[match.lastindex - 1] if match and match.lastindex else ""

    return find


def _folded(text: str) -> str:
    return text.casefold().replace("’", "'")


def _pattern(words: list[str]) -> str:
    phrase = r"[\s*_]+".join(map(re.escape, words))
    before = "" if _UNSPACED.match(words[0][0]) else r"(?<![\w@])(?<!\w\.)_{0,2}"
    after = "" if _UNSPACED.match(words[-1][-1]) else r"(?=_{0,2}(?!\w))(?!\.\w)"
    return before + phrase + after
