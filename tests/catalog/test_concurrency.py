"""Processes that change one catalog at the same time lose no row, no tag and no version."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog_processes import check_changes, check_publishes, check_renames

pytestmark = pytest.mark.slow


def test_eight_processes_publish_to_sqlite(tmp_path: Path) -> None:
    """Eight processes in a new workspace; each begins with making the catalog and its tables."""
    check_publishes(tmp_path, 1)


def test_changes_at_once_on_sqlite(tmp_path: Path) -> None:
    """Four processes that publish, tag, drop, restore and collect."""
    check_changes(tmp_path, 1)


def test_renames_under_publishes_on_sqlite(tmp_path: Path) -> None:
    """Two processes publish, a third renames what they publish to."""
    check_renames(tmp_path, 2)
