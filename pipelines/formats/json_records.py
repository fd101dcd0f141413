"""JSON texts as records: arrays (streamed), one value after another, or one to a line. Only `read.py` calls it.

At a broken place the reader skips as little as is safe. In a file of lines it skips the line. In an array it skips
everything up to the next place that looks exactly like the start of an earlier element (`{"id"`, whitespace included);
inside a string the quotes would be escaped, so no text looks like the start of an element. A record in which a key
stands twice is rejected, since nobody can say which value is meant. Halves of surrogate pairs (a cut emoji) become
U+FFFD; NaN, by which pandas says that there is no value, becomes null.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import orjson

from pipelines.formats.files import Blocks
from pipelines.formats.records import MAX_RAW_BYTES, MAX_RECORD_BYTES, Found, Parsed, Unreadable

BOM = b"\xef\xbb\xbf"
SURROGATE = re.compile("[\ud800-\udfff]")
REPLACEMENT = "\ufffd"
SEPARATORS = re.compile(r"[ \t\r\n,]*")
HEAD = re.compile(r'\{\s{0,64}"[^"\\]{1,64}"')
HEAD_CHARS = 160  # no head is longer
MAX_HEADS = 8  # different ones that are remembered
NEAR_END_CHARS = 16  # an error so near the end of what was read may only mean that more follows
TOKENS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


def records(blocks: Blocks) -> Iterator[Found]:
    """Every record of the text, and every stretch that is none, in order."""
    start = blocks.peek().removeprefix(BOM).lstrip()
    if start.startswith(b"["):
        return Values(blocks, array=True).records()
    if start.startswith(b"{") and (b"}\r{" in start or not _is_lines(start)):  # lines may end as on old Macs
        return Values(blocks, array=False).records()
    return lines(blocks)


def _is_lines(start: bytes) -> bool:
    """Whether one of the first two lines is whole: values printed over many lines have none such there."""
    first = [line for line in start.split(b"\n", 64) if line.strip()][:2]
    return len(first) == 1 or any(isinstance(parse(1, line), Parsed) for line in first)


def lines(blocks: Blocks) -> Iterator[Found]:
    """One value to a line."""
    number, rest, dropped = 0, b"", 0
    while block := blocks.read():
        *whole, last = block.split(b"\n")
        if whole:
            whole[0] = rest + whole[0]
            rest = b""
            for line in whole:
                number += 1
                if found := _line(number, line, dropped):
                    yield found
                dropped = 0
        rest += last
        if dropped + len(rest) > MAX_RECORD_BYTES:
            dropped += max(0, len(rest) - MAX_RAW_BYTES)
            rest = rest[:MAX_RAW_BYTES]
    last_found = _line(number + 1, rest, dropped)
    if last_found and (not blocks.damage or isinstance(last_found, Parsed)):
        yield last_found
        number, rest = number + 1, b""
    if blocks.damage:
        detail = f"from line {number + 1} on: {blocks.damage.detail}"
        yield Unreadable.of(number + 1, blocks.damage.reason, detail, rest)


def _line(number: int, line: bytes, dropped: int) -> Found | None:
    if dropped or len(line) > MAX_RECORD_BYTES:
        return Unreadable.too_large(number, line, dropped + len(line))
    line = line.removeprefix(BOM).strip()
    return parse(number, line) if line else None


def parse(line: int, raw: bytes) -> Found:
    """One value, or the reason why not."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return _diagnose(line, raw, str(error))
    if _keys_are_missing(value, raw) and (twice := _first_key_twice(raw)):
        return Unreadable.of(line, "duplicate_key", f"the key {twice!r:.80} stands twice", raw)
    return Parsed(line, value, raw)


def _diagnose(line: int, raw: bytes, told: str) -> Found:
    """What orjson refuses: mended if only a half surrogate or a NaN is wrong with it, else named."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return Unreadable.of(line, "bad_encoding", f"no UTF-8 at byte {error.start} of the record", raw)
    if "depth limit" in told:
        return Unreadable.of(line, "too_deep", "more than 1024 values inside each other", raw)
    if "infinity" in told:
        return Unreadable.of(line, "not_finite", told, raw)
    constants: list[str] = []
    try:
        value = json.loads(text, parse_constant=partial(_null, constants))
        whole = _without_surrogates(value)
        repaired = not constants or whole != value
        return Parsed(line, orjson.loads(orjson.dumps(whole)), raw, repaired, emptied=len(constants))
    except _NotFinite as error:
        return Unreadable.of(line, "not_finite", f"{error} is no number in JSON", raw)
    except (ValueError, TypeError, RecursionError) as error:
        reason = "truncated" if "unexpected end of data" in told else "bad_json"
        return Unreadable.of(line, reason, str(error) if isinstance(error, json.JSONDecodeError) else told, raw)


class _NotFinite(Exception):
    pass


def _null(found: list[str], name: str) -> None:
    """In the place of NaN. Raises _NotFinite for the infinities, which are values."""
    if name != "NaN":
        raise _NotFinite(name)
    found.append(name)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return SURROGATE.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {SURROGATE.sub(REPLACEMENT, name): _without_surrogates(part) for name, part in value.items()}
    return value


def _keys_are_missing(value: Any, raw: bytes) -> bool:
    """Whether the text holds another number of keys than the value. Cheap, so that every record is asked."""
    return raw.count(b'":') - raw.count(b'\\":') != _num_keys(value)


def _num_keys(value: Any) -> int:
    inner: Any = value
    if isinstance(value, dict):
        inner = value.values()
    elif not isinstance(value, list):
        return 0
    own = len(value) if isinstance(value, dict) else 0
    return own + sum(_num_keys(part) for part in inner if isinstance(part, dict | list))


def _first_key_twice(raw: bytes) -> str | None:
    """The first key that does stand twice in one object. A key spelled `"a" :` also makes the numbers differ."""
    found: list[str] = []

    def watch(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            found.append(next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1))
        return made

    try:
        json.loads(raw, object_pairs_hook=watch)
    except RecursionError:
        return None
    return found[0] if found else None


class Values:
    """The elements of an array, or values one after another, over a window of the text that grows with its element.

    The window is decoded as Latin-1: a character is a byte, and JSON's own characters are where they are in UTF-8. What
    stands between two found ends is then parsed from its bytes.
    """

    def __init__(self, blocks: Blocks, array: bool) -> None:
        self._blocks = blocks
        self._array = array
        # parse_int: the value is thrown away, and int() refuses thousands of digits
        self._decode = json.JSONDecoder(strict=False, parse_int=float).raw_decode
        self._text = ""  # the window
        self._at = 0  # in the window: where reading goes on
        self._line = 1  # there
        self._ended = False  # nothing follows the window
        self._heads: list[str] = []
        self._tail_told = False  # that the text ends badly

    def records(self) -> Iterator[Found]:
        self._fill()
        self._go_to(len(BOM) if self._text.startswith(BOM.decode("latin-1")) else 0)
        if self._array:
            self._go_to(self._text.index("[") + 1)
        closed = not self._array
        while self._skip_separators():
            if self._array and self._text[self._at] == "]":
                self._go_to(self._at + 1)
                closed = True
            elif self._array and closed and self._next_head(self._at) != self._at:
                closed = False
                yield self._resynchronise("trailing_data", "stands after the end of the array", self._at)
            else:
                closed = closed and not self._array
                yield self._element()
        if (self._blocks.damage or not closed) and not self._tail_told:
            yield self._no_end()

    def _no_end(self) -> Unreadable:
        damage = self._blocks.damage
        reason = damage.reason if damage else "truncated"
        detail = damage.detail if damage else "the array has no end; nothing is known of what should follow"
        return Unreadable.of(self._line, reason, f"from line {self._line} on: {detail}", b"")

    def _fill(self) -> None:
        """Drop what was read; at least double what is left."""
        parts = [self._text[self._at :]]
        wanted = max(len(parts[0]), 1)
        while wanted > 0 and (block := self._blocks.read()):
            parts.append(block.decode("latin-1"))
            wanted -= len(block)
        self._ended = wanted > 0
        self._text, self._at = "".join(parts), 0

    def _go_to(self, index: int) -> None:
        self._line += self._text.count("\n", self._at, index)
        self._at = index

    def _skip_separators(self) -> bool:
        """To what follows. False at the end of the text."""
        while True:
            match = SEPARATORS.match(self._text, self._at)
            self._go_to(match.end() if match else self._at)
            if self._at < len(self._text) or self._ended:
                return self._at < len(self._text)
            self._fill()

    def _element(self) -> Found:
        while True:
            try:
                _, end = self._decode(self._text, self._at)
                if self._swallows_records(end):
                    return self._resynchronise("bad_json", "a list begins where a record should", self._at + 1)
                if end < len(self._text) or self._ended:  # a number may go on in the next block
                    return self._take(end)
            except RecursionError:
                return self._skip_whole("too_deep", "too many values inside each other")
            except json.JSONDecodeError as error:
                if self._is_broken(error):
                    return self._resynchronise("bad_json", error.msg, error.pos)
            if self._ended:
                return self._unfinished()
            if len(self._text) - self._at > MAX_RECORD_BYTES:
                return self._skip_whole("too_large", f"a record has at most {MAX_RECORD_BYTES} bytes")
            self._fill()

    def _swallows_records(self, end: int) -> bool:
        """Whether a list stands among the records and holds more of them: a bracket that damage put there."""
        return self._text[self._at] == "[" and bool(self._heads) and 0 <= self._next_head(self._at) < end

    def _take(self, end: int) -> Found:
        head = HEAD.match(self._text, self._at)
        if head and len(self._heads) < MAX_HEADS and head[0] not in self._heads:
            self._heads.append(head[0])
        line, raw = self._line, self._text[self._at : end].encode("latin-1")
        self._go_to(end)
        return parse(line, raw) if len(raw) <= MAX_RECORD_BYTES else Unreadable.too_large(line, raw, len(raw))

    def _is_broken(self, error: json.JSONDecodeError) -> bool:
        """Not only unfinished."""
        if error.msg.startswith("Unterminated"):
            return False
        return error.pos < len(self._text) - NEAR_END_CHARS or (self._ended and error.pos < len(self._text.rstrip()))

    def _unfinished(self) -> Found:
        """The text ends inside this element: it was cut here, or a quote is missing and others follow."""
        if self._next_head(self._at + 1) >= 0:
            return self._resynchronise("bad_json", "the record has no end", self._at + 1)
        damage = self._blocks.damage
        detail = f"from line {self._line} on: {damage.detail}" if damage else "the text ends inside this record"
        return self._resynchronise(damage.reason if damage else "truncated", detail, self._at + 1, told=True)

    def _next_head(self, start: int) -> int:
        """Where the next element starts, or -1."""
        own = HEAD.match(self._text, self._at)
        heads = self._heads or ([own[0]] if own else [])
        return min((at for head in heads if (at := self._text.find(head, start)) >= 0), default=-1)

    def _resynchronise(self, reason: str, detail: str, start: int, told: bool = False) -> Unreadable:
        """All up to the next start of an element behind `start`, or to the end, is one stretch."""
        stretch = _Stretch(self._line, reason, detail)
        own = HEAD.match(self._text, self._at)
        if own and not self._heads:
            self._heads.append(own[0])
        start = max(start, self._at + 1) if own else start
        while (head := self._next_head(start)) < 0 and not self._ended:
            end = max(self._at, len(self._text) - HEAD_CHARS)  # a head may lie across the window's end
            self._pass(stretch, end)
            start = max(start - end, 0)
            self._fill()
        self._tail_told = told or (head < 0 and not self._blocks.damage)
        self._pass(stretch, len(self._text) if head < 0 else head)
        return stretch.found()

    def _skip_whole(self, reason: str, detail: str) -> Unreadable:
        """A value too large or too deep to decode, by its brackets."""
        stretch = _Stretch(self._line, reason, detail)
        depth, quoted = 0, False
        while True:
            end = self._at
            for token in TOKENS.finditer(self._text, self._at):
                end = token.end()
                quoted ^= token[0] == '"'
                if not quoted:
                    depth += (token[0] in "{[") - (token[0] in "}]")
                    if depth <= 0:
                        self._pass(stretch, end)
                        return stretch.found()
            lone_backslash = end < len(self._text) and self._text.endswith("\\")
            self._pass(stretch, len(self._text) - lone_backslash)
            if self._ended:
                self._tail_told = not self._blocks.damage
                return stretch.found()
            self._fill()

    def _pass(self, stretch: "_Stretch", end: int) -> None:
        stretch.add(self._text[self._at : end])
        self._go_to(end)


class _Stretch:
    """The bytes that the reader skips; only their beginning is kept."""

    def __init__(self, line: int, reason: str, detail: str) -> None:
        self._line = line
        self._reason = reason
        self._detail = detail
        self._kept = b""
        self._num_bytes = 0

    def add(self, text: str) -> None:
        self._num_bytes += len(text)
        self._kept += text[: MAX_RAW_BYTES - len(self._kept)].encode("latin-1")

    def found(self) -> Unreadable:
        raw, num_bytes = self._kept, self._num_bytes
        if num_bytes == len(raw):
            raw = raw.rstrip(b", \t\r\n")
            num_bytes = len(raw)
        return Unreadable(self._line, self._reason, self._detail, raw, num_bytes)
