"""Prompts out of the generated corpus, none of which comes twice: prose, edits of code that quote it, summaries.

`scenarios.py` takes them. Each begins with a number of its own, so no prefix cache answers beyond the chat template.
"""

from collections.abc import Callable

from bench.corpus.dice import Dice
from bench.corpus.prose import Writer, language
from bench.corpus.snippets import snippets

FOLLOW_UPS = ("Explain the second point in detail.", "Give a long example.", "What speaks against it, and why?")


class Prompts:
    """An endless sequence; the same seed gives the same one."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = 0

    def chat(self) -> str:
        """60 to 400 tokens, the three kinds in turn, each of which asks for a long answer."""
        writer = self._next()
        return f"Note {self._number}. {(_essay, _edit, _summary)[self._number % 3](writer)}"

    def long(self, tokens: int, count: Callable[[str], int]) -> str:
        """A text of at least `tokens` tokens by `count`, and hardly more, to be summarised."""
        writer = self._next()
        text = f"Note {self._number}. Summarise this at length, in your own words:\n\n"
        while count(text) < tokens:
            text += _prose(writer, 3) + " "
        return text

    def follow_up(self) -> str:
        writer = self._next()
        return f"{writer.dice.pick(FOLLOW_UPS)} Mind also this: {writer.plain()}"

    def _next(self) -> Writer:
        self._number += 1
        return Writer(Dice("peers", self._seed, self._number), language("en"))


def _prose(writer: Writer, sentences: int) -> str:
    return " ".join(writer.plain() for _ in range(sentences))


def _essay(writer: Writer) -> str:
    return f"Write an essay of at least ten paragraphs that begins with this thought: {_prose(writer, 2)}"


def _edit(writer: Writer) -> str:
    snippet = writer.dice.pick(snippets())
    return (
        f"Comment every line of this code, change nothing else, and repeat all of it:\n\n"
        f"```{snippet.language}\n{snippet.code}```"
    )


def _summary(writer: Writer) -> str:
    return f"Summarise these notes in at least five paragraphs:\n\n{_prose(writer, 12)}"
