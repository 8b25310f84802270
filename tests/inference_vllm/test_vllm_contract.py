"""What every engine keeps, kept by real vLLM: in this process, and behind `vllm serve`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from contracts.engine_contract import EngineContract
from inference_vllm.shared_engine import SharedEngine, config
from tilth.transforms.inference.engines import Engine, EngineConfig, connect

T = TypeVar("T")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
]  # vLLM and torch warn


class TestInProcess(EngineContract):
    """`AsyncLLM`; tests that close it make their own."""

    @pytest.fixture(autouse=True)
    def _world(self, tiny_model: Path, shared: SharedEngine) -> None:
        self.model, self.shared = tiny_model, shared

    def make(self) -> Engine:
        return connect(config(self.model))

    def use(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        return self.shared.use(work)


class TestServed(EngineContract):
    """`vllm serve` through the engine for OpenAI-compatible endpoints."""

    @pytest.fixture(autouse=True)
    def _world(self, server: str) -> None:
        self.url = server

    def make(self) -> Engine:
        return connect(EngineConfig(kind="openai", model="tiny", base_urls=(self.url,)))
