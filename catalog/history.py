"""The versions of a dataset, one after another: rows, runs, tags, what checks said, and how metrics went."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final  # Any: JSON values

import fsspec

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
    audited = [_audited(version) for version in versions]
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


def _audited(version: Version) -> Mapping[str, Any]:
    """The metrics that the stored audit has of a version's table; none where it is gone."""
    uri = version.properties.get("tilth.audit_uri")
    report = _read(uri) if uri else None
    return report["metrics"].get(version.table, {}) if report else {}


def _read(uri: str) -> dict[str, Any] | None:
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        return json.loads(fs.cat_file(path))
    except FileNotFoundError:
        return None


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
    home = catalog.staging(version.family, version.table, "any").rpartition(f"/{version.table}/data/")[0]
    fs, path = fsspec.core.url_to_fs(f"{home}/checks/{version.table}@{version.version}")
    stored = sorted(fs.glob(f"{path}/*.json"))
    last = _read(fs.unstrip_protocol(stored[-1])) if stored else None
    if last is None:
        return None
    return {
        "times": len(stored),
        "checked_at": last.get("checked_at"),
        "against": last.get("against"),
        "failed_critical": len(last.get("failed_critical", [])),
    }
