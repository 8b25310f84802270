"""The step in its stage, what its configuration means, and how much memory a read takes."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tilth.schemas import ConfigError, conform
from tilth.transforms import ingest as room
from tilth.transforms.ingest import Ingest, expand, plan, read
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Output, Task

Write = Callable[..., Path]
USER, ASSISTANT = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}


def test_step_writes_and_counts(jsonl: Write, tmp_path: Path) -> None:
    """A task's parts hold its conversations and quarantine, and its counts add up, also by source."""
    path = jsonl([{"messages": [USER, ASSISTANT]}, b"{", {"messages": [USER, ASSISTANT], "user": "u"}])
    (options,) = plan(expand([str(path)]))
    out = Output("000000", {}, str(tmp_path / "out"))
    Ingest(user_salt="s").run(Task("000000", options=options), out)
    (part,), (aside,) = out.outputs["conversations"], out.outputs["quarantine"]
    conversations = read_part(part)
    assert conversations.equals(conform(conversations, "conversations"))
    assert conversations["split"].null_count() == part.rows == 2
    assert aside.rows == 1
    assert (out.counts["rows_in"], out.counts[f"rows_in@{path}"], out.counts["quarantined.broken_json"]) == (
        3,
        3,
        1,
    )


def test_step_travels_to_workers() -> None:
    """The step pickles by reference and stays equal."""
    step = Ingest(user_salt="s", on_consecutive="merge")
    assert pickle.loads(pickle.dumps(step)) == step


@pytest.mark.parametrize("wrong", [{"on_consecutive": "drop"}, {"max_message_chars": 0}])
def test_step_refuses_settings_without_a_meaning(wrong: dict[str, Any]) -> None:
    """A setting with a value that means nothing is a ConfigError at once, not in a worker."""
    with pytest.raises(ConfigError):
        Ingest(**wrong)


def test_index_of_the_room() -> None:
    """The room's index is short, and every name of it exists."""
    assert len(room.__all__) <= 15
    assert {"Ingest", "plan", "inspect", "detect", "expand", "SHAPES"} <= set(room.__all__)
    assert all(hasattr(room, name) for name in room.__all__)


def test_options_are_json_and_change_with_the_file(jsonl: Write) -> None:
    """Task options survive JSON, and another content of the same file gives other options."""
    path = jsonl([{"messages": [USER, ASSISTANT]}])
    before = plan(expand([str(path)]))
    assert json.loads(json.dumps(before)) == before
    path.write_text(path.read_text().replace("Hello", "Adieu"))
    assert plan(expand([str(path)])) != before


def test_batches_are_bounded(jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches stay below the bounds on rows and bytes, and lose no row at their borders."""
    path = jsonl([{"id": n, "messages": [USER, {**ASSISTANT, "content": "x" * 100}]} for n in range(5000)])
    (task,) = plan(expand([str(path)]))
    monkeypatch.setattr("tilth.transforms.ingest.batches._CHAT_ROWS", 400)
    for bound, value in (("BATCH_ROWS", 1000), ("BATCH_BYTES", 150_000)):
        with monkeypatch.context() as patch:
            patch.setattr(f"tilth.transforms.ingest.batches.{bound}", value)
            batches = list(read(task))
        assert len(batches) >= 5
        assert max(batch.conversations.height for batch in batches) <= 1000
        ids = pl.concat([batch.conversations["source_id"] for batch in batches])
        assert ids.to_list() == [str(n) for n in range(5000)]


# The high-water mark of its own memory: `ru_maxrss` would keep that of the process it was forked from.
MEASURE = """
import re, sys
from pathlib import Path
from tilth.transforms.ingest import expand, plan, read
rows = sum(batch.rows_in for task in plan(expand([sys.argv[1]])) for batch in read(task))
print(rows, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_memory_does_not_grow_with_input(suffix: str, tmp_path: Path) -> None:
    """Reading 160 MB more takes less than 60 MB more memory."""
    row = json.dumps(
        {"messages": [{**USER, "content": "word " * 400}, {**ASSISTANT, "content": "word " * 400}]}
    )
    small, large = (peak_kib(tmp_path / f"{rows}.{suffix}", row, rows) for rows in (24_000, 64_000))
    assert large - small < 60_000


def peak_kib(path: Path, row: str, rows: int) -> int:
    """The peak memory of a process that reads a file of equal rows."""
    path.write_text("\n".join([row] * rows) if path.suffix == ".jsonl" else f"[{','.join([row] * rows)}]")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    read_rows, peak = map(int, done.stdout.split())
    assert read_rows == rows
    return peak
