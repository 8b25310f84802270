"""`kill -9` of `tilth run wildfeedback` in the middle of judging: the run goes on there and makes the same data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from integration.killing import killed_after, lost
from integration.wild_world import complaints, table, write_log
from loopback import Loopback, serve

IN_FLIGHT = 4
# What may pass between the server's last byte and the commit, beyond the flush window.
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


def _calls(result: dict[str, Any]) -> dict[str, int]:
    return {purpose: used["calls"] for purpose, used in result["usage"]["purposes"].items()}


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
        at_s = killed_after(kept, server, _command(server, tmp_path / "killed", source))
        result = _run(server, tmp_path / "killed", source)
        received, may_be_lost = server.stats()["received"], lost(server, at_s)
    assert result["status"] == "committed"
    assert {purpose for purpose, count in _calls(result).items() if count} == {"judge-large", "judge-small"}
    assert _calls(result)["judge-small"] == whole["judge-small"]
    assert received - sum(whole.values()) <= may_be_lost
    assert _calls(result)["judge-large"] <= whole["judge-large"] - whole["judge-large"] // 2 + may_be_lost
    for name in TABLES:
        one, two = (table(tmp_path / place, name) for place in ("killed", "undisturbed"))
        assert one.equals(two), name
    assert table(tmp_path / "killed", "pairs").filter(pl.col("origin") == "expert").height > 0
