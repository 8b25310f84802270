"""Engines: what answers one request. Two real ones, behind one protocol."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol  # Any: arguments of vLLM, passed through

from tilth.schemas import ConfigError
from tilth.transforms.inference.requests import Completion, Request


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Which model answers, and where it runs.

    kind: `vllm` (in this process, needs the extra) or `openai` (any OpenAI-compatible endpoint, `vllm serve` too).
    """

    kind: str = "openai"
    model: str = ""
    revision: str = ""  # of the weights; part of what answers are known by
    base_urls: tuple[str, ...] = ()  # openai: one or more servers of the same model, used as a pool
    api_key_env: str = "OPENAI_API_KEY"  # openai: the environment variable that holds the key; never the key
    headers_env: str = ""  # openai: the variable that holds extra headers as a JSON object
    args: Mapping[str, Any] = field(default_factory=dict)  # vllm: engine arguments, passed through
    devices: tuple[
        str, ...
    ] = ()  # vllm: one engine per entry, each sees this CUDA_VISIBLE_DEVICES; () one engine
    start_timeout_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine says of itself. `kv_use` is a share in [0, 1]; `slots` is how many it can run at once."""

    running: int
    waiting: int
    kv_use: float
    slots: int | None = None


class Engine(Protocol):
    """Answers one request at a time, many at once. Used from one event loop."""

    async def start(self) -> None:
        """Makes ready to answer. Raises `EngineFailed`, `MissingExtra` or `ConfigError` saying what to do."""
        ...

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        """The answer to one request, not yet validated. Makes one attempt.

        Raises `CallFailed`, or `EngineDied` when the engine itself is gone. When cancelled, the engine drops the work.
        """
        ...

    async def load(self) -> Load | None:
        """What the engine says of its load, or null when it does not say."""
        ...

    async def restart(self) -> None:
        """Starts a dead engine again. Called by the worker after `EngineDied`, a bounded number of times."""
        ...

    async def close(self) -> None:
        """Frees what `start` took. May be called twice."""
        ...


ENGINES: Final = {
    "vllm": "tilth.transforms.inference.engines.vllm",
    "openai": "tilth.transforms.inference.engines.openai",
}


def connect(config: EngineConfig) -> Engine:
    """The engine that a configuration names; it is not started yet."""
    return _module(config).engine(config)


def identify(config: EngineConfig) -> str:
    """What an engine's answers are known by: model, revision, and every argument that changes what it says."""
    return _module(config).identify(config)


def _module(config: EngineConfig) -> Any:
    if config.kind not in ENGINES:
        raise ConfigError(
            "unknown engine", found=config.kind or "none", wanted=" or ".join(ENGINES), do="set --engine"
        )
    if not config.model:
        raise ConfigError(
            "no model named", wanted="a name or a folder", do="add --model, or engine.model to tilth.yaml"
        )
    return importlib.import_module(ENGINES[config.kind])
