"""`kill -9` of `tilth ask`, ten times: what was answered is kept, and the table is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from loopback import Loopback, serve
from tilth.transforms.inference.cache import FLUSH_S

ROWS = 1500
IN_FLIGHT = 32
KILLS = 10
# What passes between the server's last byte and the commit, beyond the flush window, on a machine that is busy.
GRACE_S = 0.2


def _command(server: Loopback, folder: Path) -> list[str]:
    options = ["--input", str(folder / "rows.parquet"), "--output", str(folder / "out.parquet"), "--json"]
    asked = ["--prompt", "Name the colour: {{ text }}", "--model", "loopback", "--base-url", server.url]
    pushed = ["--set", f"worker.window.size={IN_FLIGHT}", "--workspace", str(folder / "workspace")]
    return [sys.executable, "-m", "tilth.flows.cli", "ask", *options, *asked, *pushed]


def _killed_at(finished: int, server: Loopback, folder: Path) -> float:
    """Runs until the server has finished so many answers, kills the process group; returns when it did."""
    process = subprocess.Popen(
        _command(server, folder),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while server.stats()["finished"] < finished:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    at = time.monotonic()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return at


def _asked_again(server: Loopback, kills: list[float]) -> list[str]:
    """Requests that were received after an answer to them that a live client had the time to commit."""
    kept: set[str] = set()
    since: dict[str, float] = {}
    again: list[str] = []
    for event in server.events():
        if event.kind == "received":
            since[event.request] = event.at_s
            again += [event.request] if event.request in kept else []
        elif event.kind == "finished":
            # An answer that comes after a kill of the client that asked reaches nobody.
            low, high = since[event.request], event.at_s + FLUSH_S + GRACE_S
            if not any(low < at < high for at in kills):
                kept.add(event.request)
    assert len(kept) > ROWS / 2
    return again


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_lose_nothing_that_was_finished(tmp_path: Path) -> None:
    """After ten kills at random moments, no finished row was asked again, and every row has its own answer."""
    rows = pl.DataFrame({"text": [f"thing number {n}" for n in range(ROWS)]})
    rows.write_parquet(tmp_path / "rows.parquet")
    moments = sorted(random.Random(7).sample(range(20, ROWS - 100, 10), KILLS))
    with serve(log=tmp_path / "log", latency_s=0.1, sigma=0.5, slots=IN_FLIGHT) as server:
        kills = [_killed_at(moment, server, tmp_path) for moment in moments]
        subprocess.run(_command(server, tmp_path), check=True, stdout=subprocess.DEVNULL)
        received = server.stats()["received"]
        assert _asked_again(server, kills) == []
        (folder := tmp_path / "undisturbed").mkdir()
        rows.write_parquet(folder / "rows.parquet")
        subprocess.run(_command(server, folder), check=True, stdout=subprocess.DEVNULL)
    killed, whole = (pl.read_parquet(place / "out.parquet") for place in (tmp_path, folder))
    assert killed.equals(whole)
    assert killed.get_column("text").equals(rows.get_column("text"))
    assert killed.get_column("completion").n_unique() == ROWS
    # What a kill can cost: what was in flight, and what was finished within one flush window of it.
    assert received - ROWS <= KILLS * (IN_FLIGHT + IN_FLIGHT * (FLUSH_S + GRACE_S) / 0.1)
