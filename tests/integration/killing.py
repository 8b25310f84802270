"""Killing a run at a moment of its own: when the server that it asks has finished so many answers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from loopback import Loopback
from tilth.transforms.inference.cache import FLUSH_S

GRACE_S: Final = 0.3  # what may pass between the server's last byte and the commit, beyond the flush window
PATIENCE_S: Final = 200


def killed_after(finished: int, server: Loopback, command: Sequence[str]) -> float:
    """Runs until the server has finished so many answers, then kills the process group; when, by the host's clock."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE_S
    while server.stats()["finished"] < finished:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic()


def lost(server: Loopback, at_s: float) -> int:
    """How many answers a kill may cost: what was in flight, and what was finished too late to be kept."""
    before = [event for event in server.events() if event.at_s <= at_s]
    received = sum(event.kind == "received" for event in before)
    finished = [event.at_s for event in before if event.kind == "finished"]
    return received - len(finished) + sum(one > at_s - FLUSH_S - GRACE_S for one in finished)
