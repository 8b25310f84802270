"""SQL over datasets, by DuckDB in a box: it reads the catalog's files, and nothing else on the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from tilth.catalog.names import parse
from tilth.catalog.parts import dataset
from tilth.schemas import BadInput, NotFound, TilthError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from tilth.catalog.store import Catalog, Version

REMOTE: Final = "://"  # what DuckDB has no file system for without an extension
_VERSIONED: Final = r'"([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*@[0-9.]+)"'


def query(catalog: Catalog, sql: str) -> pa.Table:
    """The result of one SELECT over datasets.

    `observed.pairs` is the latest version; `"observed.pairs@2026.11.21.1"`, in double quotes, is that one.
    Nothing can be written, and no file outside these datasets, no network and no variable of this process can
    be read.

    Raises `NotFound` for an unknown dataset or column, naming what exists, and `BadInput` for anything but
    one SELECT. Errors never hold values of rows.
    """
    import duckdb

    versions = dict(_mentioned(catalog, sql))
    with duckdb.connect() as connection:
        _refuse_all_but_select(connection, sql)
        for name, version in versions.items():
            _register(connection, name, version)
        _lock(connection, versions.values())
        try:
            return connection.sql(sql).to_arrow_table()
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            names = ", ".join(catalog.datasets()) or "none at all"
            raise NotFound("no such dataset, column or function", found=_first(error), wanted=names) from None
        except duckdb.PermissionException as error:
            raise BadInput(
                "the query leaves the catalog", found=_first(error), wanted="datasets only"
            ) from None
        except duckdb.Error as error:  # its message may quote a value
            raise TilthError(
                "the query failed", found=type(error).__name__, do="look at casts and functions"
            ) from None


def _first(error: Exception) -> str:
    return str(error).partition("\nLINE")[0].replace("\n", " ").strip()


def _mentioned(catalog: Catalog, sql: str) -> Iterator[tuple[str, Version]]:
    for name in set(re.findall(_VERSIONED, sql)):
        yield name, catalog.resolve(name)
    known, text = [parse(name) for name in catalog.datasets()], sql.lower()
    named = [name.dataset for name in known if name.family in text and name.table in text]
    for dataset_name in named or [name.dataset for name in known]:
        yield dataset_name, catalog.resolve(dataset_name)


def _refuse_all_but_select(connection: DuckDBPyConnection, sql: str) -> None:
    import duckdb

    try:
        kinds = [statement.type for statement in connection.extract_statements(sql)]
    except duckdb.ParserException as error:
        do = (
            'put a dataset with a version in double quotes: "observed.pairs@2026.11.21.1"'
            if "@" in sql
            else None
        )
        raise BadInput("the query cannot be parsed", found=_first(error), do=do) from None
    if len(kinds) != 1 or kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise BadInput("the query", found=found, wanted="one SELECT, DESCRIBE, SUMMARIZE or EXPLAIN")


def _register(connection: DuckDBPyConnection, name: str, version: Version) -> None:
    if "@" in name:
        view = _quoted(name)
    else:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(version.family)}")
        view = f"{_quoted(version.family)}.{_quoted(version.table)}"
    if version.files and REMOTE not in version.files[0]:
        rows = f"read_parquet([{_literals(version.files)}], hive_partitioning = false)"
    else:
        source = f"rows of {name}"
        connection.register(source, dataset(version.table, version.files))
        rows = _quoted(source)
    connection.execute(f"CREATE VIEW {view} AS FROM {rows}")


def _lock(connection: DuckDBPyConnection, versions: Iterable[Version]) -> None:
    files = [file for version in versions for file in version.files]
    connection.execute(f"SET allowed_paths = [{_literals(files)}]")
    for setting in ("autoinstall_known_extensions", "autoload_known_extensions", "enable_external_access"):
        connection.execute(f"SET {setting} = false")
    connection.execute("SET lock_configuration = true")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literals(texts: Sequence[str]) -> str:
    return ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
