"""SQL over datasets, by DuckDB in a box: it sees the rows that it is handed, and nothing else of the machine.

The rows come in as Arrow, and DuckDB has no file at all: a path that it may read, by `allowed_paths`, is one that it
may write too (`WITH x AS (COPY … TO …) SELECT`, `EXPLAIN ANALYZE COPY`), which would let a query overwrite a version.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from tilth.catalog.names import parse
from tilth.catalog.parts import dataset
from tilth.schemas import BadInput, NotFound, TilthError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, DuckDBPyRelation
    from pyarrow.dataset import Dataset

    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version

BATCH_ROWS: Final = 8_192
_VERSIONED: Final = r'"([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*@[A-Za-z0-9._-]+)"'
_EXPLAIN: Final = re.compile(r"\s*explain\b(\s*\([^)]*\))?(\s+analyze\b)?", re.IGNORECASE)
_NAMED: Final = 12  # as many datasets an error lists; of more, the nearest


def query(catalog: Catalog, sql: str) -> pa.Table:
    """The result of one SELECT over datasets, whole; see `batches`."""
    with batches(catalog, sql) as reader:
        return reader.read_all()


@contextmanager
def batches(catalog: Catalog, sql: str) -> Generator[pa.RecordBatchReader]:
    """The result of one SELECT over datasets, batch after batch.

    `observed.pairs` is the latest version; `"observed.pairs@2026.11.21.1"` and `"observed.pairs@golden"`, in double
    quotes, are those. Nothing can be written, and no file, no network and no variable of this process can be read.

    Raises `NotFound` for an unknown dataset or column, naming what exists, and `BadInput` for anything but one SELECT,
    here or while batches are read. Errors never hold values of rows.
    """
    versions = dict(_mentioned(catalog, sql))
    rows = {name: dataset(version.table, version.files) for name, version in versions.items()}
    with select(sql, rows, catalog.datasets()) as reader:
        yield reader


@contextmanager
def select(
    sql: str, rows: Mapping[str, Dataset], known: Sequence[str] = ()
) -> Generator[pa.RecordBatchReader]:
    """The result of one SELECT over these rows, and nothing else.

    Args:
        sql: DuckDB's.
        rows: what each view shows, by its name: `rows`, `observed.pairs`, or `observed.pairs@2026.11.21.1`, which
            SQL has in double quotes.
        known: names that an error may suggest; by default, those of `rows`.

    Raises as `batches` does.
    """
    import duckdb

    with TemporaryDirectory(prefix="tilth-query-") as spill, duckdb.connect() as connection:
        _refuse_all_but_select(connection, sql)
        _shut_in(connection, rows, spill)
        with _told_safely(sql, known or list(rows)):
            reader = connection.sql(sql).to_arrow_reader(BATCH_ROWS)
        told = _told(reader, sql, known or list(rows))
        yield pa.RecordBatchReader.from_batches(reader.schema, told)


def reader(catalog: Catalog, name: str) -> pa.RecordBatchReader:
    """The rows of a dataset, in order, batch after batch. Raises `NotFound` as `Catalog.resolve` does."""
    version = catalog.resolve(name)
    return dataset(version.table, version.files).scanner(batch_size=BATCH_ROWS).to_reader()


def relation(catalog: Catalog, name: str) -> DuckDBPyRelation:
    """The rows of a dataset as a DuckDB relation with a connection of its own, which has no file and no network.

    Raises `NotFound` as `Catalog.resolve` does.
    """
    import duckdb

    version = catalog.resolve(name)
    connection = duckdb.connect()
    _shut_in(connection, {name: dataset(version.table, version.files)}, "")
    return connection.sql(f"FROM {_view(name)}")


def _mentioned(catalog: Catalog, sql: str) -> Iterator[tuple[str, Version]]:
    for name in set(re.findall(_VERSIONED, sql)):
        yield name, catalog.resolve(name)
    known, text = [parse(name) for name in catalog.datasets()], sql.lower()
    named = [name.dataset for name in known if name.family in text and name.table in text]
    for dataset_name in named or [name.dataset for name in known]:
        yield dataset_name, catalog.resolve(dataset_name)


def _refuse_all_but_select(connection: DuckDBPyConnection, sql: str) -> None:
    kinds = _kinds(connection, sql)
    if kinds == ["EXPLAIN"]:
        explained = _EXPLAIN.match(sql)
        kinds = _kinds(connection, sql[explained.end() :]) if explained else ["EXPLAIN after a comment"]
    if kinds != ["SELECT"]:
        found = ", ".join(kinds) or "nothing"
        raise BadInput("the query", found=found, wanted="one SELECT, DESCRIBE, SUMMARIZE or EXPLAIN of one")


def _kinds(connection: DuckDBPyConnection, sql: str) -> list[str]:
    import duckdb

    try:
        return [statement.type.name for statement in connection.extract_statements(sql)]
    except duckdb.ParserException as error:
        do = (
            'put a dataset with a version in double quotes: "observed.pairs@2026.11.21.1"'
            if "@" in sql
            else None
        )
        raise BadInput("the query cannot be parsed", found=_first(error), do=do) from None


def _shut_in(connection: DuckDBPyConnection, rows: Mapping[str, Dataset], spill: str) -> None:
    """Hands over the rows, then takes everything else away; what does not fit memory goes to `spill`, a folder."""
    for name, data in rows.items():
        source = f"rows of {name}"
        connection.register(source, data)
        if "." in name and "@" not in name:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(name.partition('.')[0])}")
        connection.execute(f"CREATE VIEW {_view(name)} AS FROM {_quoted(source)}")
    connection.execute("SET temp_directory = '" + spill.replace("'", "''") + "'")
    for setting in (
        "autoinstall_known_extensions",
        "autoload_known_extensions",
        "python_enable_replacements",
        "enable_external_access",
    ):
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")


def _view(name: str) -> str:
    return _quoted(name) if "@" in name else ".".join(map(_quoted, name.split(".")))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _told(rows: pa.RecordBatchReader, sql: str, known: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _told_safely(sql, known):
        yield from rows


@contextmanager
def _told_safely(sql: str, known: Sequence[str]) -> Generator[None]:
    """Tells DuckDB's errors in our words: its own may quote a value."""
    import duckdb

    try:
        yield
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        wanted = ", ".join(_nearest(sql, known)) or "none at all"
        raise NotFound("no such dataset, column or function", found=_first(error), wanted=wanted) from None
    except duckdb.PermissionException as error:
        raise BadInput("the query leaves the catalog", found=_first(error), wanted="datasets only") from None
    except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
        if "interrupt" in str(error).lower():
            raise KeyboardInterrupt from None
        raise TilthError(
            "the query failed", found=_kind_of(error), do="look at casts and functions"
        ) from None


def _first(error: Exception) -> str:
    return str(error).partition("\nLINE")[0].replace("\n", " ").strip()


def _kind_of(error: Exception) -> str:
    """The kind of an error; where it comes through Arrow, DuckDB's name of it begins the text."""
    named = re.match(r"(\w+) Error: ", str(error))
    return f"{named[1]}Exception" if named else type(error).__name__


def _nearest(sql: str, known: Sequence[str]) -> list[str]:
    if len(known) <= _NAMED:
        return list(known)
    words = re.findall(r"[a-z_][\w.]*", sql.lower())
    near = {name for word in words for name in difflib.get_close_matches(word, known, n=3, cutoff=0.6)}
    return [name for name in known if name in near] or list(known[:_NAMED])
