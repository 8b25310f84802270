"""One engine that lives in the event loop of a thread of its own, as it does under Beam, and serves many tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar  # Any: arguments of vLLM

from tilth.transforms.inference.engines import Engine, EngineConfig
from tilth.transforms.inference.engines.vllm import VllmEngine

T = TypeVar("T")
ARGS = {"dtype": "bfloat16", "enforce_eager": True, "max_model_len": 2048}


def config(model: Path, **args: Any) -> EngineConfig:
    """The tiny model in this process."""
    return EngineConfig(kind="vllm", model=str(model), args={**ARGS, **args})


class SharedEngine:
    """Starts the engine at its first use."""

    def __init__(self, config: EngineConfig) -> None:
        self.engine = VllmEngine(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="engine-loop")
        self._thread.start()

    def use(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Runs the work in the engine's loop."""

        async def run() -> T:
            await self.engine.start()
            return await work(self.engine)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def close(self) -> None:
        """Ends the engine, then its loop."""
        asyncio.run_coroutine_threadsafe(self.engine.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
