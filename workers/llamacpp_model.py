"""A model in llama.cpp: its weights, its cache of keys and values, one batch at a time. `llamacpp_engine` owns it.

Over the C interface that `llama-cpp-python` binds. A call releases the interpreter lock. Only the engine's thread may
call; importing this module loads the library.
"""

import ctypes
import logging
from collections import deque
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from services.errors import ConfigurationError
from workers.slots import DecodeFailed, Row

logger = logging.getLogger(__name__)

_NO_ROOM = {1: "no cells of the cache are free", -2: "no memory for what it computes"}  # of llama_decode's codes
_WARN, _ERROR = 3, 4  # levels of ggml.h
_CPU_ONLY = 0  # layers on a GPU
# What the build tells of itself, and the flag of a processor that has it.
_INSTRUCTIONS = {
    "AVX": "avx",
    "AVX2": "avx2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "DOTPROD": "asimddp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}


class LlamaCppModel:
    """Made loaded. `workers.slots.Cache` is its cache: a slot's number is a sequence of llama.cpp's."""

    def __init__(self, path: Path, *, num_cells: int, num_slots: int, batch_tokens: int, threads: int, alone: bool):
        """`alone`: compute each token by itself, each slot in cells of its own, so that no batch changes a rounding.

        Raises ConfigurationError, with the library's words.
        """
        self._log = _Log()
        llama_cpp.llama_log_set(self._log.callback, None)
        llama_cpp.llama_backend_init()
        self._model = self._load(path)
        try:
            self._context = self._make_context(num_cells, num_slots, batch_tokens, threads, alone)
        except ConfigurationError:
            llama_cpp.llama_model_free(self._model)
            raise
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(batch_tokens, 0, 1)
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))
        stateful = (llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid)
        self.rewinds = not any(is_such(self._model) for is_such in stateful)  # a state has no earlier states in it
        self.shares = self.rewinds and not alone

    def decode(self, rows: Sequence[Row]) -> None:
        """Compute a batch. Raises DecodeFailed."""
        batch, at = self._batch, 0
        for row in rows:
            for position, token_id in enumerate(row.tokens, row.begin):
                batch.token[at] = token_id
                batch.pos[at] = position
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = row.slot.index
                batch.logits[at] = 0
                at += 1
            batch.logits[at - 1] = row.asked
        batch.n_tokens = at
        code = llama_cpp.llama_decode(self._context, batch)
        if code:
            reason = _NO_ROOM.get(code, f"llama_decode returned {code}: {self._log.errors()}")
            raise DecodeFailed(reason, no_room=code in _NO_ROOM)

    def logits(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Any]]:
        """Of the rows of the last batch that asked: float32, one for each id, valid until the next batch."""
        at = -1
        for row in rows:
            at += len(row.tokens)
            if row.asked:
                pointer = llama_cpp.llama_get_logits_ith(self._context, at)
                yield row, np.ctypeslib.as_array(pointer, (self.vocab_size,))

    def forget(self, slot: int, begin: int) -> None:
        if not llama_cpp.llama_memory_seq_rm(self._memory, slot, begin, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def share(self, source: int, target: int, end: int) -> None:
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def _load(self, path: Path) -> Any:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = _CPU_ONLY
        model = llama_cpp.llama_model_load_from_file(bytes(path), params)
        if not model:
            raise ConfigurationError(f"llama.cpp cannot load {path}: {self._log.errors()}; use transformers")
        if llama_cpp.llama_model_has_encoder(model) or not llama_cpp.llama_model_has_decoder(model):
            llama_cpp.llama_model_free(model)
            raise ConfigurationError(f"{path} is no causal language model, which is what llama.cpp serves here")
        return model

    def _make_context(self, num_cells: int, num_slots: int, batch_tokens: int, threads: int, alone: bool) -> Any:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = num_cells
        params.n_seq_max = num_slots
        params.n_batch = batch_tokens
        params.n_ubatch = 1 if alone else batch_tokens
        params.n_outputs_max = num_slots
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = not alone
        context = llama_cpp.llama_init_from_model(self._model, params)
        if not context:
            raise ConfigurationError(
                f"llama.cpp cannot make a cache of {num_cells} tokens: {self._log.errors()}; lower"
                " CHATSERVER_CACHE_GIB or CHATSERVER_SLOTS"
            )
        return context


def missing_instructions(flags: Set[str]) -> list[str]:
    """The instruction sets that a processor of these flags has and the installed build does not use."""
    told = llama_cpp.llama_print_system_info().decode()  # `CPU : SSE3 = 1 | AVX2 = 1 | …`
    built = {part.split()[-3] for part in told.split("|") if part.split()[-2:] == ["=", "1"]}
    return [name for name, flag in _INSTRUCTIONS.items() if flag in flags and name not in built]


class _Log:
    """llama.cpp's warnings and errors, in our log. It warns of much that harms nothing: what matters is raised."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=5)
        self.callback = llama_cpp.llama_log_callback(self._take)

    def errors(self) -> str:
        """The errors since the last call, as the end of a sentence."""
        errors = "; ".join(self._errors)
        self._errors.clear()
        return errors or "it does not say why"

    def _take(self, level: int, text: bytes, _: ctypes.c_void_p) -> None:
        line = text.decode("utf-8", "replace").strip()
        if level == _ERROR:
            self._errors.append(line)
        if level in (_WARN, _ERROR) and line:
            logger.info("llama.cpp: %s", line)
