"""Runs: repeatable, resumable, whole or not at all."""

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

from integration.sample_world import LOGS, World, run_on
from tilth.catalog import open_catalog
from tilth.pipelines.observed import TABLES
from tilth.schemas import ChecksFailed, QuarantineOverflow
from tilth.transforms.pairs import Settled, settle

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("samples")]
TILTH = [sys.executable, "-m", "tilth.flows.cli"]


def _conversation(number: int) -> dict[str, Any]:
    complaint = [
        "no, that is wrong, you did not answer my question",
        "what about tea?",
        "thanks, that helped!",
    ]
    return {
        "id": f"c-{number}",
        "user": f"u-{number // 3}",
        "messages": [
            {"role": "user", "content": f"How do I brew coffee number {number}?"},
            {"role": "assistant", "content": f"Boil water, wait {number} minutes."},
            {"role": "user", "content": complaint[number % 3]},
            {"role": "assistant", "content": f"Grind beans first, then pour water for {number} seconds."},
            {"role": "user", "content": "perfect, that is exactly what I needed, thank you"},
        ],
    }


def _write(path: Path, numbers: range) -> str:
    path.write_text("".join(json.dumps(_conversation(n)) + "\n" for n in numbers))
    return str(path)


def _many(folder: Path, files: int = 8, rows: int = 60) -> list[str]:
    return [_write(folder / f"logs-{n}.jsonl", range(n * rows, (n + 1) * rows)) for n in range(files)]


def _tables(workspace: Path) -> dict[str, pl.DataFrame]:
    catalog = open_catalog(str(workspace), create=False)
    return {table: catalog.frame(f"observed.{table}").collect() for table in TABLES}


def _equal(one: dict[str, pl.DataFrame], other: dict[str, pl.DataFrame]) -> bool:
    return all(one[table].equals(other[table]) for table in TABLES)


def test_the_same_command_again_does_nothing(tmp_path: Path) -> None:
    """A second run recomputes nothing, makes no new version and reports the same facts."""
    sources = _many(tmp_path, files=2)
    first, second = (run_on(tmp_path / "w", sources) for _ in range(2))
    assert (first.status, second.status) == ("committed", "unchanged")
    assert first.datasets == second.datasets
    assert (first.sources, first.quarantined) == (second.sources, second.quarantined)
    assert second.seconds == {}
    assert len(open_catalog(str(tmp_path / "w")).versions("observed.pairs")) == 1


def test_a_changed_source_or_setting_makes_a_new_version(tmp_path: Path) -> None:
    """Changed input or configuration is computed anew, and the earlier version stays."""
    sources = _many(tmp_path, files=1)
    first = run_on(tmp_path / "w", sources)
    _write(tmp_path / "logs-0.jsonl", range(90))
    second = run_on(tmp_path / "w", sources)
    third = run_on(tmp_path / "w", sources, observed={"pairs": {"min_positive": 0.99}})
    assert len({result.run_id for result in (first, second, third)}) == 3
    assert [result.rows_in for result in (first, second, third)] == [60, 90, 90]
    catalog = open_catalog(str(tmp_path / "w"))
    versions = [result.datasets[0].version for result in (first, second, third)]
    assert [version.version for version in catalog.versions("observed.conversations")] == versions[::-1]
    assert catalog.resolve(f"observed.conversations@{versions[0]}").rows == 60


def test_equal_input_gives_byte_identical_tables(tmp_path: Path) -> None:
    """The same sources and seed give the same bytes in another workspace."""
    sources = _many(tmp_path, files=2)
    parts = []
    for name in ("one", "two"):
        run_on(tmp_path / name, sources)
        catalog = open_catalog(str(tmp_path / name))
        parts.append([[Path(f).read_bytes() for f in catalog.resolve(f"observed.{t}").files] for t in TABLES])
    assert parts[0] == parts[1]
    assert sum(len(files) for files in parts[0]) >= 5


@pytest.mark.parametrize("finished", [2, 17])
def test_kill_and_run_again_gives_the_same_tables(tmp_path: Path, finished: int) -> None:
    """After kill -9 only unfinished tasks are run, and the tables are those of an undisturbed run."""
    sources = _many(tmp_path)
    run_on(tmp_path / "undisturbed", sources)
    workspace = tmp_path / "killed"
    command = [*TILTH, "run", "observed", "-w", str(workspace), "--json", "--set", "keep_stages=true"]
    command += [option for source in sources for option in ("-s", source)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(_manifests(workspace)) < finished:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in _manifests(workspace)}
    assert open_catalog(str(workspace)).datasets() == []
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = {path: path.stat().st_mtime_ns for path in _manifests(workspace)}
    assert len(before) >= finished
    assert before == {path: after[path] for path in before}
    assert len(after) > len(before)
    assert _equal(_tables(workspace), _tables(tmp_path / "undisturbed"))


def _manifests(workspace: Path) -> list[Path]:
    return sorted(
        path for path in workspace.glob("runs/*/stages/*/done/*.json") if not path.name.startswith(".")
    )


def test_five_percent_broken_rows_are_all_set_aside(tmp_path: Path) -> None:
    """A source with 5 % broken rows runs, and quarantine holds them all with their bytes."""
    lines = [json.dumps(_conversation(n)) for n in range(400)]
    broken = {
        20 * n: ["{broken", '{"messages": "x"}', '{"id": 7, "messages": []}', "[1, 2]"][n % 4]
        for n in range(20)
    }
    source = tmp_path / "logs.jsonl"
    source.write_text("".join(broken.get(n, line) + "\n" for n, line in enumerate(lines)))
    result = run_on(tmp_path / "w", [str(source)])
    assert (result.rows_in, result.rows_quarantined) == (400, 20)
    quarantine = _tables(tmp_path / "w")["quarantine"].filter(pl.col("source_rows") > 0)
    assert sorted(quarantine["payload"]) == sorted(broken.values())


def test_too_many_broken_rows_fail_and_name_the_worst_reasons(tmp_path: Path) -> None:
    """Above the configured share the run fails, names the reasons, and commits nothing."""
    source = tmp_path / "logs.jsonl"
    source.write_text(json.dumps(_conversation(1)) + "\n" + "{broken\n" * 9)
    with pytest.raises(QuarantineOverflow, match="broken_json: 9") as caught:
        run_on(tmp_path / "w", [str(source)], max_quarantine_share=0.5)
    assert "90.0% of 10" in str(caught.value)
    assert open_catalog(str(tmp_path / "w")).datasets() == []


def test_a_failed_audit_commits_nothing_and_keeps_the_staged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a rule goes wrong the audit stops it: the catalog is as it was, the files are there to look at."""
    sources = _many(tmp_path, files=1)
    before = run_on(tmp_path / "w", sources)

    def swaps_sides(*given: Any) -> Settled:
        settled = settle(*given)
        return settled._replace(pairs=settled.pairs.with_columns(chosen=pl.col("rejected")))

    monkeypatch.setattr("tilth.transforms.steps.settle", swaps_sides)
    with pytest.raises(ChecksFailed, match="chosen_equals_rejected") as caught:
        run_on(tmp_path / "w", sources, observed={"seed": 1})
    assert caught.value.exit_code == 3
    catalog = open_catalog(str(tmp_path / "w"))
    assert [version.version for version in catalog.versions("observed.pairs")] == [before.datasets[2].version]
    staged = list((tmp_path / "w").glob("catalog/warehouse/observed/pairs/data/run=*/*.parquet"))
    assert len(staged) == 1 + len(catalog.resolve("observed.pairs").files)


@pytest.mark.parametrize("runner", ["processes", "dask"])
def test_other_runners_give_the_same_tables(
    tmp_path: Path, world: World, sample_sources: list[str], runner: str
) -> None:
    """The graph does not care where it runs: the same tables, row for row."""
    result = run_on(tmp_path, sample_sources, runner={"name": runner})
    assert result.run_id == world.result.run_id
    assert _equal(_tables(tmp_path), {table: world.table(table) for table in TABLES})


def test_a_folder_counts_what_was_set_aside_of_its_files(tmp_path: Path) -> None:
    """Rows of a source that is a folder or a pattern add up as those of a single file do."""
    (tmp_path / "inbox").mkdir()
    for name in ("support.openai.jsonl", "community.oasst.jsonl"):
        (tmp_path / "inbox" / name).write_bytes((LOGS / name).read_bytes())
    (source,) = run_on(tmp_path / "work", [str(tmp_path / "inbox")]).sources
    assert source.source == str(tmp_path / "inbox")
    assert source.rows_in == source.rows_out + source.rows_quarantined
    assert source.rows_quarantined == 9
