"""Checks of committed versions: run again, compared with an earlier version, and kept beside the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any  # Any: JSON values

import fsspec

from tilth.catalog.audit import audit_version, measured, own_metrics, releases_behind
from tilth.catalog.drift import Drift, drift
from tilth.catalog.names import parse
from tilth.catalog.parts import write_whole
from tilth.schemas import BadInput
from tilth.schemas.expectations import OF_RUNS, Suite, load_suite

if TYPE_CHECKING:
    from tilth.catalog.audit import Row
    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version


def check_version(
    catalog: Catalog, name: str, against: str | None = None, suites: str | None = None
) -> dict[str, Any]:
    """Checks a version again, and how far it is from another.

    Args:
        name: a dataset or one version of it.
        against: a version of the same table; by default the version before it, where there is one.
        suites: a folder of a user's own suites.

    Returns the report as JSON values: dataset, version, metrics, checks, failed_critical (of these), against (null for
    none), drift, checked_at, code_version. Holds no text of a row.

    Raises `NotFound` for an unknown name, `BadInput` for versions of two tables, `ConfigError` for an unusable suite.
    """
    import tilth

    version = catalog.resolve(name)
    report = audit_version(catalog, name, suites)
    other = _other(catalog, version, against)
    suite = load_suite(version.table, suites)
    found = _drift(catalog, version, report.metrics[version.table], other, suite, suites) if other else []
    return {
        "dataset": version.name,
        "version": version.version,
        **report.to_dict(),
        "checks": report.rows(),
        "against": other and f"{other.name}@{other.version}",
        "drift": [asdict(one) for one in found],
        "checked_at": datetime.now(UTC).isoformat(),
        "code_version": tilth.__version__,
    }


def _other(catalog: Catalog, version: Version, against: str | None) -> Version | None:
    if against is None:
        return next(iter(catalog.earlier(version)), None)
    other = catalog.resolve(against)
    if other.table != version.table:
        raise BadInput("--against", found=f"{other.name}", wanted=f"a version of a table {version.table}")
    return other


def _drift(
    catalog: Catalog, version: Version, now: Row, other: Version, suite: Suite, suites: str | None
) -> list[Drift]:
    before = metrics_of(catalog, other, suite, suites)
    return drift(version.table, {**now, **_of_run(version)}, {**before, **_of_run(other)}, suite.drift)


def metrics_of(catalog: Catalog, version: Version, suite: Suite, suites: str | None = None) -> Row:
    """The metrics of a version that the drift rules of `suite` need: from its stored audit, or else measured anew."""
    stored = version.metrics()
    lacking = [rule.metric for rule in suite.drift if not _has(stored, rule.metric)]
    if not lacking:
        return stored
    if set(lacking) <= suite.metrics.keys():
        return {**stored, **own_metrics(suite, version.files, suites)}
    own, *parents = releases_behind(catalog, version)
    anew = measured(own, (version.table,), parents)[version.table]
    return {**anew, **own_metrics(suite, version.files, suites)}


def _has(row: Row, metric: str) -> bool:
    return metric in row or metric in OF_RUNS or any(name.startswith(f"{metric}=") for name in row)


def _of_run(version: Version) -> dict[str, float]:
    """What the run that made a version says of it."""
    summary: Mapping[str, Any] = json.loads(version.properties.get("tilth.summary", "{}"))
    rows = summary.get("rows_in")
    return {"quarantined_share": summary["rows_quarantined"] / rows} if rows else {}


def store_check(catalog: Catalog, report: Mapping[str, Any]) -> str:
    """Keeps the report of a check beside the data; returns its URI."""
    name, label = report["dataset"], report["version"]
    stamp = f"{datetime.fromisoformat(report['checked_at']):%Y%m%dT%H%M%S.%fZ}"
    uri = f"{_home(catalog, name)}@{label}/{stamp}.json"
    write_whole(json.dumps(report, sort_keys=True, allow_nan=False).encode(), uri)
    return uri


def checks_of(catalog: Catalog, name: str) -> list[dict[str, Any]]:
    """The stored reports of a dataset, or of one version of it, newest first.

    Raises `NotFound` for an unknown version, `BadInput` for what is no name.
    """
    wanted = parse(name)
    label = catalog.resolve(name).version if wanted.version else "*"
    fs, pattern = fsspec.core.url_to_fs(f"{_home(catalog, wanted.dataset)}@{label}/*.json")
    reports = [json.loads(fs.cat_file(path)) for path in fs.glob(pattern)]
    return sorted(reports, key=lambda report: report["checked_at"], reverse=True)


def _home(catalog: Catalog, dataset: str) -> str:
    name = parse(dataset)
    return f"{catalog.warehouse}/{name.family}/checks/{name.table}"
