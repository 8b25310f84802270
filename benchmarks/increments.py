"""A day's logs on top of ten: an incremental run beside a run over everything, and the same query in a box and bare.

    python benchmarks/increments.py                  # 100,000 conversations and 10,000 more; about three minutes
    python benchmarks/increments.py --rows 1000000

Each run is a process of its own. The tables of both must be equal, row for row, or there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from generate import generate
from observed import BENCH, TILTH, Measured, measure

FILES = 10
SHARED = ("feedback", "pairs", "unpaired", "rationales", "rubrics")


def run(name: str, sources: list[Path], *options: str) -> Measured:
    """`tilth run observed` over files, into the workspace of this name."""
    given = [word for source in sources for word in ("-s", str(source))]
    workspace = str(BENCH / f"workspace-{name}")
    return measure([*TILTH, "run", "observed", *given, "-w", workspace, "--json", *options])


def split(rows: int) -> list[Path]:
    """The logs in ten files, and an eleventh of the same size."""
    folder = BENCH / f"days-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    each = rows // FILES
    whole = generate(rows + each, BENCH / f"logs-{rows + each}.jsonl")
    paths = [folder / f"day-{number:02d}.jsonl" for number in range(FILES + 1)]
    with whole.open("rb") as lines:
        for path in paths:
            with path.open("wb") as day:
                day.writelines(line for _, line in zip(range(each), lines, strict=False))
    return paths


def equal(one: str, other: str) -> bool:
    """Whether two workspaces hold the same rows, in order."""
    from tilth.catalog import open_catalog

    names = [f"observed.{table}" for table in SHARED]
    with (
        open_catalog(str(BENCH / f"workspace-{one}")) as ours,
        open_catalog(str(BENCH / f"workspace-{other}")) as theirs,
    ):
        return all(ours.frame(name).collect().equals(theirs.frame(name).collect()) for name in names)


def compare_runs(rows: int) -> None:
    """Prints seconds of the second run, incremental and whole."""
    days = split(rows)
    folder = days[0].parent
    last = days[-1].rename(BENCH / days[-1].name)
    for name in ("stream", "whole"):
        shutil.rmtree(BENCH / f"workspace-{name}", ignore_errors=True)
    first = run("stream", [folder], "--incremental")
    shutil.move(last, days[-1])
    second = run("stream", [folder], "--incremental")
    third = run("stream", [folder], "--incremental")
    whole = run("whole", [folder])
    if not equal("stream", "whole"):
        raise SystemExit("the incremental version is not the version of everything")
    print(f"\n## {rows:,} conversations in {FILES} files, then {rows // FILES:,} in one more\n")
    print("| run | files read | seconds | ratio to a run over all |\n|---|---|---|---|")
    for name, one in (
        ("all eleven files, at once", whole),
        ("the first ten", first),
        ("incremental: the eleventh", second),
        ("incremental: nothing new", third),
    ):
        told = json.loads(one.printed)
        print(f"| {name} | {told['files']['new']} | {one.seconds:.1f} | {one.seconds / whole.seconds:.2f} |")
    stages = json.loads(second.printed)["seconds"]
    print("\nstages of the eleventh: " + ", ".join(f"{name} {taken:.1f} s" for name, taken in stages.items()))


def compare_queries() -> None:
    """Prints seconds of one query through the catalog, box included, and of DuckDB on the bare files."""
    from tilth.catalog import open_catalog, query

    sql = "select split, count(*), avg(len(prompt)) from {} group by 1 order by 1"
    with open_catalog(str(BENCH / "workspace-whole")) as catalog:
        files = list(catalog.resolve("observed.unpaired").files)
        bare = timed(lambda: duckdb.connect().execute(sql.format(f"read_parquet({files})")).fetchall())
        boxed = timed(lambda: query(catalog, sql.format("observed.unpaired")))
    print("\n## One query over a table, best of five\n\n| | ms | ratio |\n|---|---|---|")
    for name, taken in (("DuckDB on the files", bare), ("tilth catalog query", boxed)):
        print(f"| {name} | {taken * 1000:.0f} | {taken / bare:.2f} |")


def timed(work: Callable[[], object]) -> float:
    """Seconds, best of five."""
    taken: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    compare_runs(parser.parse_args().rows)
    compare_queries()


if __name__ == "__main__":
    main()
