"""PyIceberg's SQL catalog with one thing added: several tables change in one SQL transaction.

Works around traps of PyIceberg 0.12: its own retry drops tags (so it is switched off and the caller retries),
a requirement is kept once per type (the swap of metadata locations stands for all of them here), and tables
commit one by one (`together`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyiceberg.catalog import METADATA, delete_files
from pyiceberg.catalog.sql import IcebergNamespaceProperties, IcebergTables, SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_files_to_data_files
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.table.update.snapshot import ManageSnapshots, _OverwriteFiles  # pyright: ignore[reportPrivateUsage]  (the only way to replace files)
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from typing_extensions import override

TABLE_PROPERTIES: Final = {
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
}
_VERSION: Final = "version."  # prefix of the namespace properties that hold a family's labels


@dataclass(frozen=True, slots=True)
class Pending:
    """A table's next metadata, written but not yet pointed to."""

    before: Table
    after: StagedTable


class FamilyCatalog(SqlCatalog):
    """A SQL catalog in which the commits made inside `together` become visible at once, or never."""

    _pending: list[Pending] | None = None

    @contextmanager
    def together(self, family: str, label: str, run_id: str) -> Generator[None]:
        """Holds back the commits of the block, then swaps all tables' metadata in one SQL transaction.

        The same transaction claims `label` for the family, so two releases never share one. Raises
        `CommitFailedException` when another writer was faster; nothing has changed then, and what was written
        for the attempt is removed.
        """
        pending = self._pending = []
        try:
            yield
        finally:
            self._pending = None
        try:
            self._swap(pending, family, label, run_id)
        except CommitFailedException:
            for one in pending:
                _discard(one)
            raise
        for one in pending:
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

    def _swap(self, pending: Sequence[Pending], family: str, label: str, run_id: str) -> None:
        with Session(self.engine) as session:
            for one in pending:
                if session.execute(self._pointer(one)).rowcount != 1:  # type: ignore[attr-defined]
                    raise CommitFailedException(
                        f"{'.'.join(one.before.name())} was changed by another process"
                    )
            claim = {"catalog_name": self.name, "namespace": family, "property_key": _VERSION + label}
            try:
                session.execute(insert(IcebergNamespaceProperties).values(**claim, property_value=run_id))
                self._commit(session)
            except IntegrityError:
                raise CommitFailedException(
                    f"version {label} of {family} was taken by another process"
                ) from None

    def _pointer(self, one: Pending) -> Any:  # SQLAlchemy's statement type is generic over its result
        family, table = one.before.name()
        return (
            update(IcebergTables)
            .where(
                IcebergTables.catalog_name == self.name,
                IcebergTables.table_namespace == family,
                IcebergTables.table_name == table,
                IcebergTables.metadata_location == one.before.metadata_location,
            )
            .values(
                metadata_location=one.after.metadata_location,
                previous_metadata_location=one.before.metadata_location,
            )
        )

    def _commit(self, session: Session) -> None:
        session.commit()

    def claims(self, family: str) -> dict[str, str]:
        """The labels of a family and the run each belongs to."""
        if not self.namespace_exists(family):
            return {}
        properties = self.load_namespace_properties(family)
        return {
            key.removeprefix(_VERSION): run for key, run in properties.items() if key.startswith(_VERSION)
        }

    def table(self, family: str, name: str, schema: pa.Schema) -> Table:
        """The table, made without rows or versions where it is missing."""
        try:
            return self.load_table((family, name))
        except NoSuchTableError:
            pass
        try:
            self.create_namespace_if_not_exists(family)
            return self.create_table((family, name), schema, properties=TABLE_PROPERTIES)
        except (IntegrityError, TableAlreadyExistsError):
            raise CommitFailedException(f"{family}.{name} was made by another process just now") from None


class _ReplaceFiles(_OverwriteFiles):
    """An overwrite of everything, which carries no manifest of the past into later snapshots."""

    @override
    def _existing_manifests(self) -> list[ManifestFile]:
        return []


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


def _discard(one: Pending) -> None:
    """Removes what a lost race has written; only ever called when nothing can point to it."""
    known = {snapshot.snapshot_id for snapshot in one.before.metadata.snapshots}
    for snapshot in one.after.metadata.snapshots:
        if snapshot.snapshot_id not in known:
            own = [
                m.manifest_path for m in snapshot.manifests(one.after.io) if m.added_snapshot_id not in known
            ]
            delete_files(one.after.io, {*own, snapshot.manifest_list}, METADATA)
    delete_files(one.after.io, {one.after.metadata_location}, METADATA)
