"""Engine adapter over `openvino_genai.ContinuousBatchingPipeline`: the default on CPUs for the models that it reads.

`workers.select_engine` makes it. One thread owns the pipeline: it takes submissions and cancels from an inbox, steps,
and reports. It reads GGUF files of a few families and OpenVINO IR folders; neither needs torch.
"""

import json
import logging
import queue
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError, EngineError, OutOfMemory
from services.grammar.notations import EBNF
from services.machine import files
from services.models.catalogue import ModelSource
from services.models.gguf_metadata import read_gguf_metadata
from workers.engine import ENGINE_LOST, EngineOptions, Logprob, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests
from workers.validation import check_submission

logger = logging.getLogger(__name__)

GGUF_ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
_SUPPORTS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"}
    | {"grammar", "logprobs"}  # of the drawn token only
)
_BLOCK_TOKENS = 32  # of the CPU plugin's cache
_COMPRESSED_BYTES = 1.25  # of a key or value there: 8 bits, and a scale and a zero point for a group of them
_MAX_MIN_P = 0.99999  # it refuses 1, which leaves the likeliest token
_STOP_TIMEOUT_S = 30.0
# Any of the three left out, and a greedy answer depends on what else runs: activations are rounded by the batch (on
# processors with VNNI) or to bfloat16 (with AMX), and a key that is read back from a cache of 8 bits is not the one
# that a prefill had computed.
_REPEATABLE = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a model that decide its cache and its limits."""

    vocab_size: int
    context_tokens: int
    cache_values_per_token: int


@dataclass
class _Run:
    request_id: str
    handle: Any
    stop_token_ids: frozenset[int]
    logprobs: bool


class OpenVinoEngine:
    """See `workers.engine.Engine`."""

    name = "openvino"

    def __init__(
        self,
        source: ModelSource,
        options: EngineOptions,
        *,
        make_pipeline: Callable[[], Any] | None = None,
    ) -> None:
        """`dtype` is not used.

        `state_dir` takes a copy of a GGUF that we may only read; without it, such a file cannot be served.
        `repeatable`: compute and cache in fp32, so that a greedy answer does not depend on what runs beside it.
        """
        self._source = source
        self._state_dir = options.state_dir
        self._slots = options.slots
        self._context_tokens = options.context_tokens
        self._cache_gib = options.cache_gib
        self._properties: dict[str, Any] = _REPEATABLE if options.repeatable else {}
        self._bytes_per_value = 4 if options.repeatable else _COMPRESSED_BYTES
        self._make_pipeline = make_pipeline or self._load_pipeline
        self._running = RunningRequests()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._runs: dict[str, _Run] = {}
        self._serial = 0
        self._pipeline: Any = None
        self._limits: ModelLimits | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._dead = False
        self._progress = time.monotonic()
        self.description = f"openvino on the CPU, {source.name}, not started"

    @staticmethod
    def can_read(source: ModelSource) -> tuple[bool, str]:
        if source.base is not None:  # over a GGUF the library answers as the bare model would, and only warns
            return False, f"an adapter on {source.base.name}, and openvino does not put adapters on models"
        if (weights := source.gguf_weights) is not None:
            architecture = read_gguf_metadata(weights)["general.architecture"]
            readable = architecture in GGUF_ARCHITECTURES
            verb = "reads" if readable else "cannot read"
            exported = f" ({source.exported.precision}, exported from it)" if source.exported else ""
            return readable, f"a GGUF of architecture {architecture}{exported}, which openvino {verb}"
        if source.path is not None and (source.path / "openvino_model.xml").exists():
            return True, "a folder with an OpenVINO IR"
        why = f" ({source.exported.refused})" if source.exported else ""
        return False, f"neither a GGUF nor an OpenVINO IR folder, which is what openvino reads{why}"

    @property
    def limits(self) -> ModelLimits:
        if self._limits is None:
            self._limits = self._read_limits()
        return self._limits

    def start(self) -> None:
        limits = self.limits
        try:
            self._pipeline = self._make_pipeline()
        except (RuntimeError, ValueError, ImportError) as error:
            raise ConfigurationError(f"openvino cannot load {self._source.path}: {error}") from None
        self.description = (
            f"openvino on the CPU, {self._source.name}, weights as stored, cache {limits.cache_tokens} tokens,"
            f" {self._slots} slots, context {limits.context_tokens}{', repeatable' if self._properties else ''}"
        )
        self._stopping = self._dead = False
        self._progress = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="openvino-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._inbox.put(_nothing)
            thread.join(_STOP_TIMEOUT_S)
        self._runs.clear()
        self._pipeline = None
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        if not self.alive():
            raise EngineError("the openvino engine is not running; start it first")
        self._running.add(request_id, on_event)
        prompt = list(prompt_token_ids)
        self._inbox.put(lambda: self._add(request_id, prompt, sampling))
        if not self.alive() and self._running.discard(request_id):  # it died since, and nobody reads the inbox
            raise EngineError("the openvino engine stopped while this request was submitted")

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
                self._turn()
            except Exception as error:  # noqa: BLE001 - the named loop boundary
                if not self._recover(error):
                    return

    def _turn(self) -> None:
        """Empty the inbox, waiting only when there is nothing to compute; then make one step."""
        self._take_inbox()
        if not self._stopping and self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            self._progress = time.monotonic()
            for run in list(self._runs.values()):
                self._report(run)

    def _take_inbox(self) -> None:
        idle = not self._runs and not self._pipeline.has_non_finished_requests()
        while True:
            try:
                command = self._inbox.get(block=idle)
            except queue.Empty:
                return
            self._progress = time.monotonic()
            command()
            idle = False

    def _add(self, request_id: str, prompt: list[int], sampling: Sampling) -> None:
        import numpy as np
        import openvino as ov  # type: ignore[import-untyped]

        if not self._running.begun(request_id):
            return
        self._serial += 1
        if sampling.num_answered and (sampling.presence_penalty or sampling.frequency_penalty):
            logger.info("request %s: openvino counts its penalties from here on, not the answer before", request_id)
        try:
            tensor = ov.Tensor(np.array([prompt], dtype=np.int64))
            handle = self._pipeline.add_request(self._serial, tensor, self._generation_config(sampling))
        except (RuntimeError, ValueError, TypeError) as error:
            logger.warning("request %s refused by openvino: %s", request_id, error)
            self._running.end(request_id, "failed", reason=EngineError.code, message=str(error))
            return
        self._runs[request_id] = _Run(request_id, handle, frozenset(sampling.stop_token_ids), sampling.logprobs)

    def _cancel(self, request_id: str) -> None:
        run = self._runs.pop(request_id, None)
        if run is not None:
            run.handle.cancel()
        self._running.end(request_id, "cancelled")

    def _report(self, run: _Run) -> None:
        token_ids: list[int] = []
        logprobs: list[Logprob] = []
        while run.handle.can_read():
            for output in run.handle.read().values():
                token_ids += output.generated_ids
                if run.logprobs:
                    logprobs += ((logprob, ()) for logprob in output.generated_log_probs)
        status = run.handle.get_status().name
        if status == "RUNNING":
            self._running.tokens(run.request_id, token_ids, logprobs)
            return
        del self._runs[run.request_id]
        if status == "FINISHED":
            stopped = bool(token_ids) and token_ids[-1] in run.stop_token_ids
            num_kept = len(token_ids) - stopped
            self._running.end(
                run.request_id,
                "finished",
                reason="stop" if stopped else "length",
                token_ids=token_ids[:num_kept],
                logprobs=logprobs[:num_kept],
            )
            return
        message = f"openvino gave the request up with status {status}: its cache of {self._cache_gib:g} GiB is full"
        self._running.end(
            run.request_id,
            "failed",
            reason=OutOfMemory.code,
            message=message,
            token_ids=token_ids,
            logprobs=logprobs,
        )

    def _recover(self, error: Exception) -> bool:
        """After a failed step: fail all running requests and make a new pipeline. False if that fails."""
        if self._stopping:
            return False
        logger.exception("openvino step failed with %d requests running; reloading the model", len(self._runs))
        self._runs.clear()
        self._running.lose_all(error, f"the openvino engine failed: {error}")
        self._pipeline = None
        try:
            self._pipeline = self._make_pipeline()
        except Exception as second:  # noqa: BLE001 - the engine is dead now, which the watchdog sees
            logger.error("openvino cannot reload the model: %s", second)
            self._dead = True
            self._running.end_all("failed", reason=ENGINE_LOST, message=f"the engine is gone: {second}")
            return False
        self._progress = time.monotonic()
        return True

    # ---- loading

    def _load_pipeline(self) -> Any:
        import openvino_genai  # type: ignore[import-untyped]

        weights, config = str(self._writable_weights()), self._scheduler_config()
        return openvino_genai.ContinuousBatchingPipeline(weights, config, "CPU", self._properties)

    def _scheduler_config(self) -> Any:
        import openvino_genai

        config = openvino_genai.SchedulerConfig()
        config.num_kv_blocks = self.limits.cache_tokens // _BLOCK_TOKENS
        config.max_num_seqs = self._slots
        config.enable_prefix_caching = True
        config.dynamic_split_fuse = True
        return config

    def _writable_weights(self) -> Path | None:
        """The weights; a copy of a read-only GGUF, because OpenVINO opens it for writing, though it writes nothing."""
        file = self._source.gguf_weights
        if file is None or self._state_dir is None or _may_write(file):
            return file or self._source.path
        stat = file.stat()
        copy = self._state_dir / "copied" / f"{file.stem}-{stat.st_size}-{int(stat.st_mtime)}.gguf"
        if not copy.exists():
            logger.info("%s is read-only, which openvino cannot read: copying it to %s", file, copy)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with files.draft(copy.parent, ".unfinished-") as unfinished:
                shutil.copyfile(file, unfinished / copy.name)
                files.sync(unfinished / copy.name)
                (unfinished / copy.name).replace(copy)
            for other in copy.parent.glob("*.gguf"):  # of what this file was before
                if other != copy and re.fullmatch(re.escape(file.stem) + r"-\d+-\d+", other.stem):
                    other.unlink(missing_ok=True)
        return copy

    def _generation_config(self, sampling: Sampling) -> Any:
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.apply_chat_template = False
        config.max_new_tokens = sampling.max_new_tokens
        config.stop_token_ids = set(sampling.stop_token_ids)
        config.ignore_eos = not sampling.stop_token_ids
        config.repetition_penalty = sampling.repetition_penalty
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        config.logprobs = int(sampling.logprobs)
        if sampling.grammar:
            config.structured_output_config = openvino_genai.StructuredOutputConfig(grammar=sampling.grammar)
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.min_p = min(sampling.min_p, _MAX_MIN_P)
            config.rng_seed = random.getrandbits(32) if sampling.seed is None else sampling.seed
            if sampling.top_k:
                config.top_k = sampling.top_k
        return config

    def _read_limits(self) -> ModelLimits:
        assert self._source.path is not None, "openvino serves local files only"
        shape = shape_of(self._source.gguf_weights or self._source.path)
        num_blocks = int(
            self._cache_gib * 2**30 / (shape.cache_values_per_token * self._bytes_per_value * _BLOCK_TOKENS)
        )
        cache_tokens = max(1, num_blocks) * _BLOCK_TOKENS
        wanted = min(shape.context_tokens, self._context_tokens or shape.context_tokens)
        context = min(wanted, cache_tokens)
        return ModelLimits(shape.vocab_size, context, self._slots, _SUPPORTS, EBNF, cache_tokens, wanted)


def shape_of(path: Path) -> ModelShape:
    """Vocabulary, context and cache size of a GGUF file or of a folder with config.json."""
    if path.is_dir():
        return _shape_from_config(json.loads((path / "config.json").read_text()))
    data = read_gguf_metadata(path)
    name = data["general.architecture"]
    heads = data[f"{name}.attention.head_count"]
    head_values = data.get(f"{name}.attention.key_length", data[f"{name}.embedding_length"] // heads)
    cached = data[f"{name}.block_count"] * data.get(f"{name}.attention.head_count_kv", heads) * head_values
    return ModelShape(len(data["tokenizer.ggml.tokens"]), data[f"{name}.context_length"], cached * 2)


def _shape_from_config(config: dict[str, Any]) -> ModelShape:
    heads = config["num_attention_heads"]
    head_values = config.get("head_dim") or config["hidden_size"] // heads
    cached = config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head_values
    return ModelShape(config["vocab_size"], config["max_position_embeddings"], cached * 2)


def _may_write(file: Path) -> bool:
    """Whether the kernel lets this process write: a file system that is mounted read-only refuses root, too."""
    try:
        with file.open("r+b"):
            return True
    except OSError:
        return False


def _nothing() -> None:
    """Wakes the loop."""
