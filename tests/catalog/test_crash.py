"""A publish that is cut off at any step leaves all tables old or all new, and the same call completes it."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.exceptions import CommitFailedException

from tilth.catalog import Catalog, Release, open_catalog, store
from tilth.catalog.iceberg import TABLE_PROPERTIES, FamilyCatalog
from tilth.schemas import NotFound, TilthError

pytestmark = pytest.mark.slow
DAY = date(2026, 11, 21)


class Crash(BaseException):
    """Ends a publish as a kill would: no handler for errors sees it."""


class CrashAtMetadataWrite:
    """Crashes before the n-th table's next metadata is written."""

    visible = False

    def __init__(self, number: int) -> None:
        self.number = number

    def install(self, patch: pytest.MonkeyPatch) -> None:
        original, calls = FamilyCatalog._write_metadata, itertools.count(1)

        def write(*args: Any, **more: Any) -> None:
            if next(calls) == self.number:
                raise Crash
            original(*args, **more)

        patch.setattr(FamilyCatalog, "_write_metadata", staticmethod(write))


class CrashBeforeSqlCommit:
    """Crashes when all rows are changed and the SQL transaction is not committed."""

    visible = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def commit(catalog: FamilyCatalog, session: Any) -> None:
            session.flush()
            raise Crash

        patch.setattr(FamilyCatalog, "_commit", commit)


class CrashAfterSqlCommit:
    """Crashes when the SQL transaction is committed and nobody has been told."""

    visible = True

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def commit(catalog: FamilyCatalog, session: Any) -> None:
            session.commit()
            raise Crash

        patch.setattr(FamilyCatalog, "_commit", commit)


class CrashBetweenPointers:
    """Crashes when the first table's row is changed and the others' are not."""

    visible = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        original, calls = FamilyCatalog._pointer, itertools.count(1)

        def pointer(catalog: FamilyCatalog, one: Any) -> Any:
            if next(calls) == 2:
                raise Crash
            return original(catalog, one)

        patch.setattr(FamilyCatalog, "_pointer", pointer)


class CrashAtTableCreation:
    """Crashes when some tables of the family have been made, empty."""

    visible = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        original, calls = FamilyCatalog.table, itertools.count(1)

        def table(*args: Any) -> Any:
            if next(calls) == 3:
                raise Crash
            return original(*args)

        patch.setattr(FamilyCatalog, "table", table)


RELEASED = ("conversations", "feedback", "pairs", "quarantine", "rationales", "unpaired")
ANYWHERE = [CrashBetweenPointers(), CrashBeforeSqlCommit(), CrashAfterSqlCommit()]
# The first release writes the metadata of six empty tables, then of their first versions.
FIRST = [CrashAtTableCreation(), *(CrashAtMetadataWrite(number) for number in (6, 7, 12)), *ANYWHERE]
SECOND = [*(CrashAtMetadataWrite(number) for number in (1, 6)), *ANYWHERE]
CRASHES = [*((0, crash) for crash in FIRST), *((1, crash) for crash in SECOND)]


def labels(catalog: Catalog) -> dict[str, str]:
    return {name: catalog.resolve(name).version for name in catalog.datasets()}


def everything(label: str) -> dict[str, str]:
    return {f"observed.{table}": label for table in RELEASED}


@pytest.mark.parametrize(("before", "crash"), CRASHES)
def test_a_crash_leaves_all_old_or_all_new(
    before: int, crash: Any, catalog: Catalog, stage: Callable[..., Any], tmp_path: Path
) -> None:
    """Whatever the step, others see one state over all tables, and a replay gives the new one, once."""
    for number in range(before):
        catalog.publish(Release("observed", f"r{number}", stage(f"r{number}"), date=DAY))
    release = Release("observed", "late", stage("late"), date=DAY)
    with pytest.MonkeyPatch.context() as patch:
        crash.install(patch)
        with pytest.raises(Crash):
            catalog.publish(release)
    old = everything(f"2026.11.21.{before}") if before else {}
    new = everything(f"2026.11.21.{before + 1}")
    with open_catalog(str(tmp_path / "my work #1")) as survivor:
        assert labels(survivor) == (new if crash.visible else old)
        versions = survivor.publish(release)
        assert labels(survivor) == new
        assert [version.rows for version in versions] == [1, 2, 1, 2, 1, 1]
        assert len(survivor.versions("observed.pairs")) == before + 1


KILLED = """
import os, sys, datetime
from tilth.catalog import Release, open_catalog
from tilth.catalog.iceberg import FamilyCatalog
def commit(catalog, session):
    session.flush()
    os._exit(9)
FamilyCatalog._commit = commit
workspace, *files = sys.argv[1:]
open_catalog(workspace).publish(Release("observed", "r1", {"pairs": files}, date=datetime.date(2026, 11, 21)))
"""


def test_a_killed_process_leaves_no_lock(catalog: Catalog, stage: Callable[..., Any], tmp_path: Path) -> None:
    """A process that dies inside the SQL transaction neither publishes nor keeps others from publishing."""
    files = stage("r1", {"pairs": [{}]})
    command = [sys.executable, "-c", KILLED, str(tmp_path / "my work #1"), *files["pairs"]]
    assert subprocess.run(command, check=False).returncode == 9
    assert catalog.datasets() == []
    assert catalog.publish(Release("observed", "r1", files, date=DAY))[0].version == "2026.11.21.1"


def interrupted_by(other: Callable[[], object], times: int) -> Callable[..., None]:
    """A `replace` before which another writer publishes, the first `times` times."""
    from tilth.catalog.iceberg import replace

    calls = itertools.count()

    def slow(*args: Any) -> None:
        if next(calls) < times:
            other()
        replace(*args)

    return slow


def test_a_lost_race_is_run_again(
    catalog: Catalog, stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another writer was faster, both versions are there in the end and no leavings."""
    # Of another day, so that the two do not already meet over their labels.
    rival = Release("observed", "rival", stage("rival", {"pairs": [{}]}), date=date(2026, 11, 20))
    with open_catalog(str(tmp_path / "my work #1")) as other:
        done = iter([lambda: other.publish(rival)])
        slow = interrupted_by(lambda: next(done)(), times=1)
        monkeypatch.setattr("tilth.catalog.iceberg.replace", slow)
        version = catalog.publish(Release("observed", "r1", stage("r1", {"pairs": [{}]}), date=DAY))[0]
    assert version.version == "2026.11.21.1"
    assert [v.properties["tilth.run_id"] for v in catalog.versions("observed.pairs")] == ["r1", "rival"]
    assert orphans(catalog, "pairs") == set()


def orphans(catalog: Catalog, name: str) -> set[str]:
    """Files of the table that no version reaches."""
    table = catalog._iceberg.load_table(("observed", name))
    reached = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        reached |= {
            snapshot.manifest_list,
            *(manifest.manifest_path for manifest in snapshot.manifests(table.io)),
        }
        reached |= set(catalog.resolve(f"observed.{name}@{label_of(table, snapshot.snapshot_id)}").files)
    return {str(path) for path in Path(table.location()).rglob("*") if path.is_file()} - reached


def label_of(table: Any, snapshot_id: int) -> str:
    return next(
        name for name, ref in table.refs().items() if ref.snapshot_id == snapshot_id and name != "main"
    )


def test_two_releases_never_share_a_label(
    catalog: Catalog, stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases of different tables of one family, published at once, get different labels."""
    rival = Release("observed", "rival", stage("rival", {"feedback": [{}]}), date=DAY)
    with open_catalog(str(tmp_path / "my work #1")) as other:
        done = iter([lambda: other.publish(rival)])
        monkeypatch.setattr("tilth.catalog.iceberg.replace", interrupted_by(lambda: next(done)(), times=1))
        catalog.publish(Release("observed", "r1", stage("r1", {"pairs": [{}]}), date=DAY))
    assert labels(catalog) == {"observed.feedback": "2026.11.21.1", "observed.pairs": "2026.11.21.2"}


def metadata_files(catalog: Catalog) -> tuple[set[str], set[str]]:
    """The metadata files that the table of pairs remembers, and those that exist."""
    table = catalog._iceberg.load_table(("observed", "pairs"))
    remembered = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    return remembered, {str(path) for path in Path(table.location()).rglob("*.metadata.json")}


def test_old_metadata_goes_after_the_commit_and_not_before(
    catalog: Catalog, stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata that falls out of the log is deleted, but a crash before the commit deletes none of it."""
    monkeypatch.setitem(TABLE_PROPERTIES, "write.metadata.previous-versions-max", "1")
    for number in range(4):
        catalog.publish(Release("observed", f"r{number}", stage(f"r{number}", {"pairs": [{}]}), date=DAY))
    remembered, existing = metadata_files(catalog)
    assert existing == remembered
    CrashBeforeSqlCommit().install(monkeypatch)
    with pytest.raises(Crash):
        catalog.publish(Release("observed", "late", stage("late", {"pairs": [{}]}), date=DAY))
    remembered, existing = metadata_files(catalog)
    assert remembered <= existing


def test_giving_up_is_an_error(
    catalog: Catalog, stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publish that loses every race ends with an error that says so, and the catalog is as it was."""

    def always_slower(*args: Any) -> None:
        raise CommitFailedException("another process was faster")

    monkeypatch.setattr(FamilyCatalog, "_swap", always_slower)
    monkeypatch.setattr(store, "PATIENCE_S", 0.2)
    with pytest.raises(TilthError, match="could not be committed"):
        catalog.publish(Release("observed", "r1", stage("r1", {"pairs": [{}]}), date=DAY))
    assert catalog.datasets() == []


# Changes of versions that exist: tables and properties change in one SQL transaction, files go after it.


class CrashAtFile:
    """Crashes before the n-th file is deleted, which is after the change has been committed."""

    visible = True

    def __init__(self, number: int) -> None:
        self.number = number

    def install(self, patch: pytest.MonkeyPatch) -> None:
        original, calls = store.remove_file, itertools.count(1)

        def remove(uri: str) -> None:
            if next(calls) == self.number:
                raise Crash
            original(uri)

        patch.setattr(store, "remove_file", remove)


class CrashAtNote:
    """Crashes before it is noted down what is to be deleted."""

    visible = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def write(*args: Any) -> None:
            raise Crash

        patch.setattr(Catalog, "_write_note", write)


COMMITS = [CrashBeforeSqlCommit(), CrashAfterSqlCommit()]
SECOND_TABLE = [CrashAtMetadataWrite(2), CrashBetweenPointers()]
CHANGES = {
    "expire": (
        lambda one: one.expire("observed", ["2026.11.21.2"]),
        [*SECOND_TABLE, CrashAtNote(), *COMMITS],
    ),
    "expire all": (
        lambda one: one.expire("observed", ["2026.11.21.1", "2026.11.21.2"]),
        [*COMMITS, CrashAtFile(1), CrashAtFile(9)],
    ),
    "rollback": (lambda one: one.rollback("observed", "2026.11.21.1"), [*SECOND_TABLE, *COMMITS]),
    "rename": (lambda one: one.rename("observed", "seen"), COMMITS),
    "drop": (lambda one: one.drop("observed", "2026.11.21.2"), COMMITS[:1]),
}
CASES = [(name, crash) for name, (_, crashes) in CHANGES.items() for crash in crashes]


def state(catalog: Catalog) -> Any:
    """What a reader can see, and whether it can be read."""
    seen = {name: [v.version for v in catalog.versions(name)] for name in catalog.datasets()}
    rows = {f"{n}@{v}": catalog.arrow(f"{n}@{v}")["id"].to_pylist() for n, vs in seen.items() for v in vs}
    return rows, sorted(catalog.dropped("observed"))


@pytest.mark.parametrize(
    ("name", "crash"), CASES, ids=lambda one: one if isinstance(one, str) else type(one).__name__
)
def test_a_crash_in_a_change_leaves_old_or_new(
    name: str, crash: Any, catalog: Catalog, stage: Callable[..., Any], tmp_path: Path
) -> None:
    """Others see the catalog as it was or as it is to be, all of it readable; the same call again completes it."""
    change, _ = CHANGES[name]
    for run in ("a", "b"):
        rows: dict[str, list[dict[str, Any]]] = {"pairs": [{"id": run}], "feedback": [{"id": run}]}
        catalog.publish(Release("observed", run, stage(run, rows), date=DAY))
    old = state(catalog)
    with pytest.MonkeyPatch.context() as patch:
        crash.install(patch)
        with pytest.raises(Crash):
            change(catalog)
    with open_catalog(str(tmp_path / "my work #1")) as survivor:
        between = state(survivor)
        assert (between == old) != crash.visible
        with contextlib.suppress(NotFound):  # a renamed family is not there, a dropped version not either
            change(survivor)
        new = state(survivor)
        assert new != old
        assert new == between or not crash.visible
        if name.startswith("expire"):
            files = {str(path) for path in Path(survivor.warehouse).rglob("*") if path.is_file()}
            left = files - survivor.reachable()
            assert not [uri for uri in left if uri.endswith(".parquet")]
            assert {Path(uri).suffix for uri in left} <= {".json"}  # of an attempt that came to nothing
