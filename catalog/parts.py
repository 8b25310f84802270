"""Parquet parts as the catalog sees them: where they are, whether they fit their table, their rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any  # Any: JSON values

import fsspec
import polars as pl
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from tilth.schemas import TABLES, NotFound, TilthError, empty

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

_FIELD_ID = b"PARQUET:field_id"


def plain(uri: str) -> str:
    """The absolute path of a local file; another URI as it is."""
    fs, path = fsspec.core.url_to_fs(uri)
    return str(Path(path).absolute()) if isinstance(fs, LocalFileSystem) else uri.rstrip("/")


def read_json(uri: str | None) -> Any:
    """What a JSON file of the warehouse holds; null where there is none."""
    if not uri:
        return None
    fs, path = fsspec.core.url_to_fs(uri)
    try:
        return json.loads(fs.cat_file(path))
    except FileNotFoundError:
        return None


def write_whole(data: bytes, uri: str) -> None:
    """Writes a small file whole or not at all: under another name beside it, then moved.

    A file system that cannot rename is an object store, and shows whole files only.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    renames = type(fs).mv is not AbstractFileSystem.mv
    draft = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp" if renames else path
    fs.pipe_file(draft, data)
    if renames:
        fs.mv(draft, path)


def scan(table: str, uris: Sequence[str]) -> pl.LazyFrame:
    """The rows of these parts, in order; local, or on what polars reads itself (`s3://`, `gs://`, `hf://`)."""
    if not uris:
        return empty(table).lazy()
    return pl.scan_parquet([plain(uri) for uri in uris], glob=False, hive_partitioning=False)


def dataset(table: str, uris: Sequence[str]) -> Dataset:
    """The rows of these parts as a pyarrow dataset, with their stored types, on any fsspec file system."""
    import pyarrow.dataset as ds

    if not uris:
        return ds.dataset(TABLES[table].empty_table())
    fs, _ = fsspec.core.url_to_fs(uris[0])
    paths = [fsspec.core.url_to_fs(uri)[1] for uri in uris]
    return ds.dataset(paths, filesystem=fs, format="parquet")


def inspect(table: str, uri: str) -> int:
    """The rows of a part, after making sure that it has exactly the columns and types of `table`.

    Iceberg takes fields by the numbers that a file gives them and not by name: a file written for another
    table may have `chosen` and `rejected` change places. And it takes types such as `dictionary` that make
    the whole table unreadable. So field ids and every difference in name, order or type are refused.

    Raises `NotFound` for a missing file, `TilthError` naming file and column for a wrong one.
    """
    import pyarrow.parquet as pq

    try:
        with fsspec.open(uri, "rb") as file:
            footer = pq.read_metadata(file)
    except FileNotFoundError:
        raise NotFound(f"part {uri} of table {table!r}", do="run again: its stage will write it") from None
    except pa.ArrowInvalid:
        raise TilthError(
            f"part {uri} of table {table!r}", found="not a Parquet file", do="run again"
        ) from None
    _compare(table, uri, footer.schema.to_arrow_schema())
    return footer.num_rows


def _compare(table: str, uri: str, found: pa.Schema) -> None:
    wanted = TABLES[table]
    if found.names != wanted.names:
        _refuse(table, uri, "columns", ", ".join(found.names), ", ".join(wanted.names))
    for field in found:
        if not field.type.equals(wanted.field(field.name).type):
            _refuse(table, uri, field.name, field.type, wanted.field(field.name).type)
        if _numbered(field):
            _refuse(table, uri, field.name, "a Parquet field id of another table", "no field ids")


def _numbered(field: pa.Field) -> bool:
    if field.metadata and _FIELD_ID in field.metadata:
        return True
    return any(_numbered(field.type.field(index)) for index in range(field.type.num_fields))


def _refuse(table: str, uri: str, column: str, found: object, wanted: object) -> None:
    raise TilthError(
        f"part {uri} does not fit table {table!r}: {column}",
        found=found,
        wanted=wanted,
        do=f"write it with the Arrow schema TABLES[{table!r}] and no field ids",
    )
