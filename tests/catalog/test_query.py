"""SQL over datasets: every version and tag is there, and nothing else of the machine, to read or to write."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tilth.catalog import Catalog, Release, open_catalog, query
from tilth.catalog.query import batches, reader, relation, select
from tilth.schemas import BadInput, NotFound, TilthError
from tilth.transforms.parts import write_part

DAY = date(2026, 11, 21)
PAIR = "1" * 32
ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {
            "id": PAIR,
            "prompt": [{"role": "user", "content": "how deep do I sow peas?"}],
            "chosen": [{"role": "assistant", "content": "five centimetres"}],
            "rejected": [{"role": "assistant", "content": "on the roof"}],
            "split": "train",
        }
    ],
    "unpaired": [{"id": "2" * 32, "label": True}, {"id": "3" * 32, "label": False}],
    "rationales": [{"id": "4" * 32, "text": "no, not on the roof"}],
}


def publish(catalog: Catalog, run: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """One release, a part for each row."""
    files = {
        table: [
            write_part(
                pl.DataFrame([row]), f"{catalog.staging('observed', table, run)}/{n}.parquet", table
            ).uri
            for n, row in enumerate(some)
        ]
        for table, some in rows.items()
    }
    catalog.publish(Release("observed", run, files, date=DAY))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """Two versions of three tables, the older tagged; in the newer, pairs are empty. Nothing here changes it."""
    with open_catalog(str(tmp_path_factory.mktemp("query") / "my work #1")) as catalog:
        publish(catalog, "r1", ROWS)
        publish(catalog, "r2", {**ROWS, "pairs": []})
        catalog.tag("observed", "2026.11.21.1", "golden")
        yield catalog


def test_the_bare_name_is_the_latest_version(filled: Catalog) -> None:
    """`observed.unpaired` without a version has the latest rows."""
    result = query(filled, "select label, count(*) as n from observed.unpaired group by 1 order by 1")
    assert result.to_pylist() == [{"label": False, "n": 1}, {"label": True, "n": 1}]


def test_a_quoted_name_is_that_version(filled: Catalog) -> None:
    """Versions are named in double quotes, and can be joined with the latest."""
    sql = """select (select count(*) from "observed.pairs@2026.11.21.1") as old,
                    (select count(*) from observed.pairs) as new"""
    assert query(filled, sql).to_pylist() == [{"old": 1, "new": 0}]


def test_a_tag_names_a_version(filled: Catalog) -> None:
    """A tag in double quotes is the version that it stands for."""
    assert query(filled, 'select id from "observed.pairs@golden"').to_pylist() == [{"id": PAIR}]


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
        "call pragma_version()",
        "explain analyze copy (select 1) to '{place}/out.csv'",
        "explain (analyze) copy (select 1) to '{place}/out.csv'",
        "/* */ explain analyze copy (select 1) to '{place}/out.csv'",
        "create secret (type s3)",
        "checkpoint",
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
        "select * from read_blob('{file}')",
        "select * from read_json('{file}')",
        "select * from parquet_metadata('{file}')",
        "select * from duckdb_secrets()",
        "select getenv('HOME')",
        "select * from '{file}'",
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


def test_no_version_can_be_overwritten(filled: Catalog) -> None:
    """DuckDB lets a SELECT write: a CTE may be a COPY. Files of the catalog are as much out of its reach as others."""
    (file,) = filled.resolve("observed.pairs@golden").files
    before = Path(file).read_bytes()
    for sql in (
        f"with x as (copy (select 1) to '{file}' (use_tmp_file false)) select 1 from x, \"observed.pairs@golden\"",
        f"with x as (copy (select 1) to '{file}') select 1 from x, \"observed.pairs@golden\"",
        "with x as (insert into observed.unpaired (id) values ('x') returning id) select * from x",
        "with x as (delete from observed.unpaired returning id) select * from x",
        f"select 1 from read_parquet('{file}'), \"observed.pairs@golden\"",
    ):
        with pytest.raises(TilthError):
            query(filled, sql)
    assert Path(file).read_bytes() == before
    assert query(filled, "select count(*) as n from observed.unpaired").to_pylist() == [{"n": 2}]


def test_nothing_is_written_where_a_query_is_asked(
    filled: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB opens the folder that it spills to; that is an empty one of its own, not one below the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp").mkdir()
    with pytest.raises(BadInput):
        query(filled, "with x as (copy (select 1) to '.tmp/out.csv') select * from x")
    assert not list((tmp_path / ".tmp").iterdir())


def test_an_explanation_is_let_through(filled: Catalog) -> None:
    """EXPLAIN of a SELECT says how it would be answered."""
    assert query(filled, "explain select * from observed.unpaired").num_rows > 0
    assert query(filled, "EXPLAIN ANALYZE select * from observed.unpaired").num_rows > 0


def test_results_come_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result of any size is handed over batch after batch, and an error on the way quotes nothing."""
    monkeypatch.setattr(import_module("tilth.catalog.query"), "BATCH_ROWS", 2048)
    with select("select i from range(10000) t(i)", {}) as rows:
        sizes = [batch.num_rows for batch in rows]
    assert sum(sizes) == 10_000
    assert max(sizes) <= 2048
    late = "select cast(if(i = 9999999, 'sesame', i::varchar) as int) from range(10000000) t(i)"
    with (
        pytest.raises(TilthError, match="ConversionException") as caught,
        select(late, {}) as rows,
    ):
        assert sum(batch.num_rows for batch in rows) == 0
    assert "sesame" not in str(caught.value)


def test_an_unknown_name_among_many_is_told_the_nearest() -> None:
    """With more datasets than an error can list, it names those that come nearest."""
    known = [f"family{n}.pairs" for n in range(30)] + ["observed.pairs"]
    with pytest.raises(NotFound) as caught, select("select * from observed.pears", {}, known):
        pass
    assert caught.value.wanted == "observed.pairs"


def test_rows_are_read_batch_after_batch(filled: Catalog) -> None:
    """`reader` hands over the rows of any version in order."""
    found = reader(filled, "observed.unpaired@golden").read_all()
    assert found["id"].to_pylist() == ["2" * 32, "3" * 32]
    assert found.schema.names == filled.arrow("observed.unpaired").schema.names


def test_a_relation_can_be_built_on(filled: Catalog, tmp_path: Path) -> None:
    """`relation` keeps its connection, and can write no file and read none."""
    rows = relation(filled, "observed.unpaired@2026.11.21.1")
    assert rows.filter("label").project("id").fetchall() == [("2" * 32,)]
    with pytest.raises(Exception, match="Permission"):
        rows.write_csv(str(tmp_path / "out.csv"))
    assert relation(filled, "observed.pairs").fetchall() == []


def test_batches_end_with_the_block(filled: Catalog) -> None:
    """A consumer may stop early."""
    with batches(filled, "select * from observed.unpaired") as rows:
        assert rows.schema.names[0] == "id"
    assert query(filled, "select 1 as one").to_pylist() == [{"one": 1}]
