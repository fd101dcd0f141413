"""Engine adapter over `transformers` continuous batching: any Hugging Face causal LM, GPUs first, CPUs as a fallback.

`workers.select_engine` makes it. The library's manager runs its own thread. A reader thread here takes the outputs,
which hold all tokens so far, and reports the new ones. It is written for transformers 5.24.
"""

import gc
import itertools
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.errors import ChatServerError, ConfigurationError, EngineError, OutOfMemory
from services.grammar.notations import LARK
from services.machine import files
from services.models.attention import plain_attention
from services.models.catalogue import ModelSource
from services.tokens.tokenization import load_tokenizer
from workers.adapters import merged
from workers.engine import EngineOptions, Logprob, ModelLimits, OnEvent, Sampling
from workers.running import RunningRequests, is_out_of_memory
from workers.validation import check_submission

if TYPE_CHECKING:
    from workers.logits_processors import OwnLogits

logger = logging.getLogger(__name__)

_SUPPORTS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "num_answered",
    }
)
_ON_HOST = frozenset({"logprobs", "top_logprobs"})  # where the host sees each step's logits before the next one
_CPU_BLOCK_TOKENS = 32  # small blocks share short prompts; the default of 256 is for GPUs
_CPU_BATCH_TOKENS = 512  # the attention mask is allocated at this x (cache + this)
_POLL_S = 0.1
_STOP_TIMEOUT_S = 30.0


@dataclass
class _Run:
    request_id: str
    stop_token_ids: frozenset[int]
    num_reported: int = 0
    logits: "OwnLogits | None" = None  # of the tokens that are not reported yet, where they are asked for
    top_logprobs: int = 0

    def logprobs(self, token_ids: Sequence[int]) -> list[Logprob]:
        """Of the tokens to report next."""
        if self.logits is None:
            return []
        from workers.token_logprobs import logprob_of

        rows = [self.logits.take(self.num_reported + at) for at in range(len(token_ids))]
        return [logprob_of(row, token_id, self.top_logprobs) for row, token_id in zip(rows, token_ids, strict=True)]


@dataclass(frozen=True)
class _Cancellation:
    key: str


class TransformersEngine:
    """See `workers.engine.Engine`."""

    name = "transformers"

    def __init__(self, source: ModelSource, options: EngineOptions) -> None:
        """`dtype` is auto, fp32 or bf16. `state_dir` keeps the converted copy of a GGUF; without it, none is kept.

        `repeatable`: compute in fp32, so that a greedy answer does not depend on what runs beside it.
        """
        if options.dtype not in ("auto", "fp32", "bf16"):
            raise ConfigurationError(f"dtype {options.dtype!r} is not auto, fp32 or bf16")
        if options.repeatable and options.dtype == "bf16":
            raise ConfigurationError(
                "answers in bf16 are not repeatable: unset CHATSERVER_DTYPE or CHATSERVER_REPEATABLE"
            )
        self._source = source
        self._slots = options.slots
        self._context_tokens = options.context_tokens
        self._cache_gib = options.cache_gib
        self._state_dir = options.state_dir
        self._dtype = "fp32" if options.repeatable else options.dtype
        self._running = RunningRequests()
        self._runs: dict[str, _Run] = {}
        self._serials = itertools.count()
        self._model: Any = None
        self._manager: Any = None
        self._reader: threading.Thread | None = None
        self._limits: ModelLimits | None = None
        self._grammars: Any = None  # compiles grammars; None: the engine obeys none
        self._dead = False
        self._stopping = False
        self._steps = 0
        self._progress = time.monotonic()
        self.description = f"transformers, {source.name}, not started"

    @staticmethod
    def can_read(source: ModelSource) -> tuple[bool, str]:
        return True, "what transformers loads or refuses"

    @property
    def limits(self) -> ModelLimits:
        """The limits, once the engine has started: the library decides the size of the cache."""
        if self._limits is None:
            raise EngineError("the transformers engine is not started; its limits are unknown until then")
        return self._limits

    def start(self) -> None:
        try:
            self._model = self._load_model()
            self._manager = self._make_manager()
            self._manager.warmup()  # allocates the cache here, where a failure can be told
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            self._model = self._manager = None
            raise ConfigurationError(f"transformers cannot load {self._source.location!r}: {error}") from None
        self._grammars = self._make_grammars()
        self._limits = self._read_limits()
        self._stopping = self._dead = False
        self._progress = time.monotonic()
        self._manager.start()
        self._reader = threading.Thread(target=self._read, name="transformers-reader", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        reader, self._reader = self._reader, None
        manager, self._manager = self._manager, None
        if manager is None:
            return
        self._stopping = True
        if reader is not None:
            manager.output_router.output_queue.put(None)
            reader.join(_STOP_TIMEOUT_S)
        self._runs.clear()
        self._running.end_all("cancelled", message="the engine was stopped")
        manager.stop(block=True, timeout=_STOP_TIMEOUT_S, hard_stop=True)
        self._model = None
        gc.collect()

    def submit(self, request_id: str, prompt_token_ids: Sequence[int], sampling: Sampling, on_event: OnEvent) -> None:
        if not self.alive():
            raise EngineError("the transformers engine is not running; start it first")
        from workers.logits_processors import OwnLogits

        check_submission(prompt_token_ids, sampling, self.limits, engine=self.name)
        grammar = self._grammars.compile(sampling.grammar, len(prompt_token_ids)) if sampling.grammar else None
        self._running.add(request_id, on_event)
        self._running.begun(request_id)  # the library does not say when: it looks for new ones before each step
        key = f"{request_id}#{next(self._serials)}"  # a second run of the same id must not see outputs of the first
        own = OwnLogits(len(prompt_token_ids)) if sampling.logprobs else None
        self._runs[key] = _Run(
            request_id, frozenset(sampling.stop_token_ids), logits=own, top_logprobs=sampling.top_logprobs
        )
        if not self._add(key, prompt_token_ids, sampling, grammar, own):
            self._runs.pop(key, None)
            self._running.discard(request_id)
            raise EngineError("the transformers engine takes no more requests: it is stopping or has failed")

    def cancel(self, request_id: str) -> None:
        manager = self._manager
        key = next((key for key, run in list(self._runs.items()) if run.request_id == request_id), None)
        if manager is not None and key is not None:
            manager.cancel_request(key)
            manager.output_router.output_queue.put(_Cancellation(key))  # the library delivers nothing for it

    def progress(self) -> float:
        steps = getattr(self._manager, "current_batch", 0)
        if steps != self._steps:
            self._steps = steps
            self._progress = time.monotonic()
        return self._progress

    def alive(self) -> bool:
        manager = self._manager
        if manager is None or self._dead or self._stopping:
            return False
        return manager.background_thread_status.fatal_error is None and bool(manager.is_running())

    def _add(self, key: str, prompt: Sequence[int], sampling: Sampling, grammar: Any, own: Any) -> bool:
        from workers.logits_processors import Adjustment

        greedy = sampling.temperature == 0
        adjustment = Adjustment.of(sampling, len(prompt))
        added = self._manager.add_request(
            list(prompt),
            request_id=key,
            max_new_tokens=sampling.max_new_tokens,
            streaming=True,
            eos_token_id=list(sampling.stop_token_ids) or [-1],
            temperature=1.0 if greedy else sampling.temperature,
            top_k=1 if greedy else sampling.top_k or self.limits.vocab_size,
            top_p=1.0 if greedy else sampling.top_p,
            min_p=0.0 if greedy else sampling.min_p,
            **({"adjustment": adjustment} if adjustment else {}),
            **({"grammar": grammar} if grammar else {}),
            **({"own_logits": own} if own else {}),
        )
        return added is not None

    # ---- the reader's thread

    def _read(self) -> None:
        """Runs until stopped or until the library's loop dies; then all running requests fail."""
        manager = self._manager
        outputs = manager.output_router.output_queue
        while not self._stopping:
            try:
                output = outputs.get(timeout=_POLL_S)
            except queue.Empty:
                if manager.background_thread_status.fatal_error is not None or not manager.is_running():
                    self._fail_all(manager.background_thread_status.fatal_error)
                    return
                continue
            if isinstance(output, _Cancellation):
                self._end_cancelled(output.key)
            elif output is not None:
                self._report(output)

    def _report(self, output: Any) -> None:
        run = self._runs.get(output.request_id)
        if run is None:  # cancelled before
            return
        new = output.generated_tokens[run.num_reported :]
        logprobs = run.logprobs(new)
        run.num_reported += len(new)
        if not output.is_finished():
            self._running.tokens(run.request_id, new, logprobs)
            return
        del self._runs[output.request_id]
        if output.error is not None:
            self._fail(run, output.error, new, logprobs)
            return
        stopped = bool(new) and new[-1] in run.stop_token_ids
        num_kept = len(new) - stopped
        self._running.end(
            run.request_id,
            "finished",
            reason="stop" if stopped else "length",
            token_ids=new[:num_kept],
            logprobs=logprobs[:num_kept],
        )

    def _fail(self, run: _Run, error: str, token_ids: Sequence[int], logprobs: Sequence[Logprob]) -> None:
        """Only a loop that is ending refuses requests: then it fails them all, one after the other."""
        manager = self._manager
        if self._dead or manager is None or manager.background_thread_status.can_accept_new_requests() is not None:
            self._running.tokens(run.request_id, token_ids, logprobs)
            self._fail_all(error)
            return
        code = OutOfMemory.code if is_out_of_memory(error) else EngineError.code
        self._running.end(run.request_id, "failed", reason=code, message=error, token_ids=token_ids, logprobs=logprobs)

    def _end_cancelled(self, key: str) -> None:
        run = self._runs.pop(key, None)
        if run is not None:
            self._running.end(run.request_id, "cancelled")

    def _fail_all(self, error: object) -> None:
        self._dead = True
        logger.error("the transformers loop died with %d requests running: %s", len(self._running), error)
        self._runs.clear()
        self._running.lose_all(error, f"the transformers engine failed: {error}")

    # ---- loading

    def _load_model(self) -> Any:
        import torch
        import transformers

        cuda = torch.cuda.is_available()
        dtype, why_dtype = _choose_dtype(self._dtype, cuda)
        attention, why_attention = _choose_attention(cuda, dtype)
        if attention == "sdpa":
            attention, lacks = plain_attention(self._source)
            why_attention = lacks or why_attention
        device = "cuda" if cuda else "cpu"
        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        options = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
        model = self._adapted(options) if self._source.base else self._plain(self._source, options)
        served = self._source.name + (f" merged into {self._source.base.name}" if self._source.base else "")
        self.description = f"transformers on {device}, {served}, {dtype} ({why_dtype}), {attention} ({why_attention})"
        if getattr(model.config, "output_router_logits", False):  # for training; a served prompt has no mask for them
            model.config.output_router_logits = False
        return model.to(device).eval()

    def _adapted(self, options: dict[str, Any]) -> Any:
        base = self._source.base
        assert base is not None, "the caller has looked"
        try:
            model = self._plain(base, options)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"transformers cannot load {base.reference!r}, the base of the adapter {self._source.name!r}: {error}; "
                "bring that model back, or serve the merged model"
            ) from None
        return merged(model, self._source)

    def _plain(self, source: ModelSource, options: dict[str, Any]) -> Any:
        return self._from_gguf(source.gguf, options) if source.gguf else _from_pretrained(source.location, options)

    def _from_gguf(self, file: Path, options: dict[str, Any]) -> Any:
        """The dequantized model of a GGUF, from the copy that an earlier start kept, if there is one."""
        if self._state_dir is None:
            return _from_pretrained(str(file.parent), {**options, "gguf_file": file.name})
        stat = file.stat()
        copy = self._state_dir / "converted" / f"{file.stem}-{stat.st_size}-{int(stat.st_mtime)}-{options['dtype']}"
        if not copy.exists():
            model = _from_pretrained(str(file.parent), {**options, "gguf_file": file.name})
            _save_atomically(model, copy)
        return _from_pretrained(str(copy), options)

    def _make_manager(self) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        from workers.grammar_processor import Grammars
        from workers.logits_processors import Adjustments, KeepLogits, MinP, RequestProcessors, TopK, TopP

        _use_our_log()
        _tell_length_of_cache(self._model)
        # Processors exist per request only if the default is not neutral; every request sets its own values.
        defaults = GenerationConfig(do_sample=True, temperature=0.7, top_k=50, top_p=0.9, eos_token_id=-1)  # type: ignore[no-untyped-call]
        config = ContinuousBatchingConfig(
            per_request_processors=True,
            max_requests_per_batch=self._slots,
            auto_switch_to_flash=False,  # which attention computes is chosen above, and told
            **self._cache_options(),
        )
        manager = self._model.init_continuous_batching(defaults, config)
        temperature, top_k, top_p = manager.logit_processor.logits_processor
        assert temperature.supported_kwargs.keys() == {"temperature"}
        vocab_size = self._model.config.get_text_config().vocab_size
        adjustments = Adjustments(self._slots, vocab_size, self._model.device)
        keep = [KeepLogits()] if self._is_on_host else []
        manager.logit_processor = RequestProcessors(
            [*keep, adjustments, Grammars(), temperature, MinP(), TopK(top_k), TopP(top_p)]
        )
        return manager

    @property
    def _is_on_host(self) -> bool:
        """Whether the host sees the logits and the token of each step before the next one."""
        return bool(self._model.device.type == "cpu")

    def _make_grammars(self) -> Any:
        """The compiler of grammars, where the host knows each token before the next step, and the model's texts."""
        if not self._is_on_host:
            logger.info(
                "No response_format and no logprobs on this device: its steps overlap, and the host must see each one."
            )
            return None
        from workers.answer_grammar import GrammarCompiler

        try:
            return GrammarCompiler(load_tokenizer(self._source), self._model.config.get_text_config().vocab_size)
        except (ChatServerError, ValueError) as error:  # llguidance raises the second for a tokenizer without texts
            logger.info("No response_format: %s", error)
            return None

    def _cache_options(self) -> dict[str, Any]:
        """On a GPU the library sizes the cache by free memory; on a CPU it would take nearly all of it."""
        if self._model.device.type != "cpu":
            return {}
        config = self._model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_values = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        bytes_per_token = 2 * config.num_hidden_layers * heads * head_values * self._model.dtype.itemsize
        useful = self._slots * self._context()
        num_tokens = min(int(self._cache_gib * 2**30) // bytes_per_token, useful + _CPU_BLOCK_TOKENS * self._slots)
        return {
            "page_size": _CPU_BLOCK_TOKENS,
            "num_blocks": max(2, num_tokens // _CPU_BLOCK_TOKENS),
            "max_batch_tokens": _CPU_BATCH_TOKENS,
        }

    def _context(self) -> int:
        longest: int = self._model.config.get_text_config().max_position_embeddings
        return min(longest, self._context_tokens or longest)

    def _read_limits(self) -> ModelLimits:
        cache = self._manager.continuous_batching_config
        in_cache = (cache.num_blocks - 1) * cache.page_size
        vocab_size = self._model.config.get_text_config().vocab_size
        wanted = self._context()
        context = min(wanted, in_cache)
        supports = _SUPPORTS | (_ON_HOST if self._is_on_host else set()) | ({"grammar"} if self._grammars else set())
        notation = LARK if self._grammars else ""
        return ModelLimits(vocab_size, context, self._slots, supports, notation, in_cache, wanted)


def _from_pretrained(location: str, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(location, **options)


def _save_atomically(model: Any, folder: Path) -> None:
    """Write a checkpoint beside its final name, then rename: a folder of that name is always whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.hf_quantizer = None  # else save_pretrained refuses, though the weights are plain by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    with files.draft(folder.parent, ".unfinished-") as unfinished:
        try:
            model.save_pretrained(unfinished)
            files.publish(unfinished, folder)
        except OSError:
            if not folder.exists():  # another process may have been first
                raise


def _choose_dtype(asked: str, cuda: bool) -> tuple[str, str]:
    import torch

    if asked != "auto":
        return {"fp32": "float32", "bf16": "bfloat16"}[asked], "asked for"
    if cuda:
        fast = torch.cuda.is_bf16_supported()
        return ("bfloat16", "this GPU computes it") if fast else ("float16", "this GPU lacks bfloat16")
    return "float32", "on a CPU sdpa in bfloat16 gave about half the tokens per second"


def _choose_attention(cuda: bool, dtype: str) -> tuple[str, str]:
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    if not cuda:
        return "sdpa", "flash-attn needs a GPU"
    if dtype == "float32":
        return "sdpa", "flash-attn does not compute in float32"
    if is_flash_attn_3_available():
        return "flash_attention_3", "flash-attn 3 is installed"
    if is_flash_attn_2_available():
        return "flash_attention_2", "flash-attn 2 is installed"
    return "sdpa", "flash-attn is not installed: pip install chatserver[gpu] for speed"


def _tell_length_of_cache(model: Any) -> None:
    """OPT and others ask for it even where they get every position, as here, and then need it for nothing.

    A model that gets no positions, or biases by distance, would count from a wrong length: it fails, as it did.
    """
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    positioned = "position_ids" in signature(model.forward).parameters and not getattr(model.config, "alibi", False)
    if positioned and not hasattr(PagedAttentionCache, "get_seq_length"):
        cache: Any = PagedAttentionCache
        cache.get_seq_length = lambda self, layer_idx=0: 0


def _use_our_log() -> None:
    """Send the library's lines through our log, so that they name their process and can be JSON."""
    import transformers
    from transformers.generation import continuous_batching  # noqa: F401  # its import makes its log

    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.enable_propagation()
    batching = logging.getLogger("ContinuousBatchingLogger")
    batching.handlers.clear()
    batching.propagate = True
