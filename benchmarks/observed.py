"""The whole `observed` run: wall time against a hand-written script, peak memory as input grows, equal tables anywhere.

    make bench                                  # 1,000,000 conversations; a few minutes on two cores
    python benchmarks/observed.py --rows 200000

Each measurement is a process of its own; memory is the largest resident set of it and its children, sampled.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil
from generate import generate

HERE = Path(__file__).resolve().parent
BENCH = HERE.parent / ".bench"
TILTH = [sys.executable, "-m", "tilth.flows.cli"]
TABLES = ("conversations", "feedback", "pairs", "unpaired", "rationales", "rubrics", "quarantine")
SAMPLE_S = 0.05


@dataclass(frozen=True)
class Measured:
    """One process: wall seconds, peak resident MB (children included), what it printed."""

    seconds: float
    peak_mb: float
    printed: str


def measure(command: list[str]) -> Measured:
    """Runs a command to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident(watched))
        time.sleep(SAMPLE_S)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    assert process.stdout is not None
    return Measured(seconds, peak / 2**20, process.stdout.read())


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def observed(source: Path, name: str, *options: str) -> Measured:
    """`tilth run observed` on a fresh workspace."""
    workspace = BENCH / f"workspace-{name}"
    shutil.rmtree(workspace, ignore_errors=True)
    return measure([*TILTH, "run", "observed", "-s", str(source), "-w", str(workspace), "--json", *options])


def by_hand(source: Path) -> Measured:
    """The hand-written script."""
    return measure([sys.executable, str(HERE / "by_hand.py"), str(source), str(BENCH / "by-hand")])


def table_of(name: str, table: str) -> pl.DataFrame:
    """A committed table, in its order."""
    from tilth.catalog import open_catalog

    return open_catalog(str(BENCH / f"workspace-{name}"), create=False).frame(f"observed.{table}").collect()


def compare_speed(source: Path, rows: int) -> Measured:
    """Prints ours beside the hand-written script's, and the stages."""
    hand = min((by_hand(source) for _ in range(2)), key=lambda m: m.seconds)
    ours = min((observed(source, "local") for _ in range(2)), key=lambda m: m.seconds)
    print(f"\n## {rows:,} conversations, best of two\n")
    print("| | seconds | conversations/s | peak MB | ratio of seconds |")
    print("|---|---|---|---|---|")
    for name, one in (("by hand (polars, whole file)", hand), ("tilth run observed", ours)):
        ratio = one.seconds / hand.seconds
        print(
            f"| {name} | {one.seconds:.1f} | {rows / one.seconds:,.0f} | {one.peak_mb:,.0f} | {ratio:.2f} |"
        )
    result = json.loads(ours.printed)
    print("\nstages: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result["seconds"].items()))
    counts = {d["name"].partition(".")[2]: d["rows"] for d in result["datasets"]}
    print(f"rows: {counts}; by hand: {hand.printed.strip()}")
    return ours


def compare_memory(large: Measured, rows: int, small_rows: int) -> None:
    """Prints peak memory at two sizes."""
    small = observed(generate(small_rows, BENCH / f"logs-{small_rows}.jsonl"), "small")
    print("\n## Peak memory\n\n| conversations | peak MB | ratio |\n|---|---|---|")
    print(f"| {small_rows:,} | {small.peak_mb:,.0f} | 1.00 |")
    print(f"| {rows:,} | {large.peak_mb:,.0f} | {large.peak_mb / small.peak_mb:.2f} |")


def compare_runners(rows: int) -> None:
    """Prints whether other runners give the same tables, row for row."""
    source = generate(rows, BENCH / f"logs-{rows}.jsonl")
    print(f"\n## The same tables on other runners, {rows:,} conversations\n")
    print("| runner | seconds | tables equal to local's, row for row |\n|---|---|---|")
    for runner in ("local", "processes", "dask"):
        taken = observed(source, runner, "--runner", runner)
        equal = [table for table in TABLES if table_of(runner, table).equals(table_of("local", table))]
        print(f"| {runner} | {taken.seconds:.1f} | {len(equal)} of {len(TABLES)} |")


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--small-rows", type=int, default=100_000)
    given = parser.parse_args()
    source = generate(given.rows, BENCH / f"logs-{given.rows}.jsonl")
    ours = compare_speed(source, given.rows)
    compare_memory(ours, given.rows, given.small_rows)
    compare_runners(given.small_rows)


if __name__ == "__main__":
    main()
