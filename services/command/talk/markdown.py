"""Shows an answer as Markdown in a terminal while it comes.

It prints a block (paragraph, list, code) for good when the block can no longer change, and redraws only the last one.
So cost and flicker do not grow with the answer. After a rewind into printed text it says so and prints the block anew.
"""

from itertools import pairwise
from types import TracebackType
from typing import Self

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from services.chat.reader import Status
from services.command.plain import waiting_text, without_controls

REFRESH_PER_S = 10
LONG_CHARS = 8_000  # an unfinished block longer than this is shown as plain text until it ends


def parser() -> MarkdownIt:
    """Show raw HTML as it is written: rich would drop it."""
    return MarkdownIt().enable("strikethrough").enable("table").disable(["html_block", "html_inline"])


class AnswerMarkdown(Markdown):
    """Markdown that loses nothing of a model's text."""

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark")
        self.parsed = parser().parse(without_controls(text))


class Lines:
    """A renderable without the empty lines around it; with `tail`, only the last lines that fit the screen."""

    def __init__(self, content: RenderableType, *, tail: bool = False) -> None:
        self._content = content
        self._tail = tail

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._content, options, pad=False)
        while lines and _is_blank(lines[0]):
            del lines[0]
        while lines and _is_blank(lines[-1]):
            del lines[-1]
        for line in lines[-max(options.size.height - 2, 1) :] if self._tail else lines:
            yield from line
            yield Segment.line()


def _is_blank(line: list[Segment]) -> bool:
    return not any(segment.text.strip() for segment in line)


def dimmed(text: str) -> Text:
    """Reasoning, beside an answer."""
    return Text(without_controls(text), style="dim")


def settled_blocks(text: str) -> list[str]:
    """The whole blocks at the start of `text` that later text cannot change. Joined they are a prefix of `text`.

    Only whole lines count: the first character of a line may still become the marker of a list.
    """
    lines = [f"{line}\n" for line in text.split("\n")[:-1]]
    starts = [token.map[0] for token in parser().parse("".join(lines)) if token.level == 0 and token.map]
    return ["".join(lines[first:last]) for first, last in pairwise([0, *starts[1:]])]


class MarkdownDisplay:
    """Shows one answer, and before it what the model thinks, dimmed; a context manager."""

    def __init__(self, console: Console, *, reasoning: bool = True) -> None:
        self._console = console
        self._shows_reasoning = reasoning
        self._thought = ""  # of the reasoning, the last line, which is not printed yet
        self._text = ""
        self._starts = [0]  # where each printed block starts, and at the end where the unfinished one does
        self._waiting = "sending"
        self._live = Live(
            console=console, get_renderable=self._unfinished, refresh_per_second=REFRESH_PER_S, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._print_thought()
        rest = self._text[self._starts[-1] :]
        self._text, self._waiting = "", ""  # the live part ends empty; what it showed is printed for good
        self._live.stop()
        if rest.strip():
            self._print_block(rest)

    def reasoning(self, text: str) -> None:
        self._waiting = "thinking"
        if not self._shows_reasoning:
            return
        whole, _, self._thought = (self._thought + text).rpartition("\n")
        if whole:
            self._console.print(dimmed(whole))

    def text(self, text: str) -> None:
        self._print_thought()
        self._text += text
        if "\n" not in text:
            return
        for block in settled_blocks(self._text[self._starts[-1] :]):
            self._starts.append(self._starts[-1] + len(block))
            self._print_block(block)

    def rewind(self, offset: int) -> bool:
        self._text = self._text[:offset]
        if offset < self._starts[-1]:
            while self._starts[-1] > offset:
                self._starts.pop()
            self.note("Redis lost the answer from here on; it continues with other text")
        return True

    def waiting(self, status: Status) -> None:
        self._waiting = waiting_text(status)

    def note(self, line: str) -> None:
        self._console.print(Text(line, style="yellow"))

    def _print_thought(self) -> None:
        """The last line of the reasoning: the answer begins."""
        if self._thought:
            self._console.print(dimmed(self._thought))
            self._console.print()
            self._thought = ""

    def _print_block(self, text: str) -> None:
        self._console.print(Lines(AnswerMarkdown(text)))
        self._console.print()

    def _unfinished(self) -> RenderableType:
        if self._thought:
            return Lines(dimmed(self._thought[-LONG_CHARS:]), tail=True)
        rest = self._text[self._starts[-1] :]
        if len(rest) > LONG_CHARS:
            return Lines(Text(without_controls(rest[-LONG_CHARS:])), tail=True)
        if rest.strip():
            return Lines(AnswerMarkdown(rest), tail=True)
        return Spinner("dots", text=self._waiting) if self._waiting and not self._text else Group()
