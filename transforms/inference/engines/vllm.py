"""vLLM in this process: its `AsyncLLM`, one per entry of `devices`. Needs the extra `vllm` and a device for it.

Arguments are vLLM's own (`AsyncEngineArgs`) and two more, `OWN_ARGS`. Checked with vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import importlib
import importlib.util
import itertools
import logging
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final  # Any: vLLM is not installed where types are checked

from tilth.schemas import ConfigError, MissingExtra, Reason
from tilth.transforms.inference.engines import Engine, EngineConfig, Load
from tilth.transforms.inference.engines.vllm_identity import identify, pinned_revision
from tilth.transforms.inference.engines.vllm_process import last_lines, write_config
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion, Request
from tilth.transforms.inference.structured import unbounded

__all__ = ["OWN_ARGS", "VllmEngine", "engine", "identify"]

OWN_ARGS: Final = {
    "sampling_params": "further fields of vLLM's SamplingParams for every request, such as top_k or ignore_eos",
    "chat_template_kwargs": "variables of the model's chat template, such as enable_thinking",
}
DEFAULTS: Final = {"disable_log_stats": True, "enable_log_requests": False, "enable_prefix_caching": True}
# On a CPU, 0.32 dies of a seeded request whose prompt is read in pieces ("CPU Generator does not use offset").
CPU_DEFAULTS: Final = {"enable_chunked_prefill": False}
_TAKEN_ARGS: Final = {
    "model": "engine.model",
    "revision": "engine.revision",
    "hf_token": "the environment variable HF_TOKEN",
    "log_config_file": "nothing: the log is kept for you",
    "logging_config": "nothing: the log is kept for you",
}
_TAKEN_SAMPLING: Final = frozenset(
    {"temperature", "top_p", "max_tokens", "stop", "seed", "n", "output_kind", "skip_clone", "structured_outputs"}
    | {"logprobs", "logprob_token_ids", "prompt_logprobs", "flat_logprobs", "detokenize"}
)  # fmt: skip
_INSTALL: Final = "pip install 'tilth[vllm]'"
_DEVICES: Final = "a GPU that vLLM supports (its wheels on PyPI: NVIDIA, CUDA), on Linux"
_ELSEWHERE: Final = "or ask a server: --engine openai --base-url http://HOST:8000/v1"
_MOST_TOKEN_IDS: Final = 128  # vllm.sampling_params.MAX_LOGPROB_TOKEN_IDS
_EXIT_WAIT_S: Final = 10.0
# Rendered in place: handing 1,024 short prompts to another thread and back took 0.5 s of CPU, of 1.9 in all.
_SHORT_CHARS: Final = 8_000
# The environment and vLLM's logging belong to the whole process: engines are made one after another.
_making = threading.Lock()


def engine(config: EngineConfig) -> Engine:
    """One engine, or a pool of one per entry of `devices`. Raises `MissingExtra` when vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise MissingExtra(
            "the engine vllm needs vLLM",
            found="not installed",
            wanted=_DEVICES,
            do=f"{_INSTALL}, {_ELSEWHERE}",
        )
    if len(config.devices) < 2:
        return VllmEngine(config, *config.devices)
    from tilth.transforms.inference.engines.pool import Pool

    return Pool([VllmEngine(config, device) for device in config.devices])


class VllmEngine:
    """One `AsyncLLM` with its processes, its log file and its place among the GPUs."""

    def __init__(self, config: EngineConfig, device: str | None = None) -> None:
        self._config, self._device = config, device
        self._llm: Any = None
        self._cores: list[BaseProcess] = []
        self._family: list[Any] = []  # psutil.Process of every process below us that belongs to this engine
        self._folder: Path | None = None
        self._stats: Any = None  # vLLM's SchedulerStats of the last step
        self._ids = itertools.count()
        self._chat: Any = None
        self._sampling: dict[str, Any] = {}
        self._first_token = lru_cache(maxsize=4096)(self._encode_first)

    # Life and death.

    async def start(self) -> None:
        """Loads the model. Does nothing when it is loaded.

        Raises `ConfigError` for arguments that vLLM does not know or refuses, `EngineFailed` for all else, with the
        last lines of vLLM's log.
        """
        if self._llm is not None:
            return
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="tilth-vllm-"))
        try:
            self._llm = await self._in_time(asyncio.create_task(asyncio.to_thread(self._make)))
            await self._make_ready(self._llm)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._end))
            raise

    async def restart(self) -> None:
        """A fresh engine, once the processes of the old one are gone."""
        await asyncio.to_thread(self._end)
        await self.start()

    async def close(self) -> None:
        """Ends the engine's processes and removes its log."""
        await asyncio.to_thread(self._end)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def load(self) -> Load | None:
        """Requests in the engine and its use of KV cache, as of its last step."""
        if self._llm is None:
            return None
        stats, slots = self._stats, self._llm.vllm_config.scheduler_config.max_num_seqs
        if stats is None or not self._llm.get_num_unfinished_requests():
            return Load(0, 0, 0.0, slots)
        waiting = stats.num_waiting_reqs + stats.num_skipped_waiting_reqs
        return Load(stats.num_running_reqs, waiting, min(1.0, stats.kv_cache_usage), slots)

    async def _in_time(self, making: asyncio.Task[Any]) -> Any:
        """The engine; when it takes too long or nobody waits any more, its processes are killed and it is no engine."""
        timeout_s = self._config.start_timeout_s
        try:
            await asyncio.wait({making}, timeout=timeout_s)
            if making.done():
                return making.result()
            raise EngineFailed(
                "vLLM did not start in time", found=self._log_says(), wanted=f"ready within {timeout_s:g} s",
                do="raise engine.start_timeout_s, or try a smaller model",
            )  # fmt: skip
        finally:
            while not making.done():
                for core in self._cores:
                    core.kill()
                await asyncio.wait({making}, timeout=0.2)

    async def _make_ready(self, llm: Any) -> None:
        # Asked once here: a first request that asks it while the engine dies would wait for the answer for ever.
        await llm.get_supported_tasks()
        try:
            await self._render([{"role": "user", "content": "ready"}])
        except ValueError as error:
            raise ConfigError(
                f"{self._config.model} cannot be asked as a chat", found=type(error).__name__,
                wanted="a tokenizer with a chat template", do="use a model that was made to chat",
            ) from None  # fmt: skip

    def _make(self) -> Any:
        """Builds the `AsyncLLM`. Runs in a thread: it takes as long as the weights take."""
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = (
            "spawn"  # we have threads, which a fork would not survive
        )
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(round(self._config.start_timeout_s) + 60))
        assert self._folder is not None  # noqa: S101
        log_config = str(write_config(self._folder / "logging.json", self._log))
        changed = {"VLLM_LOGGING_CONFIG_PATH": log_config}
        if self._device is not None:
            changed["CUDA_VISIBLE_DEVICES"] = self._device
        with _making, _environment(changed):
            vllm = _import_vllm()
            self._sampling = _extra_sampling(vllm, self._config.args)
            args = _engine_args(vllm, self._config, log_config)
            self._chat = _chat_params(self._config.args)
            with self._watching_children():
                return self._construct(args)

    def _construct(self, args: Any) -> Any:
        asynchronous = _part("vllm.v1.engine.async_llm")
        # The sizes of batches that vLLM gives `LLM`. Its default for an AsyncLLM is 128 sequences and 2,048 tokens a
        # step on any device, where an H100 would get 1,024 and 16,384; here it was the difference of 82 to 99 % of raw.
        context = _part("vllm.usage.usage_lib").UsageContext.LLM_CLASS
        try:
            llm = asynchronous.AsyncLLM.from_engine_args(
                args, usage_context=context, stat_loggers=[_stat_logger(self._see)]
            )
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ConfigError(
                "vLLM refuses these arguments", found=_brief(error), do="change engine.args"
            ) from None
        except Exception as error:
            raise EngineFailed(
                "vLLM did not start", found=f"{_brief(error)}\n    {self._log_says()}",
                wanted=f"{_DEVICES}, with room for the model", do=f"see the log above; {_ELSEWHERE}",
            ) from None  # fmt: skip
        # The scheduler's statistics are wanted; the times of every token, which nobody reads, cost time of their own.
        llm.log_stats = llm.output_processor.log_stats = False
        return llm

    @contextlib.contextmanager
    def _watching_children(self) -> Generator[None]:
        """Notes the processes that are started meanwhile, as soon as they are."""
        before = {child.pid for child in multiprocessing.active_children()}
        done = threading.Event()

        def watch() -> None:
            last = False
            while not last:
                last = done.wait(0.2)
                new = [one for one in multiprocessing.active_children() if one.pid not in before]
                self._cores = [one for one in new if one.name.startswith("EngineCore")]

        watcher = threading.Thread(target=watch, daemon=True, name="vllm-children")
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
            self._family = _family(self._cores)

    def _see(self, stats: Any) -> None:
        self._stats = stats

    def _end(self) -> None:
        """Ends every process of the engine, and waits until it is gone."""
        llm, self._llm, self._stats = self._llm, None, None
        if llm is not None:
            llm.shutdown()
            # Its `__del__` shuts down again; when the interpreter ends, that fails and says so on the terminal.
            llm.shutdown = lambda: None
        _kill(self._cores, self._family)
        self._cores, self._family = [], []
        self._first_token.cache_clear()

    @property
    def _log(self) -> Path:
        return (self._folder or Path()) / "vllm.log"

    def _log_says(self) -> str:
        return "\n    ".join(last_lines(self._log, 8)) or "nothing in its log"

    async def _died(self) -> EngineDied:
        """Waits for the exit code a little: the engine says that it dies before it is dead."""
        await asyncio.to_thread(_wait_until_one_ended, self._cores)
        codes = [core.exitcode for core in self._cores if core.exitcode is not None]
        return EngineDied(codes[0] if codes else None, last_lines(self._log))

    # Requests.

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        """The answer to one request. When cancelled or late, the engine drops the request."""
        if self._llm is None:
            raise RuntimeError("the engine is not started, or closed")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(self._llm, request)
        except TimeoutError:
            detail = f"no answer within {timeout_s:g} s"
            raise CallFailed(Reason.TIMED_OUT, detail, retryable=True) from None

    async def _answer(self, llm: Any, request: Request) -> Completion:
        tokens = self._choice_tokens(request)
        try:
            prompt = await self._render(request.messages)
            given = llm.generate(prompt, self._params(request, tokens), f"{next(self._ids)}")
            (output,) = [one async for one in given]  # FINAL_ONLY: there is one
        except (TimeoutError, asyncio.CancelledError):
            raise
        except Exception as error:  # what vLLM raises quotes prompts, so nothing of it but its kind goes on
            failure: Exception = await self._died() if llm.errored else _failure(error)
        else:
            return _completion(output, tokens)
        raise failure

    async def _render(self, messages: Sequence[Mapping[str, str]]) -> Any:
        """The prompt as tokens: the model's chat template; long ones in the threads that vLLM keeps for that."""
        conversation = [{"role": one["role"], "content": one["content"]} for one in messages]
        renderer = self._llm.renderer
        if sum(len(one["content"]) for one in messages) < _SHORT_CHARS:
            _, (prompt,) = renderer.render_chat([conversation], self._chat)
        else:
            _, (prompt,) = await renderer.render_chat_async([conversation], self._chat)
        return prompt

    def _params(self, request: Request, tokens: tuple[int, ...] | None) -> Any:
        given, s, shape = _part("vllm.sampling_params"), request.sampling, None
        if request.choices is not None:
            shape = given.StructuredOutputsParams(choice=list(request.choices))
        elif request.schema is not None:
            shape = given.StructuredOutputsParams(json=unbounded(request.schema))
        return given.SamplingParams(
            temperature=s.temperature, top_p=s.top_p, max_tokens=s.max_tokens, stop=list(s.stop), seed=s.seed,
            structured_outputs=shape, logprob_token_ids=None if tokens is None else list(tokens),
            output_kind=given.RequestOutputKind.FINAL_ONLY, **self._sampling,
        )  # fmt: skip

    def _choice_tokens(self, request: Request) -> tuple[int, ...] | None:
        """The token that each choice begins with; null when they are not wanted or do not tell the choices apart."""
        if not request.want_logprobs or not request.choices:
            return None
        tokens = tuple(self._first_token(choice) for choice in request.choices)
        distinct = len(set(tokens)) == len(tokens) <= _MOST_TOKEN_IDS
        return tokens if distinct and -1 not in tokens else None

    def _encode_first(self, choice: str) -> int:
        tokens = self._llm.renderer.get_tokenizer().encode(choice, add_special_tokens=False)
        return tokens[0] if tokens else -1


def _completion(output: Any, tokens: tuple[int, ...] | None) -> Completion:
    (answer,) = output.outputs
    if answer.finish_reason in ("abort", "error"):
        raise CallFailed(Reason.SERVER_ERROR, f"vLLM: {answer.finish_reason}", retryable=True)
    return Completion(
        text=answer.text,
        finish_reason="stop" if answer.finish_reason == "stop" else "length",
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=len(answer.token_ids),
        choice_logprobs=_choice_logprobs(answer.logprobs, tokens),
    )


def _choice_logprobs(logprobs: Any, tokens: tuple[int, ...] | None) -> tuple[float, ...] | None:
    """Of the first token, over what the choices allow there, before temperature.

    Seen on 0.32: vLLM masks the logits to the structure first, so that exp() of them sums to 1 over all tokens that may
    begin a choice, parts of its first token too. A first token that the structure does not allow has -inf: then none.
    """
    if tokens is None or not logprobs:
        return None
    found = [logprobs[0].get(token) for token in tokens]
    values = tuple(min(0.0, one.logprob) for one in found if one is not None)
    return values if len(values) == len(tokens) and min(values) > float("-inf") else None


def _failure(error: Exception) -> CallFailed:
    raised = _part("vllm.exceptions")
    kind, parameter = type(error).__name__, getattr(error, "parameter", None)
    if parameter in ("input_tokens", "input_text") or "maximum model length" in str(error):
        return CallFailed(Reason.TOO_LONG, "the prompt is longer than the model's context")
    if isinstance(error, raised.GracefulHTTPError):
        return CallFailed(Reason.RATE_LIMITED, f"vLLM: {kind}", retryable=True)
    if isinstance(error, (raised.VLLMClientError, ValueError, TypeError)):
        return CallFailed(Reason.REQUEST_REFUSED, f"vLLM: {kind}" + (f" of {parameter}" if parameter else ""))
    return CallFailed(Reason.SERVER_ERROR, f"vLLM: {kind}", retryable=True)


# What vLLM is given.


def _part(name: str) -> Any:
    """A module of vLLM. By name, because it is not installed where types are checked."""
    return importlib.import_module(name)


def _import_vllm() -> Any:
    logging.getLogger("vllm").addHandler(logging.NullHandler())  # it warns before it has set up its logging
    try:
        vllm, platforms = _part("vllm"), _part("vllm.platforms")
        platform = platforms.current_platform
    except ImportError as error:
        raise EngineFailed(
            "vLLM is installed but cannot be imported", found=_brief(error), wanted=_DEVICES,
            do=f"{_INSTALL} where there is one, {_ELSEWHERE}",
        ) from None  # fmt: skip
    _check_device(platform.device_type, platform.device_name)
    return vllm


def _check_device(kind: str | None, name: str | None) -> None:
    if not kind:
        raise EngineFailed(
            "vLLM finds no device to run on", found=f"platform {name or 'none'}", wanted=_DEVICES,
            do=f"run it where there is one (nvidia-smi lists them), {_ELSEWHERE}",
        )  # fmt: skip


def _engine_args(vllm: Any, config: EngineConfig, log_config: str) -> Any:
    known = {field.name for field in fields(vllm.AsyncEngineArgs)}
    _check_names("argument of vLLM", config.args, known | set(OWN_ARGS), _TAKEN_ARGS)
    given = {name: value for name, value in config.args.items() if name not in OWN_ARGS}
    on_cpu = _part("vllm.platforms").current_platform.device_type == "cpu"
    defaults = {**DEFAULTS, **(CPU_DEFAULTS if on_cpu else {})}
    revision = {"revision": pinned} if (pinned := pinned_revision(config)) else {}
    try:
        return vllm.AsyncEngineArgs(
            **{**defaults, **given}, **revision, model=config.model, log_config_file=log_config
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "vLLM refuses these arguments", found=_brief(error), do="change engine.args"
        ) from None


def _extra_sampling(vllm: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    extra = dict(args.get("sampling_params", {}))
    known = {name for name in vllm.SamplingParams.__struct_fields__ if not name.startswith("_")}
    _check_names(
        "field of sampling_params", extra, known, dict.fromkeys(_TAKEN_SAMPLING, "the request's own sampling")
    )
    return extra


def _check_names(what: str, given: Mapping[str, Any], known: set[str], taken: Mapping[str, str]) -> None:
    for name in given:
        if name in taken:
            raise ConfigError(f"{what} that is set elsewhere", found=name, wanted=f"use {taken[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 1, 0.0)
            raise ConfigError(
                f"unknown {what}", found=name, wanted=f"perhaps {near[0]}", do="correct engine.args"
            )


def _chat_params(args: Mapping[str, Any]) -> Any:
    """As `LLM.chat` makes them, so that a prompt is the same tokens here and there."""
    extra = {"add_generation_prompt": True, "continue_final_message": False, "tools": None, "tokenize": False}
    return _part("vllm.renderers.params").ChatParams(
        chat_template_kwargs={**extra, **args.get("chat_template_kwargs", {})}
    )


def _stat_logger(see: Callable[[Any], None]) -> Any:
    """A stat logger that hands on what the scheduler says, in place of vLLM's Prometheus one, which we do not serve."""
    prometheus: Any = _part("vllm.v1.metrics.loggers").PrometheusStatLogger

    class Listener(prometheus):
        def __init__(self, vllm_config: Any, engine_indexes: Any = None) -> None:
            del vllm_config, engine_indexes

        def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
            if scheduler_stats is not None:
                see(scheduler_stats)

        def log_engine_initialized(self) -> None: ...

        def record_admission_rejection(self, reason: str) -> None: ...

    return Listener


@contextlib.contextmanager
def _environment(changed: Mapping[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _brief(error: BaseException) -> str:
    """What an error of vLLM's set-up says, in one line. No request was made yet, so it holds no user's text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


# Processes.


def _family(cores: Sequence[BaseProcess]) -> list[Any]:
    """The engine's processes and those below, to be found again when their parent is gone."""
    import psutil

    found: list[Any] = []
    for core in cores:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(core.pid)
            found += [top, *top.children(recursive=True)]
    return found


def _kill(cores: Sequence[BaseProcess], family: Sequence[Any]) -> None:
    """Ends what is left. psutil knows a process by its start time too, so a number that was given anew is safe."""
    if not cores and not family:
        return
    import psutil

    _, alive = psutil.wait_procs(family, timeout=2)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    for core in cores:
        if core.is_alive():
            core.kill()
        core.join(_EXIT_WAIT_S)
    psutil.wait_procs(alive, timeout=_EXIT_WAIT_S)


def _wait_until_one_ended(cores: Sequence[BaseProcess]) -> None:
    from multiprocessing.connection import wait

    wait([core.sentinel for core in cores], timeout=_EXIT_WAIT_S)
    for core in cores:
        core.join(0.5)
