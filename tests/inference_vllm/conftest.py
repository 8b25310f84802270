"""A tiny model, one engine in this process and one server, each made once for all tests that only ask."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_llama
from inference_vllm.shared_engine import SharedEngine, config

SERVER_STARTS_WITHIN_S = 240


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # By module: the command `vllm` asks for a distribution of that name, and the CPU build has another.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_model)]
    command += [
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        "bfloat16",
    ]
    command += ["--enforce-eager", "--max-model-len", "2048", "--no-enable-chunked-prefill"]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + SERVER_STARTS_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("vllm serve did not start:\n" + "\n".join(log.read_text().splitlines()[-30:]))
