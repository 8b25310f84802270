"""Where a workspace keeps its catalog, when that is said in the workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.catalog import open_catalog, place_catalog
from tilth.schemas import BadInput, ConfigError


def test_every_opener_finds_it_there(tmp_path: Path) -> None:
    """Database and warehouse lie where the workspace says, and nothing is made in their usual places."""
    work, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    elsewhere.mkdir()
    database = f"sqlite:///{elsewhere}/shared.db"
    place_catalog(str(work), database, str(elsewhere / "files"))
    place_catalog(str(work), database, str(elsewhere / "files"))
    with open_catalog(str(work)) as catalog:
        assert catalog.datasets() == []
        assert catalog.warehouse == str(elsewhere / "files")
    assert (elsewhere / "shared.db").exists()
    assert not (work / "catalog" / "catalog.db").exists()


def test_a_catalog_is_not_left_behind(tmp_path: Path) -> None:
    """A workspace that has a catalog keeps it: its versions would be out of sight."""
    open_catalog(str(tmp_path)).close()
    with pytest.raises(BadInput, match="has a catalog"):
        place_catalog(str(tmp_path), "sqlite:////elsewhere.db")
    with open_catalog(str(tmp_path)) as catalog:
        assert catalog.warehouse == str(tmp_path / "catalog" / "warehouse")


def test_no_password_is_written_down(tmp_path: Path) -> None:
    """A URL with a password is refused, and the error does not repeat it."""
    with pytest.raises(ConfigError, match="password") as told:
        place_catalog(str(tmp_path), "postgresql+psycopg://me:hunter2@db/tilth")
    assert "hunter2" not in str(told.value)
    assert not list(tmp_path.rglob("*.json"))
