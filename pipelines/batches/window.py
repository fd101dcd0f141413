"""Asks the lines of a batch, a bounded number at once, and gives what was answered to the ledger in the file's order.

Nothing is asked twice: a line's requests have the same ids whoever asks them, and the queue accepts an id once. So a
process that goes on for one that died submits the window again, and reads the answers that are there.
"""

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import orjson
from redis.exceptions import RedisError

from pipelines.batches.ledger import AnsweredLine, BatchLedger
from pipelines.batches.lines import BatchLine, read_lines
from pipelines.batches.questions import Question, Questions
from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.chat.reader import Done, Rewind, Text
from services.chat.requests import Requests
from services.chat.said import Said
from services.errors import Busy, ChatServerError, Unavailable, UnknownResponse
from services.openai.failures import failure, refusal

LOOK_S = 0.25  # between two looks while nothing is heard
COMMIT_S = 0.5  # between two commits: each syncs the disk
BUSY_S = 1.0  # after a refusal for want of room
LINES_AT_ONCE = 1_000  # of an expired batch
AHEAD = 8  # times the window: answered lines that wait for an earlier one
# Ends that say nothing of the question: the line is asked again, under ids of another attempt.
AGAIN = frozenset({"expired", "interrupted", "busy", "user_limit", "gone", "unavailable"})


class Reading:
    """What one request of a line says."""

    def __init__(self, follower: Follower) -> None:
        self.follower = follower
        self.said = Said()
        self.done: Done | None = None

    def read(self) -> None:
        while self.done is None and (event := self.follower.next()) is not None:
            if isinstance(event, Text):
                self.said.take(event)
            elif isinstance(event, Rewind):
                self.said.rewind(event.offset)
            elif isinstance(event, Done):
                self.done = event


class OpenLine:
    """A line that is not committed. `answer` is None until it has its answer or its error."""

    def __init__(self, line: BatchLine) -> None:
        self.line = line
        self.attempt = 0
        self.question: Question | None = None
        self.readings: list[Reading] = []
        self.answer: AnsweredLine | None = None

    @property
    def num_running(self) -> int:
        return sum(reading.done is None for reading in self.readings)


class BatchWindow:
    """The lines of one batch that are asked now. Its feed is started by the caller."""

    def __init__(
        self,
        batch_id: str,
        requests: Requests,
        feed: AnswerFeed,
        questions: Questions,
        ledger: BatchLedger,
        *,
        size: int,
    ) -> None:
        self._batch_id = batch_id
        self._requests = requests
        self._feed = feed
        self._questions = questions
        self._ledger = ledger
        self._size = size
        self._changed = threading.Event()
        self._lines: Iterator[BatchLine] = read_lines(ledger.input, ledger.place.number, ledger.place.offset)
        self._open: deque[OpenLine] = deque()
        self._read_all = False
        self._busy_until = self._committed_at = 0.0

    def step(self) -> None:
        """Ask what there is room for, and keep what was answered. Ends the ledger with the last line."""
        self._fill()
        self._changed.wait(LOOK_S)
        self._changed.clear()
        for each in self._open:
            self._collect(each)
        is_last = self._read_all and all(each.answer for each in self._open)
        if is_last or time.monotonic() - self._committed_at > COMMIT_S:
            self._commit_answered("done" if is_last else "")

    def end(self, how: str) -> None:
        """Cancel what runs, and end the ledger. An expired batch tells of each line that has no answer."""
        for each in self._open:
            self._collect(each)
            if each.answer is None:
                self._cancel(each)
        answers = [each.answer or self._unanswered(each.line) for each in self._open if each.answer or how == "expired"]
        self._commit(answers, self._open[-1].line if self._open else None, "" if how == "expired" else how)
        self._open.clear()
        while how == "expired" and not self._ledger.place.ended:
            rest = list(itertools.islice(self._lines, LINES_AT_ONCE))
            self._commit([self._unanswered(line) for line in rest], rest[-1] if rest else None, "" if rest else how)

    def leave(self) -> None:
        """Follow nothing any more; what was asked goes on."""
        for each in self._open:
            self._leave(each)

    # -- asking --------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        if time.monotonic() < self._busy_until:
            return
        for each in self._open:
            if not each.answer and not each.readings and not self._asked(each):
                return
        while not self._read_all and self._has_room():
            line = next(self._lines, None)
            if line is None:
                self._read_all = True
                return
            self._open.append(OpenLine(line))
            if not self._asked(self._open[-1]):
                return

    def _has_room(self) -> bool:
        running = sum(each.num_running for each in self._open)
        return running < self._size and len(self._open) < AHEAD * self._size

    def _asked(self, each: OpenLine) -> bool:
        """Whether the line has been asked, or refused for good. False: there is no room now."""
        try:
            each.question = each.question or self._questions.ask(each.line.number, each.line.body, each.attempt)
            for order in each.question.orders:
                self._requests.submit(order, note=each.question.note)
        except Busy as error:
            self._busy_until = time.monotonic() + min(error.retry_after_s or BUSY_S, BUSY_S)
            return False
        except Unavailable:
            raise
        except ChatServerError as error:
            each.answer = self._written(each.line, refusal(error), error.http_status)
            return True
        question = each.question
        each.readings = [Reading(self._follow(order, question)) for order in question.orders]
        return True

    def _follow(self, order: Any, question: Question) -> Follower:
        return self._feed.follow(order.rid, order.user, self._changed.set, request=order, note=question.note)

    # -- what was answered ---------------------------------------------------------------------------------------

    def _collect(self, each: OpenLine) -> None:
        if each.answer or not each.readings or each.question is None:
            return
        for reading in each.readings:
            if reading.follower.has_end:
                reading.read()
        ends = [(reading.said, reading.done) for reading in each.readings if reading.done]
        if len(ends) < len(each.readings):
            return
        self._leave(each)
        failed = next((done for _, done in ends if done.status != "finished"), None)
        if failed is not None and failed.code not in AGAIN:
            each.answer = self._written(each.line, *failure(failed))
        elif failed is not None or not self._keep(each, each.question, ends):
            each.attempt, each.question, each.readings = each.attempt + 1, None, []

    def _keep(self, each: OpenLine, question: Question, ends: Sequence[tuple[Said, Done]]) -> bool:
        """Whether the answer is there."""
        try:
            each.answer = self._written(each.line, question.body(ends), 200)
        except UnknownResponse:  # Redis lost it since its end
            return False
        return True

    def _commit_answered(self, ended: str) -> None:
        ready: list[OpenLine] = []
        while self._open and self._open[0].answer:
            ready.append(self._open.popleft())
        if not ready and not ended:
            return
        self._commit([each.answer for each in ready if each.answer], ready[-1].line if ready else None, ended)
        self._committed_at = time.monotonic()
        for each in ready:
            self._forget(each)

    def _commit(self, answers: list[AnsweredLine], last: BatchLine | None, ended: str) -> None:
        """`last`: the line up to which the input is over; None: no further one."""
        place = self._ledger.place
        self._ledger.commit(answers, last.number if last else place.number, last.end if last else place.offset, ended)

    def _written(self, line: BatchLine, body: dict[str, Any], status: int) -> AnsweredLine:
        response = {"status_code": status, "request_id": f"{self._batch_id}-{line.number}", "body": body}
        return self._encoded(line, response, None, failed=status != 200)

    def _unanswered(self, line: BatchLine) -> AnsweredLine:
        error = {"code": "batch_expired", "message": "this request was not answered within the batch's 24 hours"}
        return self._encoded(line, None, error, failed=True)

    def _encoded(
        self, line: BatchLine, response: dict[str, Any] | None, error: dict[str, Any] | None, *, failed: bool
    ) -> AnsweredLine:
        digest = hashlib.sha256(f"{self._batch_id}-{line.number}".encode()).hexdigest()[:32]
        raw = {"id": f"batch_req_{digest}", "custom_id": line.custom_id, "response": response, "error": error}
        return AnsweredLine(orjson.dumps(raw) + b"\n", failed)

    # -- afterwards ----------------------------------------------------------------------------------------------

    def _forget(self, each: OpenLine) -> None:
        """Its text is in the file: 50,000 answers need not fill the memory of Redis for a day."""
        if each.question is None or each.question.kept:
            return
        for order in each.question.orders:
            with suppress(ChatServerError, RedisError):
                self._requests.forget(order.rid, order.user)

    def _cancel(self, each: OpenLine) -> None:
        self._leave(each)
        for order in each.question.orders if each.question else ():
            with suppress(ChatServerError, RedisError):
                self._requests.cancel(order.rid, order.user)

    def _leave(self, each: OpenLine) -> None:
        for reading in each.readings:
            self._feed.leave(reading.follower)
