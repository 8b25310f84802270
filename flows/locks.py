"""Locks of runs: of two equal runs on one host one waits; what a live run needs is not collected.

A lock is the kernel's (`flock`), so that a process that is killed holds none. A workspace on an object store has none:
equal runs may then overlap, which costs work and corrupts nothing: parts have one name each, a run is published once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

_REMOTE: Final = "://"


@contextlib.contextmanager
def held(path: str, waiting: Callable[[], None] = lambda: None) -> Generator[None]:
    """Holds the lock file at `path` for the block; `waiting` is told before it waits for another holder."""
    if _REMOTE in path:
        yield
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def run_lock(workspace: str, run_id: str) -> str:
    """The lock file of a run."""
    return f"{workspace}/runs/{run_id}.lock"


def stream_lock(workspace: str, stream: str) -> str:
    """The lock file of a stream of incremental runs."""
    return f"{workspace}/streams/{stream}.lock"


def is_live(workspace: str, run_id: str) -> bool:
    """Whether some process of this host is at work on a run."""
    return _is_held(run_lock(workspace, run_id))


def is_stream_live(workspace: str, stream: str) -> bool:
    """Whether some process of this host is at work in a stream."""
    return _is_held(stream_lock(workspace, stream))


def _is_held(path: str) -> bool:
    if _REMOTE in path:
        return False
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
