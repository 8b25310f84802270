"""A stream of incremental runs: reads what is new, keeps what it has read, makes what one run over all would make."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from integration.sample_world import LOGS, run_on
from tilth.catalog import Catalog, open_catalog
from tilth.flows.forget import Request, forget
from tilth.flows.result import RunResult
from tilth.flows.settings import load
from tilth.schemas import BadInput, NotFound
from tilth.transforms.ingest import Ingest
from tilth.transforms.stage import Output, Task

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_beam_or_gx")]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that ingest has opened, in order."""
    opened: list[str] = []
    honest = Ingest.run

    def watched(self: Ingest, task: Task, out: Output) -> None:
        opened.extend(Path(file["uri"]).name for file in task.options["files"])
        honest(self, task, out)

    monkeypatch.setattr(Ingest, "run", watched)
    return opened


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder of logs with two files: halves of the sample."""
    folder = tmp_path / "inbox"
    folder.mkdir()
    lines = (LOGS / "support.openai.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "2026-01-02.jsonl").write_bytes(b"".join(lines[:30]))
    (folder / "2026-01-03.jsonl").write_bytes(b"".join(lines[30:60]))
    return folder


def late(inbox: Path) -> Path:
    """A third file, whose name sorts before the others."""
    lines = (LOGS / "support.openai.jsonl").read_bytes().splitlines(keepends=True)
    path = inbox / "2026-01-01.jsonl"
    path.write_bytes(b"".join(lines[60:]))
    return path


def increment(tmp_path: Path, inbox: Path, **options: Any) -> RunResult:
    return run_on(tmp_path / "work", [f"{inbox}/*.jsonl"], incremental=True, **options)


def frame(catalog: Catalog, table: str) -> pl.DataFrame:
    return catalog.frame(f"observed.{table}").collect()


def test_only_the_new_file_is_read(tmp_path: Path, inbox: Path, reads: list[str]) -> None:
    """The second run opens the new file alone, and its version equals that of one run over all three, in that order."""
    first = increment(tmp_path, inbox)
    assert reads == ["2026-01-02.jsonl", "2026-01-03.jsonl"]
    assert first.files == {"new": 2}
    reads.clear()
    added = late(inbox)
    second = increment(tmp_path, inbox)
    assert reads == [added.name]
    assert second.files == {"new": 1, "seen": 2}
    assert second.rows_in > first.rows_in
    names = ("2026-01-02.jsonl", "2026-01-03.jsonl", "2026-01-01.jsonl")
    run_on(tmp_path / "whole", [str(inbox / name) for name in names])
    with open_catalog(str(tmp_path / "work")) as ours, open_catalog(str(tmp_path / "whole")) as theirs:
        for table in ("feedback", "pairs", "unpaired", "rationales", "rubrics"):
            assert_frame_equal(frame(ours, table), frame(theirs, table))


def test_nothing_new_makes_no_version(tmp_path: Path, inbox: Path, reads: list[str]) -> None:
    """A run that finds what it has read, even if files were touched, reads nothing and makes nothing."""
    first = increment(tmp_path, inbox)
    reads.clear()
    (inbox / "2026-01-02.jsonl").touch()
    again = increment(tmp_path, inbox)
    assert (again.status, again.run_id, again.files) == ("unchanged", first.run_id, {"new": 0, "seen": 2})
    assert reads == []
    with open_catalog(str(tmp_path / "work")) as catalog:
        assert len(catalog.versions("observed.pairs")) == 1


def test_a_changed_file_is_read_again(tmp_path: Path, inbox: Path, reads: list[str]) -> None:
    """A file that has grown is read again, alone, and its new rows take the place of the old."""
    increment(tmp_path, inbox)
    reads.clear()
    lines = (LOGS / "support.openai.jsonl").read_bytes().splitlines(keepends=True)
    (inbox / "2026-01-03.jsonl").write_bytes(b"".join(lines[30:]))
    grown = increment(tmp_path, inbox)
    assert reads == ["2026-01-03.jsonl"]
    assert grown.files == {"new": 0, "seen": 1, "changed": 1}
    whole = run_on(
        tmp_path / "whole", [str(inbox / name) for name in ("2026-01-02.jsonl", "2026-01-03.jsonl")]
    )
    assert grown.rows_in == whole.rows_in
    with open_catalog(str(tmp_path / "work")) as ours, open_catalog(str(tmp_path / "whole")) as theirs:
        assert_frame_equal(frame(ours, "pairs"), frame(theirs, "pairs"))


def test_rows_of_deleted_files_stay_or_go(tmp_path: Path, inbox: Path, reads: list[str]) -> None:
    """Logs are rotated away: their rows stay by default, without a new version; `on_deleted=drop` lets them go."""
    first = increment(tmp_path, inbox)
    reads.clear()
    (inbox / "2026-01-02.jsonl").unlink()
    kept = increment(tmp_path, inbox)
    assert (kept.status, kept.files) == ("unchanged", {"new": 0, "seen": 1, "gone": 1})
    late(inbox)
    more = increment(tmp_path, inbox)
    assert more.rows_in > first.rows_in
    assert reads == ["2026-01-01.jsonl"]
    dropped = increment(tmp_path, inbox, on_deleted="drop")
    assert dropped.rows_in < more.rows_in
    with open_catalog(str(tmp_path / "work")) as catalog:
        sources = frame(catalog, "conversations").get_column("source_id").to_list()
    assert "sup-001" not in sources
    for file in inbox.iterdir():
        file.unlink()
    with pytest.raises(BadInput, match="all source files are gone"):
        increment(tmp_path, inbox, on_deleted="drop")


def test_rows_that_cannot_be_kept_are_an_error(tmp_path: Path, inbox: Path) -> None:
    """Where the file is gone and what was read of it too, the run says so instead of losing rows."""
    increment(tmp_path, inbox)
    (inbox / "2026-01-02.jsonl").unlink()
    shutil.rmtree(tmp_path / "work" / "streams")
    late(inbox)
    with pytest.raises(NotFound, match="gone"):
        increment(tmp_path, inbox)


def _at_once(work: str, inbox: str, start: Any, results: Any) -> None:
    start.wait()
    result = run_on(Path(work), [f"{inbox}/*.jsonl"], incremental=True)
    results.put((result.status, result.run_id))


def test_two_runs_at_once_make_one_version(tmp_path: Path, inbox: Path) -> None:
    """Of two equal runs that begin together one does the work; the other waits, then finds it done."""
    context = multiprocessing.get_context("spawn")
    start, results = context.Event(), context.Queue()
    both = [
        context.Process(target=_at_once, args=(str(tmp_path / "work"), str(inbox), start, results))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    start.set()
    told = sorted(results.get(timeout=120) for _ in both)
    for one in both:
        one.join()
    assert [status for status, _ in told] == ["committed", "unchanged"]
    assert told[0][1] == told[1][1]
    with open_catalog(str(tmp_path / "work")) as catalog:
        assert len(catalog.versions("observed.pairs")) == 1


def test_the_forgotten_stay_out_though_their_file_is_gone(tmp_path: Path, inbox: Path) -> None:
    """After a purge, the next run of a stream leaves out what it has read before, and loses nobody else."""
    increment(tmp_path, inbox)
    work = str(tmp_path / "work")
    with open_catalog(work) as catalog:
        before = frame(catalog, "conversations")
    wanted = before.row(0, named=True)
    words = wanted["messages"][0]["content"]
    (inbox / "2026-01-02.jsonl").unlink()
    forget(load(options={"workspace": work}), Request(conversation=wanted["id"], purge=True))
    for part in (tmp_path / "work").rglob("*.parquet"):
        assert words not in str(pl.read_parquet(part).to_dicts()), part.name
    late(inbox)
    after = increment(tmp_path, inbox)
    assert after.rows_in == len((LOGS / "support.openai.jsonl").read_bytes().splitlines())
    with open_catalog(work) as catalog:
        now, aside = frame(catalog, "conversations"), frame(catalog, "quarantine")
    assert set(before.get_column("id")) - set(now.get_column("id")) == {wanted["id"]}
    assert aside.filter(pl.col("reason") == "forgotten").height == 1
    assert aside.filter(pl.col("stage") == "ingest").get_column("payload").null_count() > 0
    for part in (tmp_path / "work").rglob("*.parquet"):
        assert words not in str(pl.read_parquet(part).to_dicts()), part.name
