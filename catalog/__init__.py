"""Versions of tables: audit, commit, resolve, query. PyIceberg, DuckDB and GX are loaded when first used."""

if __name__ != "tilth.catalog":
    raise ImportError(f"import this package as 'tilth.catalog', not as {__name__!r}")

from tilth.catalog.audit import AuditReport, Check, audit, audit_version, releases_behind
from tilth.catalog.collect import Collected, collect
from tilth.catalog.opening import open_catalog, place_catalog
from tilth.catalog.query import query
from tilth.catalog.store import Catalog
from tilth.catalog.versions import Release, Version

__all__ = [
    "AuditReport",
    "Catalog",
    "Check",
    "Collected",
    "Release",
    "Version",
    "audit",
    "audit_version",
    "collect",
    "open_catalog",
    "place_catalog",
    "query",
    "releases_behind",
]
