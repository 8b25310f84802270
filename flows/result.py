"""What a run reports: the same facts as JSON and as the summary that a person reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any  # Any: JSON values


@dataclass(frozen=True, slots=True)
class Dataset:
    """One committed table."""

    name: str  # recipe.table
    version: str
    rows: int
    snapshot_id: int


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What became of one source's rows: rows_in == rows_out + rows_quarantined."""

    source: str
    rows_in: int
    rows_out: int
    rows_quarantined: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of `tilth run`. Counts are of source rows unless they say otherwise."""

    run_id: str
    status: str  # committed | unchanged
    rows_in: int
    rows_quarantined: int
    datasets: list[Dataset]
    seconds: dict[str, float]  # wall time by stage; empty when nothing had to be done
    sources: list[SourceCount] = field(default_factory=list)
    quarantined: dict[str, int] = field(default_factory=dict)  # source rows by reason
    dropped: dict[str, int] = field(default_factory=dict)  # candidates for pairs and labels by reason
    passed_over: dict[str, int] = field(default_factory=dict)  # conversations not mined, by language
    files: dict[str, int] = field(
        default_factory=dict
    )  # source files: new, and of an incremental run seen, changed, gone
    warnings: list[str] = field(default_factory=list)
    usage: dict[str, Any] = field(
        default_factory=dict
    )  # what models used; empty for a recipe without a model
    notes: dict[str, Any] = field(default_factory=dict)  # what else a recipe counts

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)
