"""The door of the catalog room: what it offers, and what it does not load."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilth.catalog
from tilth.catalog import Catalog, Release
from tilth.catalog.names import Name, next_label, ordinal, parse

HEAVY = (
    "pyiceberg",
    "duckdb",
    "great_expectations",
    "sqlalchemy",
    "pandas",
    "prefect",
    "apache_beam",
    "tilth.transforms",
)


def test_the_door_is_small() -> None:
    """The public names are the ones that the rest of the house uses, and they exist."""
    names = tilth.catalog.__all__
    assert len(names) <= 15
    assert all(hasattr(tilth.catalog, name) for name in names)
    assert callable(tilth.catalog.audit)
    assert callable(tilth.catalog.query)


@pytest.mark.slow
def test_importing_the_room_loads_nothing_heavy() -> None:
    """The engines are loaded by what uses them, not by the import."""
    code = f"import sys, tilth.catalog; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


name_part = st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)


@given(name_part, name_part, st.dates(min_value=date(2000, 1, 1)), st.integers(1, 999))
def test_names_come_apart_as_they_were_put_together(family: str, table: str, day: date, n: int) -> None:
    """Family, table and version are found again in any name made of them."""
    version = f"{day:%Y.%m.%d}.{n}"
    assert parse(f"{family}.{table}@{version}") == Name(family, table, version)
    assert parse(f"{family}.{table}") == Name(family, table, None)


@given(st.dates(min_value=date(2000, 1, 1)), st.sets(st.integers(1, 40)))
def test_labels_only_grow(day: date, taken: set[int]) -> None:
    """The next label of a day sorts after all that were taken, beyond nine too."""
    labels = [f"{day:%Y.%m.%d}.{n}" for n in taken]
    following = next_label(day, labels)
    assert all(ordinal(following) > ordinal(label) for label in labels)
    assert following not in labels


@pytest.mark.slow
def test_the_examples_of_the_python_page_run(
    catalog: Catalog,
    stage: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every example of the reference runs, one after another, in a workspace with two versions and a tag."""
    for run in ("r1", "r2"):
        catalog.publish(Release("observed", run, stage(run), date=date(2026, 11, 21)))
    catalog.tag("observed", "2026.11.21.1", "golden")
    (tmp_path / "tilth-workspace").symlink_to(tmp_path / "my work #1")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "python.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == page.count("```python")
    known: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "python.md", "exec"), known)
    told = capsys.readouterr().out
    assert "[{'n': 1}]" in told
    assert "{'golden': '2026.11.21.1'}" in told
    assert "{'added': 0, 'removed': 0, 'changed': 0, 'relabelled': 0} 0" in told
