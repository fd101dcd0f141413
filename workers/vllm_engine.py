"""Engine adapter over vLLM's `AsyncLLM`: checkpoints of the Hugging Face kind on hosts with several GPUs.

`workers.select_engine` makes it. One thread runs the event loop in which `AsyncLLM` lives; each request is a task
there. vLLM computes in processes of its own, schedules, and shares the beginnings of prompts by itself. Its pins are
not ours, so a worker that uses it runs in an environment of its own: `make vllm`. Written for vLLM 0.32.
"""

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from services.errors import ChatServerError, ConfigurationError, EngineError, InvalidRequest, OutOfMemory
from services.grammar.notations import LARK
from services.models.catalogue import ModelSource
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import MAX_TOP_LOGPROBS
from workers.engine import ENGINE_LOST, EngineOptions, Logprob, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests
from workers.validation import check_submission

if TYPE_CHECKING:  # loaded when the engine starts
    from workers.answer_grammar import GrammarCompiler

logger = logging.getLogger(__name__)

_SUPPORTS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"}
    | {"logit_bias", "logprobs", "top_logprobs"}
)
_DTYPES = {"auto": "auto", "fp32": "float32", "bf16": "bfloat16"}
_FIT = -1  # vLLM takes the longest context that fits its cache
_HOTTEST = 2.0  # vLLM refuses more, after it took the request
_LEAST_LOGPROB = -9999.0  # of a token that cannot come: JSON has no minus infinity
_STOP_TIMEOUT_S = 30.0
# Read when vLLM is imported. It would report its use to its makers, its log has a format of its own, and a process that
# it forks would keep our socket to the worker open.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


class VllmEngine:
    """See `workers.engine.Engine`."""

    name = "vllm"

    def __init__(
        self,
        source: ModelSource,
        options: EngineOptions,
        *,
        make_llm: Callable[[], Awaitable[Any]] | None = None,
    ) -> None:
        """`cache_gib` counts on a CPU; on GPUs vLLM takes what they have left. `state_dir` is not used.

        `tensor_parallel`: over how many GPUs each layer is spread; 0: over all that the process sees.
        `repeatable`: compute in fp32, on a CPU alone.
        """
        if options.repeatable and options.dtype == "bf16":
            raise ConfigurationError(
                "answers in bf16 are not repeatable: unset CHATSERVER_DTYPE or CHATSERVER_REPEATABLE"
            )
        self._source = source
        self._options = options
        self._dtype = "fp32" if options.repeatable else options.dtype
        self._make_llm = make_llm or self._load_llm
        self._running = RunningRequests()
        self._serials = itertools.count()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._llm: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._limits: ModelLimits | None = None
        self._grammars: GrammarCompiler | None = None
        self._last_token_ids: tuple[int, ...] = ()  # of which one ends what a grammar has completed
        self._stopping = False
        self._dead = False
        self._progress = time.monotonic()
        self.description = f"vllm, {source.name}, not started"

    @staticmethod
    def can_read(source: ModelSource) -> tuple[bool, str]:
        if source.base is not None:
            return False, f"an adapter on {source.base.name}, and vllm does not put adapters on models here"
        if source.gguf is not None:
            return False, "a GGUF, and vllm reads checkpoints"
        if source.path is not None and (source.path / "openvino_model.xml").exists():
            return False, "a folder with an OpenVINO IR, and vllm reads checkpoints"
        return True, "what vllm loads or refuses"

    @property
    def limits(self) -> ModelLimits:
        """The limits, once the engine has started: vLLM decides the size of the cache."""
        if self._limits is None:
            raise EngineError("the vllm engine is not started; its limits are unknown until then")
        return self._limits

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm-engine", daemon=True)
        self._thread.start()
        try:
            self._llm = asyncio.run_coroutine_threadsafe(_awaited(self._make_llm), self._loop).result()
        except (ChatServerError, ImportError, OSError, ValueError, RuntimeError) as error:
            self._end_loop()
            raise self._refusal(error) from None
        self._grammars = self._make_grammars()
        self._limits = self._read_limits()
        self.description = self._describe()
        self._stopping = self._dead = False
        self._progress = time.monotonic()

    def stop(self) -> None:
        if self._loop is not None and self._llm is not None:
            self._stopping = True
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
            self._end_loop()
            self._llm = None
        self._running.end_all("cancelled", message="the engine was stopped")

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        if not self.alive():
            raise EngineError("the vllm engine is not running; start it first")
        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        if sampling.temperature > _HOTTEST:
            raise InvalidRequest(
                f"sampling.temperature={sampling.temperature!r}: engine vllm draws at {_HOTTEST:g} at most"
            )
        prompt = list(prompt_token_ids)
        if sampling.grammar and self._grammars:
            self._grammars.compile(sampling.grammar, len(prompt))  # vLLM compiles it too, but fails the request late
        self._running.add(request_id, on_event)
        if not self._call(lambda: self._begin(request_id, prompt, sampling)) and self._running.discard(request_id):
            raise EngineError("the vllm engine stopped while this request was submitted")

    def cancel(self, request_id: str) -> None:
        if request_id in self._running:
            self._call(lambda: self._cancel(request_id))

    def progress(self) -> float:
        return self._progress

    def alive(self) -> bool:
        llm = self._llm
        return llm is not None and not self._stopping and not self._dead and not llm.errored

    def _refusal(self, error: Exception) -> ChatServerError:
        if isinstance(error, ChatServerError):
            return error
        if isinstance(error, ImportError):
            return ConfigurationError(f"vllm cannot be loaded: {error}; make vllm installs it")
        return ConfigurationError(f"vllm cannot load {self._source.location!r}: {error}")

    def _call(self, function: Callable[[], None]) -> bool:
        """Have the loop's thread call a function. False if the engine is stopping."""
        loop = self._loop
        if loop is None or self._stopping:
            return False
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    # ---- the loop's thread

    def _begin(self, request_id: str, prompt: list[int], sampling: Sampling) -> None:
        if request_id in self._running and not self._stopping:
            task = asyncio.get_running_loop().create_task(self._answer(request_id, prompt, sampling))
            self._tasks[request_id] = task

    def _cancel(self, request_id: str) -> None:
        """vLLM drops the sequence when its generator is cancelled; no event of this run can follow."""
        task = self._tasks.pop(request_id, None)
        if task is not None:
            task.cancel()
        self._running.end(request_id, "cancelled")

    async def _answer(self, request_id: str, prompt: list[int], sampling: Sampling) -> None:
        """Report one request to its end. Only here any failure of vLLM is caught."""
        key = f"{request_id}#{next(self._serials)}"  # vLLM may still know the last run of this id
        try:
            async for output in self._llm.generate({"prompt_token_ids": prompt}, self._params(sampling), key):
                self._report(request_id, output.outputs[0], sampling)
        except Exception as error:  # noqa: BLE001 - the named loop boundary
            self._fail(request_id, error.__cause__ or error)
        if self._tasks.get(request_id) is asyncio.current_task():
            del self._tasks[request_id]

    def _stepped(self, num_preempted: int) -> None:
        self._progress = time.monotonic()
        if num_preempted:
            logger.info("vllm's cache is full: it will compute %d answers anew later", num_preempted)

    def _report(self, request_id: str, new: Any, sampling: Sampling) -> None:
        self._progress = time.monotonic()
        token_ids = list(new.token_ids)
        reason = new.finish_reason
        if reason == "stop":  # vLLM reports the token that ends an answer
            del token_ids[-1]
        logprobs = _logprobs(token_ids, new.logprobs, sampling) if sampling.logprobs else []
        if reason is None:
            self._running.tokens(request_id, token_ids, logprobs)
        elif reason in ("stop", "length"):
            self._running.end(request_id, "finished", reason=reason, token_ids=token_ids, logprobs=logprobs)
        else:
            self._running.end(
                request_id,
                "failed",
                reason=EngineError.code,
                message=f"vllm ended this request with {reason!r}; its log says why",
                token_ids=token_ids,
                logprobs=logprobs,
            )

    def _fail(self, request_id: str, error: BaseException) -> None:
        """One request, or all when vLLM's loop has ended: it never comes back."""
        if not self._llm.errored:
            logger.warning("request %s failed: %s", request_id, error)
            self._running.end(request_id, "failed", reason=EngineError.code, message=f"vllm: {error}")
        elif not self._dead:
            self._dead = True
            logger.error("vllm has ended with %d requests running: %s", len(self._running), error)
            self._running.end_all("failed", reason=_code_of(error), message=f"the vllm engine failed: {error}")

    async def _close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_TIMEOUT_S)
        self._llm.shutdown()

    def _params(self, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        grammar = StructuredOutputsParams(grammar=sampling.grammar) if sampling.grammar else None
        return SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            seed=sampling.seed,
            logit_bias=dict(sampling.logit_bias) or None,
            logprobs=sampling.top_logprobs if sampling.logprobs else None,
            structured_outputs=grammar,
            stop_token_ids=[*sampling.stop_token_ids, *(self._last_token_ids if grammar else ())],
            ignore_eos=True,  # what ends an answer stands in stop_token_ids
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )

    # ---- loading

    async def _load_llm(self) -> Any:
        """In the loop, to which AsyncLLM binds itself. Nothing else runs there yet, so it may take its time."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import torch
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        num_gpus = torch.cuda.device_count()
        if num_gpus and self._options.repeatable:
            raise ConfigurationError(
                "engine vllm is repeatable on a CPU alone: unset CHATSERVER_REPEATABLE, or use transformers"
            )
        device: dict[str, Any] = {} if num_gpus else {"kv_cache_memory_bytes": int(self._options.cache_gib * 2**30)}
        arguments = AsyncEngineArgs(
            model=self._source.location,
            dtype=_DTYPES[self._dtype],
            max_model_len=_FIT,
            max_num_seqs=self._options.slots,
            max_logprobs=MAX_TOP_LOGPROBS,
            tensor_parallel_size=self._options.tensor_parallel or num_gpus or 1,
            enable_prefix_caching=True,
            enforce_eager=not num_gpus,  # compiling for a CPU takes minutes
            skip_tokenizer_init=not self._has_texts(),
            structured_outputs_config={"backend": "guidance"},  # llguidance, which reads our notation
            generation_config="vllm",  # the worker reads the model's own
            disable_log_stats=True,
            **device,
        )
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[lambda config, index: _Steps(self._stepped)])

    def _has_texts(self) -> bool:
        try:
            load_tokenizer(self._source)
        except ChatServerError as error:
            logger.info("No response_format: %s", error)
            return False
        return True

    def _make_grammars(self) -> "GrammarCompiler | None":
        model = self._llm.vllm_config.model_config
        if model.skip_tokenizer_init:
            return None
        from workers.answer_grammar import GrammarCompiler

        try:
            compiler = GrammarCompiler(load_tokenizer(self._source), model.get_vocab_size())
        except ValueError as error:  # llguidance, for a tokenizer without texts
            logger.info("No response_format: %s", error)
            return None
        self._last_token_ids = (self._llm.get_tokenizer().eos_token_id,)
        return compiler

    def _read_limits(self) -> ModelLimits:
        model = self._llm.vllm_config.model_config
        context = min(model.max_model_len, self._options.context_tokens or model.max_model_len)
        supports = _SUPPORTS | ({"grammar"} if self._grammars else set())
        notation = LARK if self._grammars else ""
        return ModelLimits(model.get_vocab_size(), context, self._options.slots, supports, notation)

    def _describe(self) -> str:
        config, limits = self._llm.vllm_config, self.limits
        cache, num_gpus = config.cache_config, config.parallel_config.tensor_parallel_size
        return (
            f"vllm on {config.device_config.device_type}, {self._source.name}, {config.model_config.dtype},"
            f" spread over {num_gpus}, cache {cache.num_gpu_blocks * cache.block_size} tokens in blocks of"
            f" {cache.block_size}, {limits.max_running} slots, context {limits.context_tokens}"
        )

    def _end_loop(self) -> None:
        loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_TIMEOUT_S)
        if not thread.is_alive():
            loop.close()


class _Steps:
    """What vLLM calls after each step, prefills included; see its `StatLoggerBase`."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self._on_step = on_step

    def record(self, scheduler_stats: Any, iteration_stats: Any, **others: Any) -> None:
        self._on_step(iteration_stats.num_preempted_reqs if iteration_stats else 0)

    def log_engine_initialized(self) -> None: ...
    def log(self) -> None: ...


async def _awaited(make: Callable[[], Awaitable[Any]]) -> Any:
    return await make()


def _logprobs(token_ids: list[int], rows: Any, sampling: Sampling) -> list[Logprob]:
    """vLLM gives the likeliest tokens of a place, and the drawn one if it is none of them, by their ids."""
    found = []
    for token_id, row in zip(token_ids, rows, strict=False):  # a row more, where the last token ended the answer
        ranked = sorted(row.items(), key=lambda pair: pair[1].rank)[: sampling.top_logprobs]
        likeliest = tuple((each, _bounded(its.logprob)) for each, its in ranked)
        found.append((_bounded(row[token_id].logprob), likeliest))
    return found


def _bounded(logprob: float) -> float:
    return max(float(logprob), _LEAST_LOGPROB)


def _code_of(error: BaseException) -> str:
    return OutOfMemory.code if "out of memory" in str(error).lower() else ENGINE_LOST
