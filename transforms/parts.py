"""Parquet parts on any fsspec file system: written under a temporary name, moved when whole, known by digest."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import Final

import fsspec
import polars as pl
import pyarrow.parquet as pq
import xxhash
from fsspec import AbstractFileSystem

from tilth.schemas import PARQUET, TABLES, conform, content_ids

ROW_GROUP_ROWS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Shard:
    """A handle on one Parquet part: where it is, how many rows it holds, the xxh3-128 of its bytes."""

    uri: str
    rows: int
    digest: str


def read_part(shard: Shard, columns: list[str] | None = None) -> pl.DataFrame:
    """The rows of a part, `columns` only if given."""
    with fsspec.open(shard.uri, "rb") as file:
        return pl.read_parquet(file, columns=columns, use_pyarrow=False)


def read_range(shard: Shard, column: str, low: int, high: int) -> pl.DataFrame:
    """The rows of a part with `low <= column < high`; of a part sorted by it, little else is read."""
    with fsspec.open(shard.uri, "rb") as file:
        table = pq.read_table(file, filters=[(column, ">=", low), (column, "<", high)])
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  (narrowing)
    return frame


def write_part(
    frame: pl.DataFrame, uri: str, table: str | None = None, row_group_rows: int = ROW_GROUP_ROWS
) -> Shard:
    """Writes `frame` to `uri` and returns its handle; equal frames give equal bytes.

    With `table`, the frame is brought to that table's exact columns and Arrow types first: the catalog refuses
    others, and what polars would write by itself (`large_string`) differs from what is declared.
    """
    fitting = frame if table is None else conform(frame, table)
    arrow = fitting.to_arrow(compat_level=pl.CompatLevel.oldest())
    if table is not None:
        arrow = arrow.cast(TABLES[table])
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, row_group_size=row_group_rows, **PARQUET)
    data = buffer.getbuffer()
    write_bytes(data, uri)
    return Shard(uri=uri, rows=frame.height, digest=xxhash.xxh3_128_hexdigest(data))


def is_there(uri: str) -> bool:
    """Whether a file exists."""
    fs, path = fsspec.core.url_to_fs(uri)
    return bool(fs.exists(path))


def write_bytes(data: bytes | memoryview, uri: str) -> None:
    """Writes a file whole or not at all: a temporary name beside it, then a move.

    A file system that cannot rename is an object store, and shows whole files only.
    """
    fs, path = fsspec.core.url_to_fs(uri)
    parent, _, name = path.rpartition("/")
    fs.makedirs(parent, exist_ok=True)
    renames = type(fs).mv is not AbstractFileSystem.mv
    draft = f"{parent}/.{name}.{uuid.uuid4().hex}.tmp" if renames else path
    with fs.open(draft, "wb") as file:
        file.write(data)
    if renames:
        fs.mv(draft, path)


def quarantine_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` (columns of `quarantine` without `id`) with its content ids."""
    keys = [pl.col(name) for name in ("source", "stage", "reason", "key", "payload")]
    return frame.with_columns(content_ids(frame, "quarantine", keys).alias("id"))
