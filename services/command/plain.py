"""Shows an answer as plain text on stdout, for pipes and scripts. Printed text cannot be taken back."""

import sys

from services.chat.reader import Status

# Escape sequences of a model's text must not reach a terminal; line feeds and tabs may.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def without_controls(text: str) -> str:
    """The text without control characters, safe on a terminal."""
    return text.translate(_CONTROLS)


NO_ANSWER = "the model thought until it reached the token limit, and gave no answer; let it generate more tokens"


class PlainDisplay:
    """Writes the answer to stdout as it comes, and everything else to stderr."""

    def __init__(self) -> None:
        self._safe = not sys.stdout.isatty()
        self._line_open = False
        self._said = ""

    def text(self, text: str) -> None:
        sys.stdout.write(text if self._safe else without_controls(text))
        sys.stdout.flush()
        self._line_open = not text.endswith("\n")

    def reasoning(self, text: str) -> None:
        """A script wants the answer alone; a person at stderr hears once that it is on its way."""
        self._say("the model is thinking")

    def rewind(self, offset: int) -> bool:
        return False

    def waiting(self, status: Status) -> None:
        self._say(waiting_text(status) if status.state != "running" else "")

    def _say(self, line: str) -> None:
        if line and line != self._said and sys.stderr.isatty():
            self.note(line)
        self._said = line

    def note(self, line: str) -> None:
        print(f"chatserver: {line}", file=sys.stderr)

    def end(self) -> None:
        """Close the last line."""
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()


def waiting_text(status: Status) -> str:
    """What a request without new text waits for, in words. The page does the same (words.ts)."""
    words = {
        "loading": "waiting while a worker loads the model",
        "no_worker": "waiting for a worker that serves the model",
        "running": "reading the prompt",
        "interrupted": "interrupted; continues by itself",
    }
    if status.state in words:
        return words[status.state]
    if status.position is None:
        return "waiting in the queue"
    ahead = "next in line" if status.position == 0 else f"{status.position} ahead"
    return f"waiting, {ahead}{duration_text(status.eta_s)}"


def duration_text(eta_s: int | None) -> str:
    """The time in round numbers, as an estimate deserves; empty when it is short. The page does the same (words.ts)."""
    if eta_s is None or eta_s < 3:
        return ""
    if eta_s >= 60:
        return f", about {round(eta_s / 60)} min"
    return f", about {eta_s if eta_s < 10 else 5 * round(eta_s / 5)} s"
