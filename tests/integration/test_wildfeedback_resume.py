"""`kill -9` of `tilth run wildfeedback` in the middle of judging: the run goes on there and makes the same data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from integration.wild_world import complaints, table, write_log
from loopback import Loopback, serve
from tilth.transforms.inference.cache import FLUSH_S

IN_FLIGHT = 4
# What may pass between the server's last byte and the commit, beyond the flush window.
GRACE_S = 0.3
TABLES = (
    "feedback",
    "preferences",
    "responses",
    "judgments",
    "pairs",
    "unpaired",
    "evaluation",
    "quarantine",
)


def _command(server: Loopback, workspace: Path, source: str) -> list[str]:
    where = ["--source", source, "--workspace", str(workspace), "--json"]
    asked = ["--engine", "openai", "--base-url", server.url, "--model", "expert-1", "--policy", "policy-1"]
    judges = ["--judge", "large=2", "--judge", "small"]
    pushed = ["--set", f"worker.window.size={IN_FLIGHT}", "--set", "observed.splits.test=0.3"]
    return [sys.executable, "-m", "tilth.flows.cli", "run", "wildfeedback", *where, *asked, *judges, *pushed]


def _run(server: Loopback, workspace: Path, source: str) -> dict[str, Any]:
    command = _command(server, workspace, source)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def _kill_after(finished: int, server: Loopback, workspace: Path, source: str) -> float:
    """Runs until the server has finished so many answers, then kills the process group; when, by the host's clock."""
    process = subprocess.Popen(
        _command(server, workspace, source),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while server.stats()["finished"] < finished:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic()


def _calls(result: dict[str, Any]) -> dict[str, int]:
    return {purpose: used["calls"] for purpose, used in result["usage"]["purposes"].items()}


def _lost(server: Loopback, at_s: float) -> int:
    """How many answers a kill may cost: what was in flight, and what was finished too late to be kept."""
    before = [event for event in server.events() if event.at_s <= at_s]
    received = sum(event.kind == "received" for event in before)
    finished = [event.at_s for event in before if event.kind == "finished"]
    return received - len(finished) + sum(one > at_s - FLUSH_S - GRACE_S for one in finished)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_killed_while_judging_goes_on_there(tmp_path: Path) -> None:
    """The data are those of an undisturbed run; after the kill only judges are asked, none about what was kept."""
    source = write_log(tmp_path / "own.jsonl", *complaints(20))
    with serve(script="sensible") as server:
        whole = _calls(_run(server, tmp_path / "undisturbed", source))
    before_judging = sum(count for purpose, count in whole.items() if not purpose.startswith("judge-"))
    with serve(script="sensible", log=tmp_path / "log", latency_s=0.1, slots=IN_FLIGHT) as server:
        kept = before_judging + whole["judge-large"] // 2
        at_s = _kill_after(kept, server, tmp_path / "killed", source)
        result = _run(server, tmp_path / "killed", source)
        received, may_be_lost = server.stats()["received"], _lost(server, at_s)
    assert result["status"] == "committed"
    assert {purpose for purpose, count in _calls(result).items() if count} == {"judge-large", "judge-small"}
    assert _calls(result)["judge-small"] == whole["judge-small"]
    assert received - sum(whole.values()) <= may_be_lost
    assert _calls(result)["judge-large"] <= whole["judge-large"] - whole["judge-large"] // 2 + may_be_lost
    for name in TABLES:
        one, two = (table(tmp_path / place, name) for place in ("killed", "undisturbed"))
        assert one.equals(two), name
    assert table(tmp_path / "killed", "pairs").filter(pl.col("origin") == "expert").height > 0
