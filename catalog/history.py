"""The versions of a dataset, one after another: rows, runs, tags, what checks said, and how metrics went."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final  # Any: JSON values

from tilth.catalog.checks import checks_of
from tilth.catalog.names import parse
from tilth.schemas import NotFound

if TYPE_CHECKING:
    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version

TRENDED: Final[Mapping[str, tuple[str, ...]]] = {
    "pairs": ("chosen_longer_share", "near_equal_share"),
    "unpaired": ("labelled_true_share",),
}
"""Metrics that are worth following, by table."""


def history(catalog: Catalog, name: str, metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One entry a version, newest first.

    Args:
        catalog: where the dataset is.
        name: `family.table`; with `@version`, from that version backwards.
        metrics: of the stored audits; by default those of `TRENDED`.

    `change` is the difference in rows to the version before; `checks` the counts of the audit at the commit; `checked`
    how often `tilth check` looked at the version since, and what it said last; both null where nothing is stored.

    Raises `NotFound` as `Catalog.versions` does, and for a metric that no audit has, naming the nearest.
    """
    wanted = parse(name)
    versions = catalog.versions(wanted.dataset)
    if wanted.version is not None:
        first = catalog.resolve(name).version
        versions = versions[[one.version for one in versions].index(first) :]
    audited = [version.metrics() for version in versions]
    _refuse_unknown(metrics, audited, wanted.table)
    followed = metrics or TRENDED.get(wanted.table, ())
    tags = catalog.tags(wanted.family)
    before = [*(version.rows for version in versions[1:]), None]
    return [
        {
            "version": version.version,
            "created_at": version.created_at.isoformat(timespec="seconds"),
            "rows": version.rows,
            "change": None if older is None else version.rows - older,
            "run_id": version.properties.get("tilth.run_id"),
            "tags": [tag for tag, label in tags.items() if label == version.version],
            "checks": _summary(version),
            "checked": _checked(catalog, version),
            "metrics": {metric: measured.get(metric) for metric in followed},
        }
        for version, older, measured in zip(versions, before, audited, strict=True)
    ]


def _refuse_unknown(metrics: Sequence[str], audited: Sequence[Mapping[str, Any]], table: str) -> None:
    known = sorted({metric for measured in audited for metric in measured})
    for metric in metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=3) or known[:8]
            what = f"no audit of {table} has the metric {metric}"
            raise NotFound(
                what, found=", ".join(near) or "none at all", do="see them with `tilth check --json`"
            )


def _summary(version: Version) -> dict[str, Any] | None:
    text = version.properties.get("tilth.audit")
    return json.loads(text) if text else None


def _checked(catalog: Catalog, version: Version) -> dict[str, Any] | None:
    """How often a version was checked since its commit, and the last verdict."""
    reports = checks_of(catalog, f"{version.name}@{version.version}")
    if not reports:
        return None
    last = reports[0]
    told = {name: last.get(name) for name in ("checked_at", "against")}
    return {"times": len(reports), **told, "failed_critical": len(last["failed_critical"])}
