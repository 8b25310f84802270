"""The reference names what the code has: a setting, column, reason, format or label that is missing here fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilth.flows.settings import known_keys
from tilth.schemas import TABLES, Reason
from tilth.transforms.feedback import DSAT, SAT
from tilth.transforms.ingest import SHAPES

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference"
PAGES = [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]


def _named(page: str) -> set[str]:
    """The first cell of each table row of a page."""
    rows = (line.split("|") for line in (REFERENCE / page).read_text().splitlines() if line.startswith("| `"))
    return {cells[1].strip().strip("`") for cells in rows}


def test_every_setting_is_documented() -> None:
    """docs/reference/settings.md lists exactly the keys that a settings file may hold."""
    sections = {key for key in known_keys() if any(other.startswith(f"{key}.") for other in known_keys())}
    assert _named("settings.md") == set(known_keys()) - sections


def test_every_column_and_reason_is_documented() -> None:
    """docs/reference/tables.md lists exactly the columns of all tables and the reasons of quarantine."""
    columns = {field.name for schema in TABLES.values() for field in schema}
    assert _named("tables.md") == columns | {reason.value for reason in Reason}


def test_every_format_is_documented() -> None:
    """docs/reference/formats.md lists exactly the shapes that --format takes."""
    assert _named("formats.md") == set(SHAPES)


def test_every_label_is_documented() -> None:
    """docs/reference/feedback.md lists exactly the eighteen labels."""
    assert _named("feedback.md") == {*SAT, *DSAT}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file of the repository."""
    import re

    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []
