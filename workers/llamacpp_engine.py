"""Engine adapter over llama.cpp: GGUF files on CPUs, of every architecture that llama.cpp knows.

`workers.select_engine` makes it. One thread owns the model: it takes submissions and cancels from an inbox, computes a
batch of all running sequences, draws their tokens, and reports. `workers/slots.py` decides what a batch holds. The
package `llama-cpp-python` compiles llama.cpp for the processor on which it is installed: `make llamacpp`.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.errors import ChatServerError, ConfigurationError, EngineError, OutOfMemory
from services.grammar.notations import LARK
from services.models.catalogue import ModelSource
from services.models.gguf_metadata import read_gguf_metadata
from services.tokens.tokenization import load_tokenizer
from workers import slots
from workers.engine import ENGINE_LOST, EngineOptions, Logprob, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests
from workers.slots import DecodeFailed, Row, SlotTable
from workers.validation import check_submission

if TYPE_CHECKING:  # loaded when the engine starts
    from workers.answer_grammar import GrammarCompiler
    from workers.llamacpp_model import LlamaCppModel
    from workers.token_sampler import TokenSampler

logger = logging.getLogger(__name__)

_NOT_CAUSAL = ("bert", "t5", "clip", "embedding", "wavtokenizer", "diffusion", "llada", "dream")  # in a name
_BYTES_PER_VALUE = 2  # the cache holds fp16
_CELLS_STEP = 256  # llama.cpp rounds a cache up to a multiple of it
_BATCH_TOKENS, _FEWEST_TOKENS = 512, 16  # of a step
_STEP_S, _STEP_BESIDE_S = 1.0, 0.25  # how long a step with prompts may take: alone, and beside answers that wait for it
_STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class _Run:
    sequence: slots.Sequence
    sampler: "TokenSampler"
    stop_token_ids: frozenset[int]


class LlamaCppEngine:
    """See `workers.engine.Engine`."""

    name = "llamacpp"

    def __init__(
        self,
        source: ModelSource,
        options: EngineOptions,
        *,
        make_model: Callable[[], "LlamaCppModel"] | None = None,
    ) -> None:
        """`dtype` and `state_dir` are not used: the weights are computed as they are stored, where they are.

        `repeatable`: compute each token by itself, so that a greedy answer does not depend on what runs beside it. Then
        answers share no reading of the weights, and several at once are no faster than one after the other.
        """
        self._source = source
        self._slots = options.slots
        self._context_tokens = options.context_tokens
        self._cache_gib = options.cache_gib
        self._repeatable = options.repeatable
        self._make_model = make_model or self._load_model
        self._running = RunningRequests()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._runs: dict[str, _Run] = {}
        self._model: Any = None
        self._table: Any = None
        self._metadata_read: dict[str, Any] = {}
        self._grammars: GrammarCompiler | None = None
        self._pace = _Pace()
        self._limits: ModelLimits | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._dead = False
        self._progress = time.monotonic()
        self.description = f"llamacpp on the CPU, {source.name}, not started"

    @staticmethod
    def can_read(source: ModelSource) -> tuple[bool, str]:
        if source.base is not None:
            return False, f"an adapter on {source.base.name}, and llamacpp does not put adapters on models"
        if source.gguf_weights is None:
            return False, "no GGUF, which is what llamacpp reads"
        architecture = str(read_gguf_metadata(source.gguf_weights)["general.architecture"])
        if any(name in architecture for name in _NOT_CAUSAL):
            return False, f"a GGUF of architecture {architecture}, which llamacpp cannot serve"
        return True, "a GGUF, which llamacpp reads"

    @property
    def limits(self) -> ModelLimits:
        if self._limits is None:
            self._limits = self._read_limits()
        return self._limits

    def start(self) -> None:
        limits = self.limits
        try:
            self._open()
        except ImportError as error:
            raise ConfigurationError(f"llama.cpp cannot be loaded: {error}; make llamacpp installs it") from None
        self._grammars = self._make_grammars()
        self._limits = self._read_limits()
        self.description = (
            f"llamacpp on the CPU, {self._source.name}, weights as stored, cache {self._num_cells()} tokens,"
            f" {self._slots} slots, context {limits.context_tokens}, {_num_cores()} threads"
            f"{', repeatable' if self._repeatable else ''}"
        )
        self._stopping = self._dead = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="llamacpp-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._inbox.put(_nothing)
            thread.join(_STOP_TIMEOUT_S)
            if not thread.is_alive():  # else it still computes with the memory that a close would free
                self._close()
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        from workers.token_sampler import TokenSampler

        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        if not self.alive():
            raise EngineError("the llamacpp engine is not running; start it first")
        prompt = list(prompt_token_ids)
        grammar = self._grammars.compile(sampling.grammar, len(prompt)) if sampling.grammar and self._grammars else None
        sampler = TokenSampler(sampling, prompt, self.limits.vocab_size, grammar)
        run = _Run(slots.Sequence(request_id, prompt, sampling), sampler, frozenset(sampling.stop_token_ids))
        self._running.add(request_id, on_event)
        self._inbox.put(lambda: self._add(run))
        if not self.alive() and self._running.discard(request_id):  # it died since, and nobody reads the inbox
            raise EngineError("the llamacpp engine stopped while this request was submitted")

    def cancel(self, request_id: str) -> None:
        if request_id in self._running:
            self._inbox.put(lambda: self._cancel(request_id))

    def progress(self) -> float:
        return self._progress

    def alive(self) -> bool:
        return self._thread is not None and not self._stopping and not self._dead

    # ---- the engine's thread

    def _loop(self) -> None:
        """Runs until stopped. Only here any failure of a step is caught."""
        while not self._stopping:
            try:
                self._take_inbox()
                if not self._stopping and self._runs:
                    self._step()
                    self._progress = time.monotonic()
            except Exception as error:  # noqa: BLE001 - the named loop boundary
                if not self._recover(error):
                    return

    def _take_inbox(self) -> None:
        """Empty the inbox, waiting only when there is nothing to compute."""
        idle = not self._runs
        while True:
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return
            self._progress = time.monotonic()
            command()
            idle = False

    def _add(self, run: _Run) -> None:
        request_id = run.sequence.request_id
        if self._running.begun(request_id):
            self._runs[request_id] = run
            self._table.add(run.sequence)

    def _cancel(self, request_id: str) -> None:
        run = self._runs.pop(request_id, None)
        if run is not None:
            self._table.remove(run.sequence)
        self._running.end(request_id, "cancelled")

    def _step(self) -> None:
        rows = self._table.plan(self._pace.num_tokens(beside=self._table.decodes))
        began = time.monotonic()
        try:
            self._compute(rows)
        except DecodeFailed as failure:
            self._compute_apart(rows, failure)
        else:
            self._pace.learn(sum(len(row.tokens) for row in rows), time.monotonic() - began)

    def _compute(self, rows: list[Row]) -> None:
        self._model.decode(rows)
        self._table.computed(rows)
        for row, logits in self._model.logits(rows):
            assert row.slot.sequence is not None
            self._advance(self._runs[row.slot.sequence.request_id], logits)

    def _compute_apart(self, rows: list[Row], failure: DecodeFailed) -> None:
        """After a batch that failed: make room, else compute row by row, so that only the one to blame fails."""
        self._table.rewind(rows)
        if failure.no_room and self._table.drop_idle():
            return
        for slot in [row.slot for row in rows]:
            row = self._table.row(slot, _BATCH_TOKENS)
            try:
                self._compute([row])
            except DecodeFailed as own:
                self._table.rewind([row])
                self._fail(row, OutOfMemory.code if own.no_room else EngineError.code, f"llama.cpp: {own}")

    def _advance(self, run: _Run, logits: Any) -> None:
        """Draw a sequence's next token and report it, or its end."""
        sequence = run.sequence
        own = logits.copy() if sequence.sampling.logprobs else None
        token_id = run.sampler.draw(logits, sequence.tokens)
        if token_id in run.stop_token_ids:
            self._finish(sequence, "stop", ())
            return
        sequence.tokens.append(token_id)
        logprobs = () if own is None else _logprobs(own, token_id, sequence.sampling)
        if sequence.is_full:
            self._finish(sequence, "length", (token_id,), logprobs)
        else:
            self._running.tokens(sequence.request_id, (token_id,), logprobs)

    def _finish(
        self, sequence: slots.Sequence, reason: str, token_ids: tuple[int, ...], logprobs: tuple[Logprob, ...] = ()
    ) -> None:
        del self._runs[sequence.request_id]
        self._table.remove(sequence, keep=True)
        self._running.end(sequence.request_id, "finished", reason=reason, token_ids=token_ids, logprobs=logprobs)

    def _fail(self, row: Row, code: str, message: str) -> None:
        sequence = row.slot.sequence
        assert sequence is not None
        logger.warning("request %s failed: %s", sequence.request_id, message)
        del self._runs[sequence.request_id]
        self._table.remove(sequence)
        self._running.end(sequence.request_id, "failed", reason=code, message=message)

    def _recover(self, error: Exception) -> bool:
        """After a failed step: fail all running requests and load the model anew. False if that fails."""
        if self._stopping:
            return False
        logger.exception("llamacpp step failed with %d requests running; reloading the model", len(self._runs))
        self._running.lose_all(error, f"the llamacpp engine failed: {error}")
        try:
            self._close()
            self._open()
        except Exception as second:  # noqa: BLE001 - the engine is dead now, which the watchdog sees
            logger.error("llamacpp cannot reload the model: %s", second)
            self._dead = True
            self._running.end_all("failed", reason=ENGINE_LOST, message=f"the engine is gone: {second}")
            return False
        self._progress = time.monotonic()
        return True

    # ---- loading

    def _open(self) -> None:
        self._model = self._make_model()
        cells = self._num_cells()
        self._table = SlotTable(self._slots, cells, self._model, rewinds=self._model.rewinds, shares=self._model.shares)

    def _close(self) -> None:
        model, self._model = self._model, None
        self._runs.clear()
        if model is not None:
            model.close()

    def _load_model(self) -> "LlamaCppModel":
        # OpenMP's threads wait for each other hundreds of times in a step. By default they spin: on a machine that is
        # busy, with this worker's Redis and web process for example, a step then takes seconds. Read at the loading.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from workers.llamacpp_model import LlamaCppModel, missing_instructions

        assert self._source.gguf_weights is not None, "can_read has looked"
        if missing := missing_instructions(_processor_flags()):
            logger.warning(
                "llama.cpp was built without %s, which this processor has: make llamacpp builds it for this machine",
                ", ".join(missing),
            )
        return LlamaCppModel(
            self._source.gguf_weights,
            num_cells=self._num_cells(),
            num_slots=self._slots,
            batch_tokens=_BATCH_TOKENS,
            threads=_num_cores(),
            alone=self._repeatable,
        )

    def _make_grammars(self) -> "GrammarCompiler | None":
        """None, and a line that says why, for a model without texts: then the engine obeys no grammar."""
        from workers.answer_grammar import GrammarCompiler

        try:
            return GrammarCompiler(load_tokenizer(self._source), self.limits.vocab_size)
        except (ChatServerError, ValueError) as error:  # llguidance raises the second for a tokenizer without texts
            logger.info("No response_format: %s", error)
            return None

    def _num_cells(self) -> int:
        """Tokens in the cache: what fits, and no more than all slots can use."""
        metadata = self._metadata
        useful = self._slots * -(-self._wanted_context() // _CELLS_STEP) * _CELLS_STEP
        per_token = values_per_token(metadata) * _BYTES_PER_VALUE
        fitting = int(self._cache_gib * 2**30) // max(per_token, 1) // _CELLS_STEP * _CELLS_STEP
        return max(_CELLS_STEP, min(useful, fitting))

    @property
    def _metadata(self) -> dict[str, Any]:
        if not self._metadata_read:
            assert self._source.gguf_weights is not None, "can_read has looked"
            self._metadata_read = read_gguf_metadata(self._source.gguf_weights)
        return self._metadata_read

    def _wanted_context(self) -> int:
        longest = int(self._metadata[f"{self._metadata['general.architecture']}.context_length"])
        return min(longest, self._context_tokens or longest)

    def _read_limits(self) -> ModelLimits:
        from workers.token_sampler import SUPPORTS

        cells = self._num_cells()
        wanted = self._wanted_context()
        context = min(wanted, cells // self._slots if self._repeatable else cells)
        notation = LARK if self._grammars else ""
        supports = SUPPORTS | {"grammar"} if self._grammars else SUPPORTS
        vocab_size = len(self._metadata["tokenizer.ggml.tokens"])
        return ModelLimits(vocab_size, context, self._slots, supports, notation, cells, wanted)


class _Pace:
    """How many tokens a step may compute, from how fast the last steps were: few on a slow machine or a large model."""

    def __init__(self) -> None:
        self._tokens_per_s = 64.0  # until the first prompt was computed

    def num_tokens(self, *, beside: bool) -> int:
        """`beside`: answers wait for their next token meanwhile."""
        wanted = self._tokens_per_s * (_STEP_BESIDE_S if beside else _STEP_S)
        return max(_FEWEST_TOKENS, min(int(wanted), _BATCH_TOKENS))

    def learn(self, num_tokens: int, seconds: float) -> None:
        if num_tokens >= _FEWEST_TOKENS:
            self._tokens_per_s += (num_tokens / max(seconds, 1e-3) - self._tokens_per_s) / 2


def values_per_token(metadata: dict[str, Any]) -> int:
    """How many keys and values of one token a model's layers cache."""
    name = metadata["general.architecture"]
    layers, heads = metadata[f"{name}.block_count"], _each(metadata, f"{name}.attention.head_count", 0)
    head_values = metadata[f"{name}.embedding_length"] // max(max(heads), 1)
    widths = [metadata.get(f"{name}.attention.{kind}_length", head_values) for kind in ("key", "value")]
    cached = _each(metadata, f"{name}.attention.head_count_kv", max(heads))
    return int(sum(cached) * (layers if len(cached) == 1 else 1) * sum(widths))


def _each(metadata: dict[str, Any], key: str, otherwise: int) -> list[int]:
    """A number of the whole model, or a list with one for each layer."""
    value = metadata.get(key, otherwise)
    return value if isinstance(value, list) else [value]


def _num_cores() -> int:
    """Physical cores that this process may use: two threads on one core would wait for each other."""
    allowed = os.sched_getaffinity(0)
    siblings = [Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") for number in allowed]
    return len({path.read_text() if path.exists() else path for path in siblings})


def _processor_flags() -> frozenset[str]:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(told.partition(":")[2].split())


def _logprobs(logits: Any, token_id: int, sampling: Sampling) -> tuple[Logprob]:
    from workers.token_logprobs import logprob_of

    return (logprob_of(logits, token_id, sampling.top_logprobs),)


def _nothing() -> None:
    """Wakes the loop."""
