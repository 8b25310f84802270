"""`kill -9` of `tilth ask`, again and again: what was answered is kept, and the table is that of an undisturbed run."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from integration.killing import killed_after
from loopback import Loopback, serve
from loopback.answers import answer
from tilth.transforms.inference.cache import FLUSH_S

ROWS = 1500
IN_FLIGHT = 32
KILLS = 5
# What may pass between the server's last byte and the commit, beyond the flush window.
GRACE_S = 0.2


def _command(server: Loopback, folder: Path) -> list[str]:
    options = ["--input", str(folder / "rows.parquet"), "--output", str(folder / "out.parquet"), "--json"]
    asked = ["--prompt", "Name the colour: {{ text }}", "--model", "loopback", "--base-url", server.url]
    pushed = ["--set", f"worker.window.size={IN_FLIGHT}", "--workspace", str(folder / "workspace")]
    return [sys.executable, "-m", "tilth.flows.cli", "ask", *options, *asked, *pushed]


@dataclass(frozen=True)
class Kill:
    """What was kept at one kill, and what was lost that had been finished in time to be kept."""

    at_s: float
    kept: frozenset[str]  # texts in the cache; each prompt has its own
    lost: int


def _after_kill(server: Loopback, folder: Path, since_s: float) -> Kill:
    at_s = time.monotonic()
    cache = sqlite3.connect(folder / "workspace" / "cache" / "answers.sqlite")
    with contextlib.closing(cache):
        rows = cache.execute("select text from tilth_cache_answers").fetchall()
    kept = frozenset(bytes(text).decode() for (text,) in rows)
    heard = {e.request: e.at_s for e in server.events() if e.kind == "received" and e.at_s > since_s}
    in_time = [
        answer(event.request, None, None)
        for event in server.events()
        if event.kind == "finished" and heard.get(event.request, at_s) < event.at_s < at_s - FLUSH_S - GRACE_S
    ]
    return Kill(at_s, kept, len(set(in_time) - kept))


def _asked_again(server: Loopback, kills: list[Kill]) -> list[str]:
    """Requests that were received after their answer was kept."""
    received = [event for event in server.events() if event.kind == "received"]
    return [
        event.request
        for kill in kills
        for event in received
        if event.at_s > kill.at_s and answer(event.request, None, None) in kill.kept
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_lose_nothing_that_was_finished(tmp_path: Path) -> None:
    """After five kills at random moments, no finished row was asked again, and every row has its own answer."""
    rows = pl.DataFrame({"text": [f"thing number {n}" for n in range(ROWS)]})
    rows.write_parquet(tmp_path / "rows.parquet")
    moments = sorted(random.Random(7).sample(range(20, ROWS - 100, 10), KILLS))
    kills: list[Kill] = []
    with serve(log=tmp_path / "log", latency_s=0.1, sigma=0.5, slots=IN_FLIGHT) as server:
        for moment in moments:
            began = time.monotonic()
            killed_after(moment, server, _command(server, tmp_path))
            kills.append(_after_kill(server, tmp_path, began))
        subprocess.run(_command(server, tmp_path), check=True, stdout=subprocess.DEVNULL)
        assert _asked_again(server, kills) == []
        (folder := tmp_path / "undisturbed").mkdir()
        rows.write_parquet(folder / "rows.parquet")
        subprocess.run(_command(server, folder), check=True, stdout=subprocess.DEVNULL)
    killed, whole = (pl.read_parquet(place / "out.parquet") for place in (tmp_path, folder))
    assert killed.equals(whole)
    assert killed.get_column("text").equals(rows.get_column("text"))
    assert killed.get_column("completion").n_unique() == ROWS
    # A kill costs what was in flight and one flush window. On a machine that is busy a client may hear late, now and
    # then; mostly it does not.
    assert statistics.median(kill.lost for kill in kills) == 0
    assert all(len(kill.kept) > 0 for kill in kills[1:])
