"""What runs inside the processes that vLLM starts: they write to the engine's log, and end with the process they serve.

vLLM 0.32 leaves its engine core running, with the GPU's memory, when the process that started it is killed (seen with
`kill -9`). Its logging configuration is applied early in each of its processes, so that is where we come in.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final  # Any: a dictConfig

import orjson

_LAST_BYTES: Final = 65_536
_FORMAT: Final = "%(levelname)s %(asctime)s pid=%(process)d [%(name)s:%(lineno)d] %(message)s"
_following = threading.Lock()


def write_config(path: Path, log: Path) -> Path:
    """Writes a logging configuration for vLLM: what the processes that it starts say goes to `log`.

    What it says in this process goes to a file beside it, or its complaint that they died would bury why they did.
    """
    handler = {"()": f"{__name__}.handler", "path": str(log), "owner": os.getpid(), "formatter": "plain"}
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": _FORMAT}},
        "handlers": {"log": handler},
        "loggers": {
            "vllm": {"handlers": ["log"], "level": "INFO", "propagate": False},
            # They tell what a chat template said of a conversation, which may quote it.
            "vllm.renderers": {"level": "CRITICAL"},
        },
    }
    path.write_bytes(orjson.dumps(config))
    return path


def handler(path: str, owner: int) -> logging.Handler:
    """The handler that vLLM's loggers write to; in a process other than the owner, also diverts it and ties its life.

    Its standard output and error go to the log, tracebacks and what C++ prints too, and it ends when the owner does.
    """
    if os.getpid() != owner and _following.acquire(blocking=False):  # once per process
        _divert(path)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        print(f"process {os.getpid()} serves process {owner}, CUDA_VISIBLE_DEVICES={devices}", flush=True)  # noqa: T201
        threading.Thread(target=_end_with, args=(owner,), daemon=True, name="end-with-owner").start()
    here = Path(path).with_suffix(".front.log") if os.getpid() == owner else path
    return logging.FileHandler(here, delay=True)


def last_lines(log: Path, count: int = 20) -> tuple[str, ...]:
    """The last lines of a log that are not empty; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ()
    return tuple(line for line in text.splitlines() if line.strip())[-count:]


def _divert(path: str) -> None:
    with Path(path).open("ab") as log:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _end_with(owner: int) -> None:
    """Kills this process when the owner is gone.

    Not by PR_SET_PDEATHSIG: that follows the thread that started us, and threads of Beam come and go.
    """
    with contextlib.suppress(ProcessLookupError):
        _wait_for_end_of(owner)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_end_of(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, PermissionError):  # not Linux
        while True:
            os.kill(pid, 0)
            time.sleep(1)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll()
