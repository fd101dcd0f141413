"""The events of a response's stream. Each sequence_number comes from what the record and the journal say.

So all readers number alike, in whatever process, after whatever takeover, and however the text was cut:

    response.created, response.queued (of a background response), response.in_progress    0, 1, …; the last one is `b`
    item k, which begins at code point s and ends at e:
      output_item.added, content_part.added                                               b + 5k + s + 1, + 2
      a delta that ends at code point c                                                   b + 5k + 2 + c
      …_text.done, content_part.done, output_item.done                                    b + 5k + 2 + e + 1, + 2, + 3
      a call of a tool has no events of a content part; its text is its name and its arguments
    response.completed, failed or incomplete, of K items and L code points                b + 5K + L + 1

A number tells a delta's end. So whoever was told a number has all text up to it, and `starting_after` is a cursor.
"""

from collections.abc import Iterator

from services.chat.logprobs import within
from services.chat.reader import Done, Text
from services.openai.frames import Frame
from services.openai.response_objects import (
    ItemStatus,
    Output,
    OutputItem,
    ResponseFrames,
    needs_empty_message,
    status_of,
)

NUM_AROUND_ITEM = 5  # events of an item besides its deltas: two before them, three after
NUM_BEFORE_TEXT = 2
_TEXTS = {"message": "output_text", "reasoning": "reasoning_text", "function_call": "function_call_arguments"}

# The official client knows no event for a response that was cancelled: it is incomplete, and its status says why.
_END_EVENTS = {"completed": "completed", "failed": "failed", "incomplete": "incomplete", "cancelled": "incomplete"}


class ResponseEvents:
    """Takes what a follower tells from the beginning of an answer; gives the events after the number `after`."""

    def __init__(self, frames: ResponseFrames, after: int = -1) -> None:
        self.last = after  # the number that the client was told last
        self._frames = frames
        self._after = after
        self._output = Output(frames.rid)
        self._base = 2 if frames.record.background else 1
        self._has_begun = False

    def opening(self) -> Iterator[Frame]:
        """Before anything is known of the answer."""
        background = self._frames.record.background
        yield from self._response(0, "created", self._frames.begun("queued" if background else "in_progress"))
        if background:
            yield from self._response(1, "queued", self._frames.begun("queued"))

    def begun(self) -> Iterator[Frame]:
        """A worker has begun it, or it has ended. May be called again."""
        if not self._has_begun:
            self._has_begun = True
            yield from self._response(self._base, "in_progress", self._frames.begun("in_progress"))

    def text(self, text: Text) -> Iterator[Frame]:
        """More text, which continues the text before it."""
        yield from self.begun()
        if not self._output.continues(text):
            yield from self._close("completed")
            yield from self._open(text.part)
        item = self._output.last
        assert item is not None, "one is open"
        is_first = not item.texts
        item.take(text)
        if text.part == "call":
            return  # its name may go on
        if item.kind == "function_call" and is_first:
            yield from self._added(item)
        number = self._number(item)
        if number > self._after:
            news = text.text[-(number - self._after) :]
            before = len(item.logprobs) - len(within(text.logprobs, item.end - len(news), item.end))
            logprobs: Frame = {"logprobs": item.logprobs[before:]} if item.is_message else {}
            yield from self._of_part(number, f"{_TEXTS[item.kind]}.delta", item, delta=news, **logprobs)

    def end(self, done: Done) -> Iterator[Frame]:
        """The closing events; the last one has the whole response."""
        yield from self.begun()
        if needs_empty_message(self._output, done):
            yield from self._open()
        status = status_of(done)
        yield from self._close("completed" if status == "completed" else "incomplete")
        last = self._output.last
        number = self._base + NUM_AROUND_ITEM * len(self._output.items) + (last.end if last else 0) + 1
        yield from self._response(number, _END_EVENTS[status], self._frames.ended(self._output, done))

    def rewound(self, offset: int) -> Frame:
        """The stream breaks off: Redis lost text that was told, from this code point on."""
        kept = [item for item in self._output.items if item.start < offset]
        self.last = self._base + (NUM_AROUND_ITEM * kept[-1].index + NUM_BEFORE_TEXT + offset if kept else 0)
        lost = f"Redis lost a part of the answer; forget what came after the event {self.last}, and ask again after it"
        return self.error("interrupted", lost)

    def error(self, code: str, message: str) -> Frame:
        """The stream breaks off here; the response may go on. Whoever asks from this number on misses nothing.

        The specification's clients read the fields, the official one raises for an event with an `error`.
        """
        about = {"code": code, "message": message, "param": None}
        error = {"type": "server_error", **about}
        return {"type": "error", "sequence_number": max(self.last, 0), **about, "error": error}

    def _number(self, item: OutputItem) -> int:
        """The number of a delta that ends where the item's text ends now."""
        return self._base + NUM_AROUND_ITEM * item.index + NUM_BEFORE_TEXT + item.end

    def _open(self, part: str = "answer") -> Iterator[Frame]:
        item = self._output.begin(part)
        if item.kind == "function_call":
            return  # it is added with its name
        yield from self._added(item)
        yield from self._of_part(self._number(item), "content_part.added", item, part=item.part(""))

    def _added(self, item: OutputItem) -> Iterator[Frame]:
        number = self._base + NUM_AROUND_ITEM * item.index + item.start + 1
        yield from self._tell(number, "output_item.added", output_index=item.index, item=item.added())

    def _close(self, status: ItemStatus) -> Iterator[Frame]:
        item = self._output.last
        if item is None:
            return
        number, text = self._number(item), item.text
        kind = _TEXTS[item.kind]
        if item.kind == "function_call":
            yield from self._added(item) if not item.texts else ()
            yield from self._of_part(number + 1, f"{kind}.done", item, name=item.name, arguments=text)
        else:
            logprobs: Frame = {"logprobs": item.logprobs} if item.is_message else {}
            yield from self._of_part(number + 1, f"{kind}.done", item, text=text, **logprobs)
            yield from self._of_part(number + 2, "content_part.done", item, part=item.part(text))
        yield from self._of_item(number + 3, "output_item.done", item, status)

    def _of_item(self, number: int, kind: str, item: OutputItem, status: ItemStatus) -> Iterator[Frame]:
        return self._tell(number, kind, output_index=item.index, item=item.frame(status))

    def _of_part(self, number: int, kind: str, item: OutputItem, **about: object) -> Iterator[Frame]:
        place = {} if item.kind == "function_call" else {"content_index": 0}
        return self._tell(number, kind, item_id=item.id, output_index=item.index, **place, **about)

    def _response(self, number: int, kind: str, response: Frame) -> Iterator[Frame]:
        return self._tell(number, kind, response=response)

    def _tell(self, number: int, kind: str, **about: object) -> Iterator[Frame]:
        if number > self._after:
            self.last = number
            yield {"type": f"response.{kind}", "sequence_number": number, **about}
