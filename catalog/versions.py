"""Releases and versions: what a run hands over, and what is there of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from tilth.catalog.audit import AuditReport
from tilth.catalog.parts import read_json
from tilth.schemas import NotFound

if TYPE_CHECKING:
    from pyiceberg.table import Table


def today() -> date:
    """The day that a version made now is named by."""
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
    date: date = field(default_factory=today)


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

    def stored_audit(self) -> AuditReport | None:
        """What its audit found before it was committed; null where none is kept."""
        stored = read_json(self.properties.get("tilth.audit_uri"))
        return None if stored is None else AuditReport.from_dict(stored)

    def metrics(self) -> Mapping[str, float | int | None]:
        """The metrics of its rows, as that audit has them; none where none is kept."""
        report = self.stored_audit()
        return report.metrics.get(self.table, {}) if report else {}


def version_of(table: Table, label: str) -> Version:
    """The version of a table that has this label. Raises `NotFound`."""
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
