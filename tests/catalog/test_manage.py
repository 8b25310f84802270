"""Tags, rollback, rename, drop, restore and expiry: what they show, what they keep, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tilth.catalog import Catalog, Release
from tilth.schemas import BadInput, NotFound, TilthError

DAY = date(2026, 11, 21)
V1, V2, V3 = (f"2026.11.21.{number}" for number in (1, 2, 3))
Publish = Callable[..., Any]


@pytest.fixture
def publish(catalog: Catalog, stage: Callable[..., Any]) -> Publish:
    """Publishes one row of pairs, or of the tables that are named, whose id is the run's."""

    def run(run_id: str, *tables: str, family: str = "observed", **more: Any) -> Any:
        rows = {table: [{"id": run_id}] for table in tables or ("pairs",)}
        files = stage(run_id, rows, family)
        return catalog.publish(Release(family, run_id, files, date=DAY, **more))

    return run


def ids(catalog: Catalog, name: str) -> list[str]:
    return catalog.frame(name).collect()["id"].to_list()


def files_of(catalog: Catalog) -> set[str]:
    return {str(path) for path in Path(catalog._warehouse).rglob("*") if path.is_file()}


def test_an_expired_version_leaves_no_file(catalog: Catalog, publish: Publish) -> None:
    """What an expired version alone held is deleted: data, manifests, and all metadata that names it."""
    publish("old")
    before = files_of(catalog)
    publish("new")
    gone = catalog.expire("observed", [V1])
    assert [Path(uri).parent.name for uri in gone] == ["run=old"]
    assert files_of(catalog) & before == set()
    assert files_of(catalog) == catalog.reachable()
    assert [version.version for version in catalog.versions("observed.pairs")] == [V2]
    assert ids(catalog, "observed.pairs") == ["new"]
    table = catalog._iceberg.load_table(("observed", "pairs"))
    assert "old" not in Path(table.metadata_location).read_text()
    assert table.metadata.metadata_log == []
