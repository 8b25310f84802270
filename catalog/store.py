"""The catalog: datasets by name and version, published whole or not at all."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import fsspec
import polars as pl
import pyarrow as pa

from tilth.catalog.audit import AuditReport
from tilth.catalog.names import check_family, check_run, next_label, not_found, ordinal, parse
from tilth.catalog.parts import dataset, inspect, plain, scan
from tilth.schemas import TABLES, BadInput, ConfigError, NotFound, TilthError

if TYPE_CHECKING:
    from datasets import Dataset
    from pyiceberg.table import Table

    from tilth.catalog.iceberg import FamilyCatalog

PATIENCE_S: Final = 120.0  # how long a publish tries against other writers


def _today() -> date:
    return datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class Release:
    """What one run hands over: parts of every table it made, and where they came from.

    Args:
        family: the recipe, e.g. `observed`.
        run_id: the run's identity; a run is published once.
        files: table -> URIs of its parts, in the order of rows; a table without rows has none, and a version
        too. properties: kept with every version; keys start with `tilth.`. audit: the result of the audit;
        critical failures refuse the release. date: the day that the version is named by.
    """

    family: str
    run_id: str
    files: Mapping[str, Sequence[str]]
    properties: Mapping[str, str] = field(default_factory=dict)
    audit: AuditReport | None = None
    date: date = field(default_factory=_today)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one dataset."""

    name: str  # family.table
    version: str  # YYYY.MM.DD.N
    rows: int
    snapshot_id: int
    files: tuple[str, ...]  # in the order of rows
    created_at: datetime
    properties: Mapping[str, str]  # keys start with `tilth.`

    @property
    def family(self) -> str:
        """The recipe that made it."""
        return self.name.partition(".")[0]

    @property
    def table(self) -> str:
        """The table of `tilth.schemas.TABLES` that its rows belong to."""
        return self.name.partition(".")[2]


class Catalog:
    """Datasets over an Iceberg catalog. Made by `open_catalog`; as a context manager it closes itself."""

    def __init__(self, iceberg: FamilyCatalog, warehouse: str) -> None:
        self._iceberg, self._warehouse = iceberg, warehouse

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections to the database."""
        self._iceberg.close()

    def staging(self, family: str, table: str, run_id: str) -> str:
        """The directory for a run's parts of `table`; nothing in it is visible before `publish`."""
        check_family(family)
        check_run(run_id)
        if table not in TABLES:
            raise BadInput("the name of a table", found=table, wanted=", ".join(TABLES))
        return f"{self._warehouse}/{family}/{table}/data/run={run_id}"

    def publish(self, release: Release) -> list[Version]:
        """Makes the parts of a release the newest version of its tables: all of them at once, under one
        label.

        A run that is committed already is not published again; its versions are returned. When other
        processes publish at the same time, nobody's version is lost. A crash leaves all tables old or all
        new, and the same call again completes it.

        Raises `ChecksFailed` when the audit has critical failures, `TilthError` naming file and column when a
        part does not fit its table or lies outside the catalog, `NotFound` for a missing part, and
        `TilthError` when other writers were faster for two minutes.
        """
        if done := self.find_run(release.family, release.run_id):
            return done
        self._refuse_bad(release)
        properties = self._properties(release)
        for pause in _pauses():
            try:
                return self._attempt(release, properties)
            except self._lost_race():
                time.sleep(pause)
        raise TilthError(
            f"run {release.run_id} could not be committed to {release.family}",
            found="other writers were faster every time",
            do="run again; the staged files are kept",
        )

    def _attempt(self, release: Release, properties: Mapping[str, Mapping[str, str]]) -> list[Version]:
        from tilth.catalog.iceberg import replace

        family = release.family
        if done := self.find_run(family, release.run_id):
            return done
        tables = {name: self._iceberg.table(family, name, TABLES[name]) for name in release.files}
        label = next_label(release.date, self._iceberg.claims(family))
        with self._iceberg.together(family, label, release.run_id):
            for name, table in tables.items():
                uris = [plain(uri) for uri in release.files[name]]
                replace(table, uris, TABLES[name], label, {**properties[name], "tilth.version": label})
        return self._labelled(family, label)

    def _lost_race(self) -> tuple[type[Exception], ...]:
        from pyiceberg.exceptions import CommitFailedException
        from sqlalchemy.exc import OperationalError

        # SQLite answers OperationalError when it is locked for longer than the timeout. Whatever became of
        # the transaction, trying again is safe: it begins by looking for the run.
        return CommitFailedException, OperationalError

    def _refuse_bad(self, release: Release) -> None:
        if not release.files:
            raise BadInput(
                f"release {release.run_id} of {release.family}", found="no tables", wanted="at least one"
            )
        if release.audit:
            release.audit.refuse()
        for table, uris in release.files.items():
            home = plain(self.staging(release.family, table, release.run_id)).rpartition("/")[0]
            strays = [uri for uri in uris if not plain(uri).startswith(f"{home}/")]
            if strays or len(set(uris)) < len(uris):
                found = strays[0] if strays else "one part twice"
                raise TilthError(
                    f"the parts of {release.family}.{table}", found=found, wanted=f"parts below {home}"
                )
            for uri in uris:
                inspect(table, uri)

    def _properties(self, release: Release) -> dict[str, dict[str, str]]:
        common = {**release.properties, "tilth.run_id": release.run_id}
        if release.audit is None:
            return dict.fromkeys(release.files, common)
        uri = f"{self._warehouse}/{release.family}/audits/{release.run_id}.json"
        fs, path = fsspec.core.url_to_fs(uri)
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(path, release.audit.to_json().encode())
        summaries = {table: json.dumps(release.audit.summary(table)) for table in release.files}
        return {
            table: {**common, "tilth.audit": text, "tilth.audit_uri": uri}
            for table, text in summaries.items()
        }

    def find_run(self, family: str, run_id: str) -> list[Version] | None:
        """The versions that a run has committed, in the order of `TABLES`; null for none."""
        check_family(family)
        check_run(run_id)
        labels = [label for label, run in self._iceberg.claims(family).items() if run == run_id]
        return self._labelled(family, labels[0]) if labels else None

    def release(self, version: Version) -> list[Version]:
        """All versions that were published together with this one, itself included."""
        return self._labelled(version.family, version.version)

    def _labelled(self, family: str, label: str) -> list[Version]:
        tables = (self._iceberg.load_table(identifier) for identifier in self._iceberg.list_tables(family))
        found = [_version(table, label) for table in tables if label in table.refs()]
        return sorted(found, key=lambda version: list(TABLES).index(version.table))

    def datasets(self) -> list[str]:
        """The names of all datasets that have a version, sorted."""
        families = [family for (family,) in self._iceberg.list_namespaces()]
        tables = [
            table for family in families if self._iceberg.claims(family) for table in self._tables(family)
        ]
        return sorted(f"{table.name()[0]}.{table.name()[1]}" for table in tables if table.current_snapshot())

    def _tables(self, family: str) -> Iterator[Table]:
        return (self._iceberg.load_table(identifier) for identifier in self._iceberg.list_tables(family))

    def versions(self, name: str) -> list[Version]:
        """All versions of a dataset, newest first. Raises `NotFound` naming the nearest datasets."""
        table = self._table(name)
        return [_version(table, label) for label in sorted(_labels(table), key=ordinal, reverse=True)]

    def resolve(self, name: str) -> Version:
        """The version that a name means: `family.table@version`, or the latest without `@version`.

        Raises `NotFound` naming the nearest datasets or versions that exist.
        """
        table, wanted = self._table(name), parse(name)
        label = wanted.version or _latest(table)
        if label not in table.refs():
            raise not_found(
                "version",
                name,
                [f"{wanted.dataset}@{known}" for known in sorted(_labels(table), key=ordinal)],
            )
        return _version(table, label)

    def _table(self, name: str) -> Table:
        from pyiceberg.exceptions import NoSuchTableError

        wanted = parse(name)
        try:
            table = self._iceberg.load_table((wanted.family, wanted.table))
        except NoSuchTableError:
            table = None
        if table is None or table.current_snapshot() is None:
            raise not_found("dataset", wanted.dataset, self.datasets())
        return table

    def frame(self, name: str) -> pl.LazyFrame:
        """The rows of a dataset as a lazy polars frame, in order."""
        version = self.resolve(name)
        return scan(version.table, version.files)

    def arrow(self, name: str) -> pa.Table:
        """The rows of a dataset as an Arrow table, in order, with the types of `TABLES`."""
        version = self.resolve(name)
        return dataset(version.table, version.files).to_table()

    def dataset(self, name: str) -> Dataset:
        """The rows of a dataset as a `datasets.Dataset`, in order; messages are `List({"role", "content"})`."""
        from datasets import Dataset
        from datasets.table import InMemoryTable

        return Dataset(InMemoryTable(self.arrow(name)))

    def head(self, name: str, n: int = 10) -> pl.DataFrame:
        """The first `n` rows of a dataset."""
        return self.frame(name).head(n).collect()


def _latest(table: Table) -> str:
    snapshot = table.current_snapshot()
    summary = snapshot.summary if snapshot else None
    return summary.additional_properties["tilth.version"] if summary else ""


def _labels(table: Table) -> list[str]:
    return [name for name, ref in table.refs().items() if ref.snapshot_ref_type == "tag"]


def _version(table: Table, label: str) -> Version:
    from tilth.catalog.iceberg import data_files

    snapshot = table.snapshot_by_name(label)
    if snapshot is None or snapshot.summary is None:
        raise NotFound(f"no version {label} of {'.'.join(table.name())}")
    entries = data_files(table, snapshot)
    return Version(
        name=".".join(table.name()),
        version=label,
        rows=sum(entry.record_count for entry in entries),
        snapshot_id=snapshot.snapshot_id,
        files=tuple(entry.file_path for entry in entries),
        created_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        properties={
            key: value
            for key, value in snapshot.summary.additional_properties.items()
            if key.startswith("tilth.")
        },
    )


def _pauses() -> Iterator[float]:
    started = time.monotonic()
    for attempt in itertools.count(1):
        if time.monotonic() - started > PATIENCE_S:
            return
        yield random.uniform(0.005, 0.05) * min(attempt, 8)


def open_catalog(
    workspace: str, *, create: bool = True, database: str | None = None, warehouse: str | None = None
) -> Catalog:
    """Opens the catalog of a workspace: `<workspace>/catalog/catalog.db` (SQLite) and
    `<workspace>/catalog/warehouse`.

    Args:
        workspace: a directory; with `database` and `warehouse` given it is not looked at.
        create: make a catalog where there is none.
        database: an SQLAlchemy URL of another database, e.g. PostgreSQL where several hosts commit.
        warehouse: where tables are kept, any fsspec URI.

    Raises `NotFound` when there is no catalog and `create` is false, `ConfigError` for a workspace on an
    object store without a `database`.
    """
    root = plain(workspace)
    if database is None:
        database = _sqlite(root, create)
    home = plain(warehouse or f"{root}/catalog/warehouse")
    options = {"uri": database, "warehouse": home}
    if "://" in home:
        options["py-io-impl"] = "pyiceberg.io.fsspec.FsspecFileIO"
    return Catalog(_connected(options), home)


def _sqlite(root: str, create: bool) -> str:
    if "://" in root:
        do = "give the URL of a database, or keep the workspace on a local disk"
        raise ConfigError(
            "the catalog's database", found=f"workspace {root}", wanted="a local directory", do=do
        )
    path = Path(root) / "catalog" / "catalog.db"
    if not path.exists() and not create:
        raise NotFound(
            f"no catalog in {root}", do="make one with `tilth demo` or `tilth run`, or name its --workspace"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{path}?timeout=60"


def _connected(options: dict[str, str]) -> FamilyCatalog:
    from sqlalchemy.exc import OperationalError

    from tilth.catalog.iceberg import FamilyCatalog

    try:
        return FamilyCatalog("tilth", **options)
    except OperationalError:  # another process made the tables between our look and our attempt
        time.sleep(0.1)
        return FamilyCatalog("tilth", **options)
