"""Finds stop strings in text that arrives in pieces. It holds text back that may be the start of a stop string."""

from collections.abc import Sequence


class StopMatcher:
    """Text in, text out, until a stop string completes. How the text is cut into pieces changes nothing."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._prefixes = frozenset(text[:length] for text in stop for length in range(1, len(text)))
        self._longest = max((len(text) for text in stop), default=0)
        self.held = ""  # text that may begin a stop string
        self.matched = ""  # the stop string that ended the text

    def push(self, text: str) -> str:
        """The text that is certain to be part of the answer by now; nothing after a match."""
        if self.matched:
            return ""
        if not self._stop:
            return text
        text = self.held + text
        start = self._first_match(text)
        if start is not None:
            self.held = ""
            return text[:start]
        keep = self._possible_start(text)
        self.held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text that was held back, when no more text can come."""
        text, self.held = self.held, ""
        return text

    def _first_match(self, text: str) -> int | None:
        """Where the stop string begins that ends first (the longest such); None without a match."""
        ends = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if not ends:
            return None
        _, start, self.matched = min(ends)
        return start

    def _possible_start(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if text[-length:] in self._prefixes:
                return length
        return 0
