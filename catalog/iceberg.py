"""PyIceberg's SQL catalog with two things added: several tables change in one SQL transaction, and a family's labels.

A family is a namespace. Which versions it has is said by its properties, not by the tables: a label is claimed
(`version.LABEL`: run id), dropped (`dropped.LABEL`: time and run id) or expired (`expired.LABEL`: likewise, so that
no label is ever given twice). `tag.NAME` is a label under a name of people's own, `alias.OLD` a name that the family
once had. Every change of a family first locks its property `exists`, so that changes happen one after another on
SQLite and on PostgreSQL at its default isolation.

Works around traps of PyIceberg 0.12: its own retry drops tags (so it is switched off and the caller retries),
a requirement is kept once per type (the swap of metadata locations stands for all of them here), and tables
commit one by one (`together`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import pyarrow as pa
from pyiceberg.catalog import METADATA, delete_files
from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables, SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.manifest import ManifestEntry, ManifestFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import (
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.table.update.snapshot import ManageSnapshots, _OverwriteFiles  # pyright: ignore[reportPrivateUsage]  (the only way to replace files)
from pyiceberg.typedef import Identifier
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from typing_extensions import override

from tilth.catalog.names import ordinal
from tilth.schemas import BadInput, TilthError

TABLE_PROPERTIES: Final = {
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    # No least and greatest values: they are the beginnings of what people wrote, and outlive the files.
    "write.metadata.metrics.default": "counts",
}
_VERSION: Final = "version."
_DROPPED: Final = "dropped."
_EXPIRED: Final = "expired."
_TAG: Final = "tag."
_ALIAS: Final = "alias."
_PROPERTIES: Final = IcebergNamespaceProperties
_LOOKS: Final = 10  # at a table whose metadata is swapped and deleted between finding and reading it


class Left(NamedTuple):
    """When a label was dropped or expired, and whose it was."""

    at: datetime
    run_id: str

    @classmethod
    def read(cls, text: str) -> Left:
        """From what `written` gives."""
        at, _, run_id = text.partition(" ")
        return cls(datetime.fromisoformat(at), run_id)

    def written(self) -> str:
        """As the value of a property."""
        return f"{self.at.isoformat(timespec='seconds')} {self.run_id}"


@dataclass(frozen=True, slots=True)
class Labels:
    """What a family's properties say of its versions."""

    claimed: Mapping[str, str]  # label -> run id: the versions that exist
    dropped: Mapping[str, Left]
    expired: Mapping[str, Left]
    tags: Mapping[str, str]  # tag -> label

    @classmethod
    def read(cls, properties: Mapping[str, str]) -> Labels:
        """From the properties of a namespace."""

        def named(prefix: str) -> dict[str, str]:
            return {k.removeprefix(prefix): v for k, v in properties.items() if k.startswith(prefix)}

        def left(prefix: str) -> dict[str, Left]:
            return {label: Left.read(text) for label, text in named(prefix).items()}

        return cls(named(_VERSION), left(_DROPPED), left(_EXPIRED), named(_TAG))

    def taken(self) -> set[str]:
        """Labels that no new version may have."""
        return {*self.claimed, *self.dropped, *self.expired}

    def kept(self) -> set[str]:
        """Labels whose rows are still there, visible or not."""
        return {*self.claimed, *self.dropped}

    def newest(self) -> str | None:
        """The newest version that exists."""
        return max(self.claimed, key=ordinal, default=None)

    def tagged(self, labels: Collection[str]) -> dict[str, str]:
        """The tags that any of these labels has."""
        return {tag: label for tag, label in self.tags.items() if label in labels}


@dataclass(frozen=True, slots=True)
class Pending:
    """A table's next metadata, written but not yet pointed to; null where the table goes."""

    before: Table
    after: StagedTable | None


class FamilyCatalog(SqlCatalog):
    """A SQL catalog in which the commits made inside `together` become visible at once, or never."""

    _pending: list[Pending] | None = None

    @contextlib.contextmanager
    def changing(self, *families: str) -> Generator[Session]:
        """One SQL transaction with which no other change of these families overlaps, committed with the block.

        Raises `CommitFailedException` when one of them is not there, or not any more.
        """
        with Session(self.engine) as session:
            for family in sorted(families):  # always in one order, or two changes could wait for each other
                lock = self._of(update(_PROPERTIES), family, "exists").values(property_value="true")
                if session.execute(lock).rowcount != 1:  # type: ignore[attr-defined]
                    raise CommitFailedException(f"{family} was changed by another process")
            yield session
            self._commit(session)

    @contextlib.contextmanager
    def together(
        self, family: str, label: str, run_id: str, ready: Callable[[], None] = lambda: None
    ) -> Generator[None]:
        """Holds back the commits of the block, then swaps all tables' metadata in one SQL transaction.

        The same transaction claims `label` for the family, so two releases never share one, and calls `ready`,
        which may refuse. Raises `CommitFailedException` when another writer was faster; nothing has changed then,
        and what was written for the attempt is removed.
        """
        pending = self._pending = []
        try:
            yield
        finally:
            self._pending = None
        try:
            self._swap(pending, family, label, run_id, ready)
        except (CommitFailedException, TilthError):
            discard(pending)
            raise
        for one in pending:
            if one.after:
                super()._delete_old_metadata(one.after.io, one.before.metadata, one.after.metadata)

    @override
    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        if self._pending is None:
            return super().commit_table(table, requirements, updates)
        # Staged on the handle's own metadata: the swap fails unless that is still what the catalog points to.
        before = Table(table.name(), table.metadata, table.metadata_location, table.io, self)
        after = self._update_and_stage_table(before, table.name(), requirements, updates)
        self._pending.append(Pending(before, after))
        self._write_metadata(after.metadata, after.io, after.metadata_location)
        return CommitTableResponse(metadata=after.metadata, **{"metadata-location": after.metadata_location})

    @override
    def _delete_old_metadata(self, io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:  # type: ignore[override]
        # Called after each table's commit, which inside `together` is before anything is committed.
        if self._pending is None:
            super()._delete_old_metadata(io, base, metadata)

    def _swap(
        self, pending: Sequence[Pending], family: str, label: str, run_id: str, ready: Callable[[], None]
    ) -> None:
        with self.changing(family) as session:
            ready()
            self._point(session, pending)
            if label in self.labels(family, session).taken():
                raise CommitFailedException(f"version {label} of {family} was taken by another process")
            self.put(session, family, {_VERSION + label: run_id})

    def _point(self, session: Session, pending: Sequence[Pending]) -> None:
        for one in pending:
            if session.execute(self._pointer(one)).rowcount != 1:  # type: ignore[attr-defined]
                raise CommitFailedException(f"{'.'.join(one.before.name())} was changed by another process")

    def _pointer(self, one: Pending) -> Any:  # SQLAlchemy's statement type is generic over its result
        family, table = one.before.name()
        found = (
            IcebergTables.catalog_name == self.name,
            IcebergTables.table_namespace == family,
            IcebergTables.table_name == table,
            IcebergTables.metadata_location == one.before.metadata_location,
        )
        if one.after is None:
            return delete(IcebergTables).where(*found)
        return (
            update(IcebergTables)
            .where(*found)
            .values(
                metadata_location=one.after.metadata_location,
                previous_metadata_location=one.before.metadata_location,
            )
        )

    def _commit(self, session: Session) -> None:
        session.commit()

    def labels(self, family: str, session: Session | None = None) -> Labels:
        """What a family's properties say of its versions; inside `changing` with its session."""
        wanted = self._of(select(_PROPERTIES.property_key, _PROPERTIES.property_value), family)
        with contextlib.nullcontext(session) if session else Session(self.engine) as one:
            rows: Any = one.execute(wanted)  # of two strings
            return Labels.read(dict(rows.all()))

    def renamed_from(self, family: str) -> list[str]:
        """The families that once had this name, sorted."""
        found = select(_PROPERTIES.namespace).where(
            _PROPERTIES.catalog_name == self.name, _PROPERTIES.property_key == _ALIAS + family
        )
        with Session(self.engine) as session:
            return sorted(session.scalars(found))

    def families(self) -> list[str]:
        """All families, also those without a version, sorted."""
        found = select(_PROPERTIES.namespace).where(
            _PROPERTIES.catalog_name == self.name, _PROPERTIES.property_key == "exists"
        )
        with Session(self.engine) as session:
            return sorted(session.scalars(found))

    def put(self, session: Session, family: str, properties: Mapping[str, str]) -> None:
        """Sets properties of a family, inside `changing`."""
        self.take(session, family, properties)
        for key, value in properties.items():
            row = {"catalog_name": self.name, "namespace": family, "property_key": key}
            session.execute(insert(_PROPERTIES).values(**row, property_value=value))

    def take(self, session: Session, family: str, keys: Collection[str]) -> None:
        """Removes properties of a family, inside `changing`."""
        session.execute(self._of(delete(_PROPERTIES), family).where(_PROPERTIES.property_key.in_(list(keys))))

    def _of(self, statement: Any, family: str, key: str | None = None) -> Any:
        found = statement.where(_PROPERTIES.catalog_name == self.name, _PROPERTIES.namespace == family)
        return found if key is None else found.where(_PROPERTIES.property_key == key)

    def drop_labels(self, session: Session, family: str, labels: Mapping[str, str]) -> None:
        """Hides claimed labels, given with their runs."""
        now = datetime.now(UTC)
        self.take(session, family, [_VERSION + label for label in labels])
        left = {_DROPPED + label: Left(now, run).written() for label, run in labels.items()}
        self.put(session, family, left)

    def restore_labels(self, session: Session, family: str, labels: Mapping[str, str]) -> None:
        """Shows dropped labels again, given with their runs."""
        self.take(session, family, [_DROPPED + label for label in labels])
        self.put(session, family, {_VERSION + label: run for label, run in labels.items()})

    def set_tag(self, session: Session, family: str, tag: str, label: str | None) -> None:
        """Gives a tag to a label, or to none."""
        if label is None:
            self.take(session, family, [_TAG + tag])
        else:
            self.put(session, family, {_TAG + tag: label})

    def rename(self, old: str, new: str) -> None:
        """Gives a family another name; its files stay where they are. Raises `BadInput` when that name is in use."""
        in_use = BadInput(f"the new name of {old}", found=f"{new}, which exists", wanted="a name not in use")
        try:
            with self.changing(old) as session:
                if self.namespace_exists(new):
                    raise in_use
                own = (IcebergTables.catalog_name == self.name, IcebergTables.table_namespace == old)
                session.execute(update(IcebergTables).where(*own).values(table_namespace=new))
                session.execute(self._of(update(_PROPERTIES), old).values(namespace=new))
                self.put(session, new, {_ALIAS + old: "true"})
        except IntegrityError:  # it was made this moment
            raise in_use from None

    def expire(self, family: str, labels: Collection[str], pending: Sequence[Pending]) -> None:
        """Ends these labels, and their tags, together with the metadata that still names them."""
        with self.changing(family) as session:
            self._point(session, pending)
            known = self.labels(family, session)
            now = datetime.now(UTC)
            runs = {**{label: left.run_id for label, left in known.dropped.items()}, **known.claimed}
            for label in runs.keys() & set(labels):
                self.take(session, family, [_VERSION + label, _DROPPED + label])
                self.put(session, family, {_EXPIRED + label: Left(now, runs[label]).written()})
            self.take(session, family, [_TAG + tag for tag in known.tagged(labels)])

    def without(self, table: Table, labels: Collection[str], prefer: Collection[str]) -> Pending | None:
        """The table without the snapshots of these labels, and without a memory of them; null where it has none.

        The newest label of `prefer` that stays becomes current where the current one goes, else the newest of all.
        """
        tags = labels_of(table)
        gone = {tags[label] for label in labels if label in tags}
        if not gone:
            return None
        stay = {label: snapshot for label, snapshot in tags.items() if snapshot not in gone}
        if not stay:
            return Pending(table, None)
        updates: list[TableUpdate] = [RemoveSnapshotsUpdate.model_validate({"snapshot-ids": sorted(gone)})]
        if table.metadata.current_snapshot_id in gone:
            main = max(stay.keys() & set(prefer) or stay, key=ordinal)
            head = {"ref-name": "main", "type": "branch", "snapshot-id": stay[main]}
            updates.insert(0, SetSnapshotRefUpdate.model_validate(head))
        after = self._update_and_stage_table(table, table.name(), (), tuple(updates))
        after.metadata = after.metadata.model_copy(update={"metadata_log": []})
        self._write_metadata(after.metadata, after.io, after.metadata_location)
        return Pending(table, after)

    @override
    def load_table(self, identifier: str | Identifier) -> Table:
        for _ in range(_LOOKS):
            try:
                return super().load_table(identifier)
            except FileNotFoundError:  # expired between the look at the database and the look at the file
                continue
        return super().load_table(identifier)

    def tables(self, family: str) -> list[Table]:
        """All tables of a family, none where there is no such family."""
        while True:
            try:
                return [self.load_table(identifier) for identifier in self.list_tables(family)]
            except NoSuchNamespaceError:
                return []
            except NoSuchTableError:  # renamed or expired since they were listed
                continue

    def table(self, family: str, name: str, schema: pa.Schema) -> Table:
        """The table, made without rows or versions where it is missing, and the family with it."""
        try:
            if family not in self.families():  # PyIceberg takes a family for there that has but a table
                exists = {"namespace": family, "property_key": "exists", "property_value": "true"}
                with Session(self.engine) as session:
                    session.execute(insert(_PROPERTIES).values(catalog_name=self.name, **exists))
                    session.commit()
            return self.load_table((family, name))
        except NoSuchTableError:
            pass
        except IntegrityError:
            raise CommitFailedException(f"{family} was made by another process just now") from None
        try:
            return self.create_table((family, name), schema, properties=TABLE_PROPERTIES)
        except (IntegrityError, TableAlreadyExistsError, NoSuchNamespaceError):
            raise CommitFailedException(f"{family}.{name} was made by another process just now") from None


class _ReplaceFiles(_OverwriteFiles):
    """An overwrite of everything, which carries no manifest of the past into later snapshots."""

    @override
    def _existing_manifests(self) -> list[ManifestFile]:
        return []

    @override
    def _deleted_entries(self) -> list[ManifestEntry]:
        return []  # nor a list of what was replaced, which would name files that have expired


def replace(
    table: Table, uris: Sequence[str], schema: pa.Schema, label: str, properties: dict[str, str]
) -> None:
    """Makes these files all of `table`, tagged `label`, in one commit; `schema` may add columns."""
    transaction = table.transaction()
    transaction.update_schema().union_by_name(schema).commit()
    # The files carry no field ids: this property tells every Iceberg reader to go by names.
    mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
    transaction.set_properties({"schema.name-mapping.default": mapping})
    producer = _ReplaceFiles(
        operation=Operation.OVERWRITE, transaction=transaction, io=table.io, snapshot_properties=properties
    )
    with producer as files:
        for entry in current_files(table):
            files.delete_data_file(entry)
        for entry in parquet_files_to_data_files(table.io, transaction.table_metadata, iter(uris)):
            files.append_data_file(entry)
    # After the new snapshot is main's: of the requirements on references only the first is kept.
    ManageSnapshots(transaction).create_tag(producer.snapshot_id, label).commit()
    transaction.commit_transaction()


def current_files(table: Table) -> list[Any]:  # PyIceberg's DataFile is a record without a public type
    """The data files of the table's latest version, in the order in which they were published."""
    snapshot = table.current_snapshot()
    return data_files(table, snapshot) if snapshot else []


def data_files(table: Table, snapshot: Snapshot) -> list[Any]:
    """The data files of one snapshot, in the order in which they were published."""
    return [
        entry.data_file
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    ]


def labels_of(table: Table) -> dict[str, int]:
    """The labels whose snapshots a table has, whether they are claimed or not."""
    return {
        name: ref.snapshot_id
        for name, ref in table.refs().items()
        if ref.snapshot_ref_type == SnapshotRefType.TAG
    }


class Holdings(NamedTuple):
    """Files that snapshots rest on."""

    data: set[str]
    rest: set[str]  # manifests, and what properties ending in `_uri` name

    def all(self) -> set[str]:
        """Both."""
        return self.data | self.rest


def holdings(table: Table, but: Collection[str] = (), only: Collection[str] | None = None) -> Holdings:
    """The files that the snapshots of a table rest on, without the labels of `but`, or those of `only` alone."""
    tags = labels_of(table)
    skipped = {tags[label] for label in but if label in tags}
    wanted = None if only is None else {tags[label] for label in only if label in tags}
    held = Holdings(set(), set())
    for snapshot in table.metadata.snapshots:
        if snapshot.snapshot_id not in skipped and (wanted is None or snapshot.snapshot_id in wanted):
            held.rest.update(_kept_by(table, snapshot))
            held.data.update(entry.file_path for entry in data_files(table, snapshot))
    return held


def _kept_by(table: Table, snapshot: Snapshot) -> Iterator[str]:
    yield snapshot.manifest_list
    yield from (manifest.manifest_path for manifest in snapshot.manifests(table.io))
    properties = snapshot.summary.additional_properties if snapshot.summary else {}
    yield from (value for key, value in properties.items() if key.endswith("_uri"))


def memory(table: Table) -> set[str]:
    """The metadata files that a table is read from or could be rolled back to."""
    return {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}


def discard(pending: Sequence[Pending]) -> None:
    """Removes what was written for an attempt that came to nothing."""
    for one in pending:
        _discard(one)


def _discard(one: Pending) -> None:
    """Removes what a lost race has written; only ever called when nothing can point to it."""
    if one.after is None:
        return
    known = {snapshot.snapshot_id for snapshot in one.before.metadata.snapshots}
    for snapshot in one.after.metadata.snapshots:
        if snapshot.snapshot_id not in known:
            own = [
                m.manifest_path for m in snapshot.manifests(one.after.io) if m.added_snapshot_id not in known
            ]
            delete_files(one.after.io, {*own, snapshot.manifest_list}, METADATA)
    delete_files(one.after.io, {one.after.metadata_location}, METADATA)
