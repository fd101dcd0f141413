"""The table of the requests that an engine runs. It guarantees one terminal event for each. All adapters use it.

The thread that removes a request from the table sends its terminal event, so two ends never race.
"""

import logging
import threading
from collections.abc import Sequence

from services.errors import InvalidRequest, OutOfMemory
from workers.engine import ENGINE_LOST, EngineEvent, Logprob, OnEvent, Outcome

logger = logging.getLogger(__name__)

# In the words of engines. CUDA's "an illegal memory access" is another fault.
_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "no requests can be offloaded",
)


class RunningRequests:
    """Request id → callback. Thread-safe; callbacks run outside the lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[str, OnEvent] = {}
        self._silent: set[str] = set()  # the engine has begun them, and no token came yet: their prompts are computed

    def __len__(self) -> int:
        return len(self._callbacks)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._callbacks

    def add(self, request_id: str, on_event: OnEvent) -> None:
        """Raises InvalidRequest when the id is already running."""
        with self._lock:
            if request_id in self._callbacks:
                raise InvalidRequest(f"request {request_id!r} is already running in this engine; use another id")
            self._callbacks[request_id] = on_event

    def begun(self, request_id: str) -> bool:
        """Note that the engine's thread has it: from now on its steps compute it. False if it has had its end."""
        with self._lock:
            if request_id in self._callbacks:
                self._silent.add(request_id)
            return request_id in self._callbacks

    def discard(self, request_id: str) -> bool:
        """Forget a request without an event: its submission failed. False if it has had its end already."""
        with self._lock:
            self._silent.discard(request_id)
            return self._callbacks.pop(request_id, None) is not None

    def tokens(self, request_id: str, token_ids: Sequence[int], logprobs: Sequence[Logprob] = ()) -> None:
        """Report new tokens; nothing if the request has ended."""
        self.pass_on(EngineEvent(request_id, tuple(token_ids), logprobs=tuple(logprobs)))

    def end(
        self,
        request_id: str,
        outcome: Outcome,
        *,
        reason: str = "",
        message: str = "",
        token_ids: Sequence[int] = (),
        logprobs: Sequence[Logprob] = (),
    ) -> bool:
        """Report the end, with the last tokens. False, and no event, if the request had ended before."""
        return self._end(EngineEvent(request_id, tuple(token_ids), outcome, reason, message, tuple(logprobs)))

    def pass_on(self, event: EngineEvent) -> None:
        """Report what the engine says that runs this request for us."""
        if event.outcome is not None:
            self._end(event)
        elif (on_event := self._callbacks.get(event.request_id)) is not None and event.token_ids:
            self._silent.discard(event.request_id)
            _tell(on_event, event)

    def end_all(self, outcome: Outcome, *, reason: str = "", message: str = "") -> None:
        """End all running requests alike."""
        for request_id in list(self._callbacks):
            self.end(request_id, outcome, reason=reason, message=message)

    def lose_all(self, error: object, message: str) -> None:
        """End all running requests after a step that failed. They are innocent, and may be begun again.

        But for the one that memory ran out on: the only one, or the only one whose prompt was being computed.
        """
        if is_out_of_memory(error):
            suspects = list(self._callbacks if len(self._callbacks) == 1 else self._silent)
            if len(suspects) == 1:
                self.end(suspects[0], "failed", reason=OutOfMemory.code, message=message)
        self.end_all("failed", reason=ENGINE_LOST, message=message)

    def _end(self, event: EngineEvent) -> bool:
        with self._lock:
            self._silent.discard(event.request_id)
            on_event = self._callbacks.pop(event.request_id, None)
        if on_event is None:
            return False
        _tell(on_event, event)
        return True


def is_out_of_memory(error: object) -> bool:
    """Whether an engine's words, or its exception, say that memory ran out."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def _tell(on_event: OnEvent, event: EngineEvent) -> None:
    """A callback that raises must not take the engine's thread, and with it all other requests, down."""
    try:
        on_event(event)
    except Exception:  # the named boundary between an engine and its user
        logger.exception("request %s: its callback failed on %s", event.request_id, event.outcome or "tokens")
