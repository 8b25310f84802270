"""A real `vllm serve` with arguments of one's own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any  # Any: arguments of vLLM

SERVER_STARTS_WITHIN_S = 240


@contextlib.contextmanager
def served(model: Path, log: Path, **args: Any) -> Generator[str]:
    """The base URL of a server of the model, known there as `tiny`; its process ends with the context.

    Arguments are those of the command line with underscores; mappings become JSON. Raises `AssertionError` with the end
    of the log when the server does not come up.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # By module: the command `vllm` asks for a distribution of that name, and the CPU build has another.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    # On a CPU, 0.32 dies of a seeded request whose prompt is read in pieces.
    command += ["--dtype", "bfloat16", "--enforce-eager", "--no-enable-chunked-prefill"]
    for name, value in args.items():
        text = json.dumps(value) if isinstance(value, Mapping) else str(value)
        command += [f"--{name.replace('_', '-')}", text]
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
    raise AssertionError("vllm serve did not start:\n" + "\n".join(log.read_text().splitlines()[-30:]))
