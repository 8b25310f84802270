"""SQL over datasets: latest and named versions are there, and nothing else of the machine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tilth.catalog import Catalog, Release, query
from tilth.schemas import BadInput, NotFound, TilthError

DAY = date(2026, 11, 21)


@pytest.fixture
def filled(catalog: Catalog, stage: Callable[..., Any], rows: Callable[[], Any]) -> Catalog:
    """Two versions of three tables; in the newer, pairs are empty."""
    some = {table: rows()[table] for table in ("pairs", "unpaired", "rationales")}
    catalog.publish(Release("observed", "r1", stage("r1", some), date=DAY))
    catalog.publish(Release("observed", "r2", stage("r2", {**some, "pairs": []}), date=DAY))
    return catalog


def test_the_bare_name_is_the_latest_version(filled: Catalog) -> None:
    """`observed.unpaired` without a version has the latest rows."""
    result = query(filled, "select label, count(*) as n from observed.unpaired group by 1 order by 1")
    assert result.to_pylist() == [{"label": False, "n": 1}, {"label": True, "n": 1}]


def test_a_quoted_name_is_that_version(filled: Catalog) -> None:
    """Versions are named in double quotes, and can be joined with the latest."""
    sql = """select (select count(*) from "observed.pairs@2026.11.21.1") as old,
                    (select count(*) from observed.pairs) as new"""
    assert query(filled, sql).to_pylist() == [{"old": 1, "new": 0}]


def test_nested_columns_can_be_asked(filled: Catalog) -> None:
    """Messages are lists of structs, and partition-like folders add no column."""
    sql = 'select chosen[1].content as said, columns(p.*) from "observed.pairs@2026.11.21.1" p'
    result = query(filled, sql)
    assert result["said"].to_pylist() == ["five centimetres"]
    assert "run" not in result.column_names


def test_an_empty_table_has_its_columns(filled: Catalog) -> None:
    """A table without rows is queried like any other."""
    result = query(filled, "select origin, margin from observed.pairs where split = 'train'")
    assert (result.num_rows, result.column_names) == (0, ["origin", "margin"])


def test_show_tables_lists_the_datasets(filled: Catalog) -> None:
    """Whoever names no dataset finds all of them."""
    names = query(filled, "select table_name from information_schema.tables")["table_name"].to_pylist()
    assert {"pairs", "unpaired", "rationales"} <= set(names)


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{place}/out.csv'",
        "attach '{place}/out.db'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "create table mine as select 1",
        "export database '{place}/out'",
        "pragma database_list",
        "select 1; select 2",
        "",
    ],
)
def test_only_one_select_is_let_through(filled: Catalog, tmp_path: Path, sql: str) -> None:
    """Anything but one SELECT is refused before it runs."""
    with pytest.raises(BadInput):
        query(filled, sql.format(place=tmp_path))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_csv('{file}')",
        "select * from read_text('{file}')",
        "select * from glob('{place}/*')",
        "select * from read_parquet('{place}/**/*.parquet')",
        "select * from query('select * from read_text(''{file}'')')",
        "select * from sniff_csv('{file}')",
        "select * from observed.pairs, read_csv('{file}')",
    ],
)
def test_no_other_file_can_be_read(filled: Catalog, tmp_path: Path, sql: str) -> None:
    """Files that are no part of a dataset are out of reach, and so are folders."""
    (tmp_path / "private.csv").write_text("key\nsesame\n")
    with pytest.raises(TilthError) as caught:
        query(filled, sql.format(place=tmp_path, file=tmp_path / "private.csv"))
    assert "sesame" not in str(caught.value)


def test_a_file_is_no_table(filled: Catalog, tmp_path: Path) -> None:
    """DuckDB would read a path in the place of a table; here it cannot."""
    (tmp_path / "private.csv").write_text("key\nsesame\n")
    with pytest.raises(TilthError):
        query(filled, f"from '{tmp_path}/private.csv'")


def test_variables_of_the_process_are_no_tables(filled: Catalog) -> None:
    """DuckDB would read a data frame by the name of a local variable; here it cannot."""
    import polars as pl

    frame = pl.DataFrame({"secret": [1]})
    assert frame.height == 1
    with pytest.raises(NotFound):
        query(filled, "select * from frame")


@pytest.mark.parametrize(
    "sql", ["select * from observed.pears", "select * from pairs", "select nosuch from observed.pairs"]
)
def test_a_wrong_name_is_told_what_exists(filled: Catalog, sql: str) -> None:
    """An unknown table or column is an error that lists the datasets."""
    with pytest.raises(NotFound) as caught:
        query(filled, sql)
    assert "observed.pairs" in str(caught.value.wanted)


def test_an_unknown_version_is_told_the_nearest(filled: Catalog) -> None:
    """An unknown version in quotes names those that exist."""
    with pytest.raises(NotFound, match=r"2026\.11\.21\.2"):
        query(filled, 'select * from "observed.pairs@2026.11.21.9"')


def test_an_unquoted_version_is_told_to_quote(filled: Catalog) -> None:
    """A version without quotes cannot be parsed, and the error says how to write it."""
    with pytest.raises(BadInput, match="double quotes"):
        query(filled, "select * from observed.pairs@2026.11.21.1")


def test_errors_hold_no_values(filled: Catalog) -> None:
    """A failing cast quotes the value in DuckDB's message; ours does not."""
    with pytest.raises(TilthError, match="ConversionException") as caught:
        query(filled, "select cast(text as int) from observed.rationales")
    assert "roof" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_files_elsewhere_are_queried_through_arrow(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where DuckDB has no file system of its own, the rows come through Arrow, with the same result."""
    sql = "select id, label from observed.unpaired order by id"
    native = query(filled, sql)
    monkeypatch.setattr(import_module("tilth.catalog.query"), "REMOTE", "/")
    assert query(filled, sql).equals(native)
