"""A flow run ends with the process that started it, whatever ended that one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Generator
from typing import Final

_LOOK_S: Final = 0.5
_GRACE_S: Final = 1.5  # for telling the server that the run has crashed, if it still answers


@contextlib.contextmanager
def while_parent_lives() -> Generator[None]:
    """Within the block, this process ends within 2 s of its parent: asked to terminate first, then killed.

    It looks at the parent's number, which every POSIX system changes when the parent ends. Linux could send a signal
    (`PR_SET_PDEATHSIG`), but sends it when the parent's thread ends, and runners start flow runs from passing threads.
    """
    parent, left = None if _is_orphan() else os.getppid(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(parent, left), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        left.set()


def _watch(parent: int | None, left: threading.Event) -> None:
    while not left.wait(_LOOK_S):
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_GRACE_S)
            os.kill(os.getpid(), signal.SIGKILL)


def _is_orphan() -> bool:
    """Whether the parent ended before it could be looked at, while this process was importing.

    A process is born into its parent's group. If its parent is not of its group, and who led the group is gone, then
    this is another parent. A runner that led no group is not missed.
    """
    group = os.getpgrp()
    try:
        if os.getpgid(os.getppid()) != group:
            os.kill(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
