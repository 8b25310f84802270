"""A tiny model, one engine in this process and one server, each made once for all tests that only ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_llama
from inference_vllm.serving import served
from inference_vllm.shared_engine import SharedEngine, config


@pytest.fixture(scope="session", autouse=True)
def small_cache() -> Iterator[None]:
    """1 GiB for the KV cache, and no look at the network, here and in all processes below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def shared(tiny_model: Path) -> Iterator[SharedEngine]:
    engine = SharedEngine(config(tiny_model))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a real `vllm serve`."""
    with served(tiny_model, tmp_path_factory.mktemp("server") / "log", max_model_len=2048) as url:
        yield url
