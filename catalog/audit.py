"""The data quality audit: measures parts with polars, judges the metrics with Great Expectations, holds no
user text.

Only counts and numbers reach Great Expectations (its results would copy offending values): one row of metrics
a run, in which every metric of every table is a column. Parts are read one at a time.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tilth.catalog.judge import judge
from tilth.catalog.parts import dataset, inspect, scan
from tilth.catalog.query import select
from tilth.schemas import ChecksFailed, ConfigError, NotFound, TilthError, empty
from tilth.schemas.across import ACROSS, evidence_against
from tilth.schemas.contracts import measure
from tilth.schemas.expectations import Suite, load_suite
from tilth.schemas.metrics import merge

if TYPE_CHECKING:
    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version

Row = Mapping[str, float | int | None]

# Signals whose evidence is looked up in the conversations; all of them up to this number, then those of the
# conversations with the smallest ids, which are hashes.
COMPARED_SIGNALS: Final = 100_000
_COMPARED_COLUMNS: Final = ("conversation_id", "message_index", "target_index", "method", "evidence")


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation and what was observed; `success` is null when there was nothing to observe."""

    table: str
    column: str  # the metric
    expectation: str  # the type of Great Expectations
    wanted: str
    observed: float | int | None
    severity: str
    success: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit saw: counts, numbers and verdicts. Holds no text of a row."""

    metrics: Mapping[str, Row]  # table -> metric -> value
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Every check that failed, of any severity."""
        return tuple(check for check in self.checks if check.success is False)

    @property
    def failed_critical(self) -> tuple[Check, ...]:
        """The failures that block a commit."""
        return tuple(check for check in self.failed if check.severity == "critical")

    def refuse(self) -> None:
        """Raises `ChecksFailed`, naming the first failures, when a critical check failed."""
        if failed := self.failed_critical:
            named = "; ".join(f"{c.table}: {c.column} is {c.observed}, wanted {c.wanted}" for c in failed[:5])
            what = f"{len(failed)} critical data quality checks failed; nothing was committed"
            raise ChecksFailed(what, found=named, wanted="no critical failure", do="look at the staged files")

    def summary(self, table: str) -> dict[str, Any]:
        """Counts of one table's checks and the names of what failed, for a snapshot's properties."""
        checks = [check for check in self.checks if check.table == table]
        failed = [check for check in checks if check.success is False]
        return {
            "checks": len(checks),
            "passed": sum(check.success is True for check in checks),
            "skipped": sum(check.success is None for check in checks),
            "failed": {
                severity: [c.column for c in failed if c.severity == severity] for severity in _SEVERITIES
            },
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per check, failures first, for tables on a screen."""
        order = {False: 0, None: 1, True: 2}
        ranked = sorted(
            self.checks, key=lambda check: (order[check.success], _SEVERITIES.index(check.severity))
        )
        return [asdict(check) for check in ranked]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; `failed_critical` lists the failures that block."""
        return {
            "metrics": {table: dict(row) for table, row in self.metrics.items()},
            "checks": [asdict(check) for check in self.checks],
            "failed_critical": [asdict(check) for check in self.failed_critical],
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> AuditReport:
        """The inverse of `to_dict`."""
        return cls(raw["metrics"], tuple(Check(**check) for check in raw["checks"]))

    def to_json(self) -> str:
        """The report as a JSON text."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)


_SEVERITIES: Final = ("critical", "warning", "info")


Files = Mapping[str, Sequence[str]]
"""The URIs of the parts of tables, by table."""


def audit(
    files: Files,
    tables: Sequence[str] | None = None,
    parents: Sequence[Files] = (),
    suites: str | None = None,
) -> AuditReport:
    """Audits staged or committed parts.

    Args:
        files: a table without parts is audited as empty; one that is not named is not at hand, and checks of others
            that need it are skipped and say so.
        tables: the tables to judge; the rest only serve for comparison. Default: all that are named.
        parents: releases that these rows were made from; references may lead there too.
        suites: a folder of a user's own suites (see `tilth.schemas.expectations`); one that is not there has none.

    Raises `TilthError` naming file and column when a part does not fit its table, `ConfigError` naming file and entry
    when a user's suite cannot be used.
    """
    judged = tuple(tables or files)
    suite_of = {table: load_suite(table, suites) for table in judged}
    metrics = measured(files, judged, parents)
    for table, suite in suite_of.items():
        metrics[table] |= own_metrics(suite, files[table], suites)
    return AuditReport(metrics, tuple(_checks(metrics, suite_of)))


def measured(
    files: Files, judged: Sequence[str], parents: Sequence[Files] = ()
) -> dict[str, dict[str, float | int | None]]:
    """The metrics of `judged`, as `audit` has them, unjudged. Raises as it does."""
    for table, uris in files.items():
        for uri in uris:
            inspect(table, uri)
    own = {table: scan(table, uris) for table, uris in files.items()}
    known = _together([files, *parents])
    metrics = _measured(files, judged)
    for table in judged:
        metrics[table] |= _across(table, {**known, table: own[table]})
    return metrics


def own_metrics(suite: Suite, uris: Sequence[str], suites: str | None) -> dict[str, float | int | None]:
    """What a user's own metrics give over these parts, each a SELECT over the view `rows`, in the box of queries.

    Raises `ConfigError` naming file and entry when one fails or gives anything but one number.
    """
    return {
        name: _number(sql, f"the suite {suites}/{suite.table}.yaml, entry metrics.{name}", suite.table, uris)
        for name, sql in suite.metrics.items()
    }


def _number(sql: str, what: str, table: str, uris: Sequence[str]) -> float | int | None:
    try:
        with select(sql, {"rows": dataset(table, uris)}) as reader:
            found = reader.read_all()
    except TilthError as error:  # told without a value of a row
        raise ConfigError(what, found=str(error), wanted="one SELECT over the view rows") from None
    values = found.column(0).to_pylist() if found.num_columns == 1 else []
    if len(values) != 1 or not (values[0] is None or isinstance(values[0], int | float | Decimal)):
        size = f"{found.num_rows} rows of {found.num_columns} columns"
        raise ConfigError(what, found=size, wanted="one number", do="select count(*) from rows where …")
    number = values[0]
    return float(number) if isinstance(number, Decimal) else number


def _together(releases: Sequence[Files]) -> dict[str, pl.LazyFrame]:
    """Tables with the rows of all releases that have them."""
    uris: dict[str, list[str]] = {}
    for files in releases:
        for table, parts in files.items():
            uris.setdefault(table, []).extend(parts)
    return {table: scan(table, parts) for table, parts in uris.items()}


def audit_version(catalog: Catalog, name: str, suites: str | None = None) -> AuditReport:
    """Audits a committed dataset again, with the other tables of its release, and of those it was made from, at hand.

    Raises `NotFound` for an unknown dataset or version, `ConfigError` as `audit` does.
    """
    version = catalog.resolve(name)
    own, *parents = releases_behind(catalog, version)
    return audit(own, (version.table,), parents, suites)


def releases_behind(catalog: Catalog, version: Version) -> list[Files]:
    """The parts of the release of a version, then those of the releases it was made from, as far as they are there."""
    found: list[Files] = [{one.table: one.files for one in catalog.release(version)}]
    for name in json.loads(version.properties.get("tilth.parents", "[]")):
        with contextlib.suppress(NotFound):
            found += releases_behind(catalog, catalog.resolve(name))
    return found


def _measured(
    files: Mapping[str, Sequence[str]], judged: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """The metrics of parts, one part in memory at a time; feedback is compared as conversations pass."""
    compares = "feedback" in judged and {"feedback", "conversations"} <= files.keys()
    signals = _signals(files["feedback"]) if compares else empty("feedback").select(_COMPARED_COLUMNS)
    metrics = {table: [measure(table, empty(table))] for table in judged}
    compared = Counter(evidence_against(empty("conversations"), signals))
    for table in [*judged, *(["conversations"] if compares and "conversations" not in judged else [])]:
        for uri in files[table]:
            part = scan(table, [uri]).collect()
            if table in judged:
                metrics[table].append(measure(table, part))
            if table == "conversations" and compares:
                compared.update(evidence_against(part, signals))
    rows = {table: merge(parts).row() for table, parts in metrics.items()}
    return {**rows, "feedback": rows["feedback"] | compared} if compares else rows


def _signals(uris: Sequence[str]) -> pl.DataFrame:
    """The signals to compare: all, or about `COMPARED_SIGNALS` of the smallest conversation ids."""
    rows = scan("feedback", uris)
    count = rows.select(pl.len()).collect().item()
    wanted = rows.select(_COMPARED_COLUMNS)
    if count > COMPARED_SIGNALS:
        bound = int(COMPARED_SIGNALS / count * 16**8)
        wanted = wanted.filter(pl.col("conversation_id") < f"{bound:08x}")
    return wanted.collect(engine="streaming")


def _across(table: str, frames: Mapping[str, pl.LazyFrame]) -> dict[str, float | int]:
    at_hand = [check for check in ACROSS[table] if frames.keys() >= set(check.needs)]
    counted = {check.metric: check.count(table, frames) for check in at_hand}
    return {metric: count for metric, count in counted.items() if count is not None}


def _checks(metrics: Mapping[str, Row], suites: Mapping[str, Suite]) -> Iterator[Check]:
    claims = [(table, claim) for table in metrics for claim in suites[table].expectations]
    verdicts = judge([(claim, metrics[table].get(claim.metric)) for table, claim in claims])
    for (table, claim), success in zip(claims, verdicts, strict=True):
        observed = metrics[table].get(claim.metric)
        yield Check(
            table, claim.metric, claim.type, claim.wanted, observed, claim.severity, success, claim.why
        )
