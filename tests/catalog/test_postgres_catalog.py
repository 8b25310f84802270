"""The catalog on PostgreSQL: what several hosts commit to at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from catalog_processes import check_changes, check_publishes, check_renames
from inference.conftest import Cluster, postgres  # noqa: F401  # pyright: ignore[reportUnusedImport]  (a fixture)
from tilth.catalog import open_catalog

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("postgres")]


def test_eight_processes_publish_to_postgres(postgres: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Eight processes with five releases each lose no row, no tag and no version."""
    check_publishes(tmp_path, 5, postgres.url())


def test_changes_at_once_on_postgres(postgres: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Publishing, tagging, dropping, restoring and collecting at once."""
    check_changes(tmp_path, 3, postgres.url())


def test_renames_under_publishes_on_postgres(postgres: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """A family is renamed while others publish to it."""
    check_renames(tmp_path, 3, postgres.url())


def test_changes_of_one_family_wait_for_each_other(postgres: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """What a change decides by cannot change before it commits; another family is free meanwhile."""
    url = postgres.url()
    with open_catalog(str(tmp_path), database=url, warehouse=str(tmp_path / "house")) as catalog:
        iceberg = catalog._iceberg
        iceberg.create_namespace("observed")
        iceberg.create_namespace("other")
        event.listen(iceberg.engine, "checkout", _impatient)
        with iceberg.changing("observed"):
            with pytest.raises(OperationalError, match="lock"), iceberg.changing("observed"):
                pass
            with iceberg.changing("other"):
                pass


def _impatient(connection: Any, *_: Any) -> None:
    connection.execute("set lock_timeout = '100ms'")
