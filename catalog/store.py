"""The catalog: datasets by name and version, published whole or not at all."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import fsspec
import polars as pl
import pyarrow as pa

from tilth.catalog.names import (
    Name,
    check_family,
    check_run,
    check_tag,
    is_label,
    next_label,
    not_found,
    ordinal,
    parse,
)
from tilth.catalog.parts import dataset, inspect, plain, scan, write_whole
from tilth.catalog.query import query, reader, relation
from tilth.catalog.versions import Release, Version, today, version_of
from tilth.schemas import TABLES, BadInput, NotFound, TilthError

if TYPE_CHECKING:
    from datasets import Dataset
    from duckdb import DuckDBPyRelation
    from pyiceberg.table import Table

    from tilth.catalog.iceberg import FamilyCatalog, Labels, Left, Pending

T = TypeVar("T")
PATIENCE_S: Final = 120.0  # how long a change is tried against other writers
EXPIRING: Final = "_expiring"  # no family has such a name; lists of files that are to be deleted


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

    @property
    def warehouse(self) -> str:
        """Where all files of all families are."""
        return self._warehouse

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
        return self._patiently(
            lambda: self._attempt(release, properties),
            f"run {release.run_id} could not be committed to {release.family}",
            "run again; the staged files are kept",
        )

    def _patiently(self, attempt: Callable[[], T], what: str, do: str = "try again") -> T:
        for pause in _pauses():
            try:
                return attempt()
            except self._lost_race():
                time.sleep(pause)
        raise TilthError(what, found="other writers were faster every time", do=do)

    def _attempt(self, release: Release, properties: Mapping[str, Mapping[str, str]]) -> list[Version]:
        from tilth.catalog.iceberg import replace

        family = release.family
        if done := self.find_run(family, release.run_id):
            return done
        files = {name: [plain(uri) for uri in uris] for name, uris in release.files.items()}
        tables = {name: self._iceberg.table(family, name, TABLES[name]) for name in files}
        label = self._next_label(family, release.date)
        parts = [uri for uris in files.values() for uri in uris]
        with self._iceberg.together(family, label, release.run_id, lambda: _all_there(parts)):
            for name, table in tables.items():
                replace(table, files[name], TABLES[name], label, {**properties[name], "tilth.version": label})
        return self._labelled(family, label)

    def _next_label(self, family: str, day: date) -> str:
        # A family that once had this name has labels that others still name by it.
        bearers = [family, *self._iceberg.renamed_from(family)]
        return next_label(day, [label for one in bearers for label in self._iceberg.labels(one).taken()])

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
            if strays:  # after a renaming, versions hold parts that lie below the old name
                held = self._held(release.family, table)
                strays = [uri for uri in strays if plain(uri) not in held]
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
        write_whole(release.audit.to_json().encode(), uri)
        summaries = {table: json.dumps(release.audit.summary(table)) for table in release.files}
        return {
            table: {**common, "tilth.audit": text, "tilth.audit_uri": uri}
            for table, text in summaries.items()
        }

    def _held(self, family: str, table: str) -> set[str]:
        from tilth.catalog.iceberg import holdings

        tables = (one for one in self._iceberg.tables(family) if one.name()[1] == table)
        return {plain(uri) for one in tables for uri in holdings(one).data}

    def find_run(self, family: str, run_id: str) -> list[Version] | None:
        """The versions that a run has committed, in the order of `TABLES`; null for none.

        Also those that it committed to a family that has been renamed since.
        """
        check_family(family)
        check_run(run_id)
        for bearer in (family, *self._iceberg.renamed_from(family)):
            claimed = self._iceberg.labels(bearer).claimed
            if labels := [label for label, run in claimed.items() if run == run_id]:
                return self._labelled(bearer, max(labels, key=ordinal))
        return None

    def release(self, version: Version) -> list[Version]:
        """All versions that were published together with this one, itself included."""
        return self._labelled(version.family, version.version)

    def _labelled(self, family: str, label: str) -> list[Version]:
        found = [version_of(table, label) for table in self._iceberg.tables(family) if label in table.refs()]
        return sorted(found, key=lambda version: list(TABLES).index(version.table))

    def families(self) -> list[str]:
        """The names of all families that have or had a version, sorted."""
        return self._iceberg.families()

    def has(self, family: str, label: str) -> bool:
        """Whether a family, or one that once had its name, has this version, dropped or not."""
        bearers = (family, *self._iceberg.renamed_from(family))
        return any(label in self._iceberg.labels(bearer).kept() for bearer in bearers)

    def datasets(self) -> list[str]:
        """The names of all datasets that have a version, sorted."""
        return sorted(name for family in self.families() for name in self._datasets(family))

    def _datasets(self, family: str) -> Iterator[str]:
        claimed = self._iceberg.labels(family).claimed
        for table in self._iceberg.tables(family) if claimed else []:
            if _labels(table, claimed):
                yield ".".join(table.name())

    def versions(self, name: str) -> list[Version]:
        """All versions of a dataset, newest first. Raises `NotFound` naming the nearest datasets."""
        wanted = parse(name)
        table, labels = self._table(wanted)
        if table is None:
            raise not_found("dataset", wanted.dataset, self.datasets())
        return [version_of(table, label) for label in reversed(labels)]

    def earlier(self, version: Version) -> list[Version]:
        """The versions of the same dataset that were made before this one, newest first."""
        known = self.versions(version.name)
        return [one for one in known if ordinal(one.version) < ordinal(version.version)]

    def resolve(self, name: str) -> Version:
        """The version that a name means: `family.table@version`, `family.table@tag`, or the latest without either.

        A version of a family that has been renamed is found by the old name too, since others were made from it under
        that name. Raises `NotFound` naming the nearest datasets or versions that exist.
        """
        wanted = parse(name)
        table, labels = self._table(wanted)
        label = wanted.version or (labels[-1] if labels else "")
        if label and not is_label(label):
            label = self.tags(wanted.family).get(label, "")
        if table is not None and label in labels:
            return version_of(table, label)
        if found := self._under_new_name(wanted):
            return found
        if table is None:
            raise not_found("dataset", wanted.dataset, self.datasets())
        tags = self._iceberg.labels(wanted.family).tagged(labels)
        raise not_found("version", name, [f"{wanted.dataset}@{known}" for known in [*sorted(tags), *labels]])

    def _under_new_name(self, wanted: Name) -> Version | None:
        for family in self._iceberg.renamed_from(wanted.family) if wanted.version else []:
            table, labels = self._table(wanted._replace(family=family))
            if table is not None and wanted.version in labels:
                return version_of(table, wanted.version)
        return None

    def _table(self, wanted: Name) -> tuple[Table | None, list[str]]:
        """A table that has a version, and its labels, oldest first."""
        from pyiceberg.exceptions import NoSuchTableError

        claimed = self._iceberg.labels(wanted.family).claimed
        try:
            table = self._iceberg.load_table((wanted.family, wanted.table)) if claimed else None
        except NoSuchTableError:
            table = None
        labels = _labels(table, claimed) if table else []
        return (table, labels) if labels else (None, [])

    def tags(self, family: str) -> dict[str, str]:
        """The tags that people have given to versions of a family: tag -> label."""
        check_family(family)
        return dict(sorted(self._iceberg.labels(family).tags.items()))

    def tag(self, family: str, label: str, tag: str, *, move: bool = False) -> str | None:
        """Lets `tag` stand for a version, in all tables of the family; gives the label it stood for before.

        Raises `BadInput` for what can be no tag, and when the tag stands for another version unless `move`;
        `NotFound` for an unknown version.
        """
        check_tag(tag)

        def attempt() -> str | None:
            with self._iceberg.changing(family) as session:
                known = self._iceberg.labels(family, session)
                _claimed(family, label, known)
                before = known.tags.get(tag)
                if before not in (None, label) and not move:
                    do = f"choose another name, or move it with --move; {before} keeps its number"
                    raise BadInput(f"tag {tag} of {family}", found=f"it stands for {before}", do=do)
                self._iceberg.set_tag(session, family, tag, label)
                return before

        return self._change(family, attempt)

    def untag(self, family: str, tag: str) -> str:
        """Takes a tag away; gives the label it stood for. Raises `NotFound` for an unknown tag."""

        def attempt() -> str:
            with self._iceberg.changing(family) as session:
                known = self._iceberg.labels(family, session).tags
                if tag not in known:
                    raise not_found("tag", f"{family}@{tag}", [f"{family}@{one}" for one in sorted(known)])
                self._iceberg.set_tag(session, family, tag, None)
                return known[tag]

        return self._change(family, attempt)

    def _change(self, family: str, attempt: Callable[[], T]) -> T:
        check_family(family)
        if family not in self.families():
            raise not_found("family", family, self.families())
        return self._patiently(attempt, f"{family} could not be changed")

    def dropped(self, family: str) -> dict[str, datetime]:
        """The versions of a family that are hidden until they expire, and since when."""
        check_family(family)
        left = self._iceberg.labels(family).dropped
        return {label: left[label].at for label in sorted(left, key=ordinal)}

    def drop(self, family: str, label: str | None = None, *, force: bool = False) -> list[str]:
        """Hides a version in all its tables, or all versions of a family; gives their labels.

        Nothing is deleted before `expire`; `restore` undoes it. Raises `BadInput` for a version that has a tag,
        unless `force` takes the tag away too; `NotFound` for an unknown version.
        """

        def attempt() -> list[str]:
            with self._iceberg.changing(family) as session:
                known = self._iceberg.labels(family, session)
                if label is not None:
                    _claimed(family, label, known)
                labels = known.claimed if label is None else {label: known.claimed[label]}
                tagged = known.tagged(labels)
                if tagged and not force:
                    found = ", ".join(f"{tag} ({tagged[tag]})" for tag in sorted(tagged))
                    raise BadInput(f"{family} has tags", found=found, do="untag them first, or use --force")
                for tag in tagged:
                    self._iceberg.set_tag(session, family, tag, None)
                self._iceberg.drop_labels(session, family, labels)
                return sorted(labels, key=ordinal)

        return self._change(family, attempt)

    def restore(self, family: str, label: str | None = None) -> list[str]:
        """Shows a dropped version again, or all dropped versions of a family; gives their labels.

        Raises `NotFound` for a version that was not dropped, or has expired.
        """

        def attempt() -> list[str]:
            with self._iceberg.changing(family) as session:
                dropped = self._iceberg.labels(family, session).dropped
                if not dropped or (label is not None and label not in dropped):
                    known = [f"{family}@{one}" for one in sorted(dropped, key=ordinal)]
                    raise not_found("dropped version", f"{family}@{label or '*'}", known)
                labels = [label] if label else sorted(dropped, key=ordinal)
                runs = {one: dropped[one].run_id for one in labels}
                self._iceberg.restore_labels(session, family, runs)
                return labels

        return self._change(family, attempt)

    def rename(self, family: str, new: str) -> None:
        """Gives a family another name, with all its versions and tags; files stay where they are.

        Versions that were made from it name it as it was: `resolve` finds them by the old name. Raises `BadInput` when
        the new name is in use, `NotFound` for an unknown family.
        """
        check_family(new)
        self._change(family, lambda: self._iceberg.rename(family, new))

    def rollback(self, family: str, label: str) -> list[Version]:
        """Publishes what a version held as a new one, the newest; gives it, or the newest when that is it already.

        All tables of the family are in it: those that the old release did not have are empty, since their rows would
        be about rows that are not there. Properties are the old ones and `tilth.rollback_of`. Raises `NotFound` for an
        unknown version.
        """
        return self._change(family, lambda: self._roll_back(family, label))

    def _roll_back(self, family: str, label: str) -> list[Version]:
        from tilth.catalog.iceberg import replace

        known = self._iceberg.labels(family)
        _claimed(family, label, known)
        newest, prefix = known.newest() or label, f"rollback-{label}-"
        if newest == label or known.claimed[newest].startswith(prefix):
            return self._labelled(family, newest)
        runs = [*known.claimed.values(), *(left.run_id for left in _left(known))]
        run_id = f"{prefix}{1 + sum(run.startswith(prefix) for run in runs)}"
        old = {version.table: version for version in self._labelled(family, label)}
        common = next(iter(old.values())).properties
        new = self._next_label(family, today())
        with self._iceberg.together(family, new, run_id):
            for table in self._iceberg.tables(family):
                if not _labels(table, known.claimed):
                    continue
                name = table.name()[1]
                held = old.get(name)
                properties = {
                    **(held.properties if held else common),
                    "tilth.run_id": run_id,
                    "tilth.rollback_of": label,
                    "tilth.version": new,
                }
                replace(table, held.files if held else (), TABLES[name], new, properties)
        return self._labelled(family, new)

    def expire(
        self, family: str, labels: Collection[str], *, delete: bool = True, keep: Collection[str] = ()
    ) -> list[str]:
        """Removes versions for good, dropped or not, with their tags; gives the URIs of data files that went.

        All tables change in one SQL transaction; then files are deleted that no version of any family holds, dropped
        or not: data, manifests, and every older metadata file, since they name what has gone. With `delete` false
        those data files are only named, and `collect` finds them. `keep`: files to leave. Killed in between, the same
        call again deletes what is left. Labels are not given again.

        Raises `NotFound` for a label that this family never had.
        """

        data = self._change(family, lambda: self._end(family, set(labels)))
        if delete:
            return sorted(uri for uri in self.finish(keep) if is_data(uri))
        return sorted(data - self.reachable() - {plain(uri) for uri in keep})

    def _end(self, family: str, labels: set[str]) -> set[str]:
        """Takes labels out of the metadata; what they held is noted down before. Gives their data files."""
        from pyiceberg.exceptions import CommitFailedException

        from tilth.catalog.iceberg import discard, holdings, memory

        known = self._iceberg.labels(family)
        if unknown := sorted(labels - known.taken()):
            nearest = [f"{family}@{one}" for one in sorted(known.kept(), key=ordinal)]
            raise not_found("version", f"{family}@{unknown[0]}", nearest)
        labels &= known.kept()
        note = Note(family, sorted(labels), [], [])
        pending: list[Pending] = []
        for table in self._iceberg.tables(family):
            if one := self._iceberg.without(table, labels, known.claimed.keys() - labels):
                pending.append(one)
                held = holdings(table, only=labels)
                note.data.extend(held.data)
                note.rest.extend(held.rest | memory(table))
        if labels:
            self._write_note(note)
        try:
            self._iceberg.expire(family, labels, pending)
        except CommitFailedException:
            discard(pending)
            raise
        return {plain(uri) for uri in note.data}

    def finish(self, keep: Collection[str] = ()) -> set[str]:
        """Deletes what expired versions have left, also after calls of `expire` that were cut off; gives the URIs."""
        notes = {uri: note for uri, note in self._notes().items() if self._is_over(note)}
        gone = self.sweep([uri for note in notes.values() for uri in (*note.data, *note.rest)], keep)
        for uri in notes:
            remove_file(uri)
        return gone

    def _is_over(self, note: Note) -> bool:
        # A note whose labels still stand is of a call that has yet to commit, or was cut off before it did.
        return not self._iceberg.labels(note.family).kept() & set(note.labels)

    def _write_note(self, note: Note) -> None:
        write_whole(
            json.dumps(asdict(note)).encode(), f"{self._warehouse}/{EXPIRING}/{uuid.uuid4().hex}.json"
        )

    def _notes(self) -> dict[str, Note]:
        fs, path = fsspec.core.url_to_fs(f"{self._warehouse}/{EXPIRING}")
        found: dict[str, Note] = {}
        for one in (one for one in fs.find(path) if one.endswith(".json")):
            try:
                found[plain(fs.unstrip_protocol(one))] = Note(**json.loads(fs.cat_file(one)))
            except (FileNotFoundError, ValueError, TypeError):  # done by another call, or not ours
                continue
        return found

    def sweep(self, uris: Collection[str], keep: Collection[str] = ()) -> set[str]:
        """Deletes those of the files that no version holds; gives them. No family changes meanwhile."""
        if not uris:
            return set()

        def attempt() -> set[str]:
            with self._iceberg.changing(*self.families()):
                kept = self.reachable() | {plain(uri) for uri in keep}
                gone = {plain(uri) for uri in uris} - kept
                for uri in sorted(gone):
                    remove_file(uri)
                return gone

        return self._patiently(attempt, "files that no version holds could not be deleted")

    def reachable(self, but: Mapping[str, Collection[str]] | None = None) -> set[str]:
        """Every file that a version of any family rests on, dropped ones too: data, manifests, metadata, and what
        properties ending in `_uri` name; `but` leaves labels of families out.
        """
        from tilth.catalog.iceberg import holdings, memory

        found: set[str] = set()
        for family in self.families():
            for table in self._iceberg.tables(family):
                found |= memory(table) | holdings(table, (but or {}).get(family, ())).all()
        return {plain(uri) for uri in found}

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

    def reader(self, name: str) -> pa.RecordBatchReader:
        """The rows of a dataset as Arrow batches, in order, a few at a time; see `tilth.catalog.query.reader`."""
        return reader(self, name)

    def relation(self, name: str) -> DuckDBPyRelation:
        """The rows of a dataset as a DuckDB relation; see `tilth.catalog.query.relation`."""
        return relation(self, name)

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT over datasets, at any version; see `tilth.catalog.query.query`."""
        return query(self, sql)

    def head(self, name: str, n: int = 10) -> pl.DataFrame:
        """The first `n` rows of a dataset."""
        return self.frame(name).head(n).collect()


@dataclass(frozen=True, slots=True)
class Note:
    """What an `expire` has to delete: written before it commits, so that another can finish it."""

    family: str
    labels: list[str]
    data: list[str]
    rest: list[str]


def _claimed(family: str, label: str, known: Labels) -> None:
    if label not in known.claimed:
        nearest = [f"{family}@{one}" for one in sorted(known.claimed, key=ordinal)]
        raise not_found("version", f"{family}@{label}", nearest)


def _left(known: Labels) -> Iterator[Left]:
    yield from known.dropped.values()
    yield from known.expired.values()


def _labels(table: Table, claimed: Collection[str]) -> list[str]:
    """The versions that a table has, oldest first."""
    return sorted(set(table.refs()) & set(claimed), key=ordinal)


def _all_there(uris: Collection[str]) -> None:
    """Raises `NotFound` for a part that has gone: an expired version may have held it."""
    for uri in uris:
        fs, path = fsspec.core.url_to_fs(uri)
        if not fs.exists(path):
            raise NotFound(f"part {uri}", do="run again: its stage will write it")


def is_data(uri: str) -> bool:
    """Whether this is a part of a table, and not what describes it."""
    return uri.endswith(".parquet")


def remove_file(uri: str) -> None:
    """Removes a file, if it is there."""
    fs, path = fsspec.core.url_to_fs(uri)
    with contextlib.suppress(FileNotFoundError):
        fs.rm_file(path)


def _pauses() -> Iterator[float]:
    started = time.monotonic()
    for attempt in itertools.count(1):
        if time.monotonic() - started > PATIENCE_S:
            return
        yield random.uniform(0.005, 0.05) * min(attempt, 8)
