"""What a query gives, as JSON, CSV or Parquet: batch after batch, into a file that appears whole or not at all."""

from __future__ import annotations

import json
import math
import sys
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import IO, Any  # Any: cells of tables

import fsspec
import pyarrow as pa

from tilth.catalog import open_catalog
from tilth.catalog.query import batches
from tilth.flows.show import print_records, print_rows
from tilth.schemas import BadInput, ConfigError

_TABLE_ROWS = 100
_TABLE_COLUMNS = 10  # wider rows are printed one below the other


class Form(StrEnum):
    """How `tilth catalog query` writes."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


def form_of(asked: Form | None, output: str | None) -> Form:
    """The form that is meant: the one that is named, else by the end of the file's name, else a table.

    Raises `ConfigError` for a file of a form that is not known, for a table in a file and for Parquet on a terminal.
    """
    if asked is None and output:
        ending = output.rpartition(".")[2].lower()
        if ending not in (Form.json, Form.csv, Form.parquet):
            wanted = "a name that ends in .parquet, .csv or .json, or --format"
            raise ConfigError("the form of the output", found=output.rpartition("/")[2], wanted=wanted)
        return Form(ending)
    form = asked or Form.table
    if form is Form.table and output:
        raise ConfigError("a file of --format table", wanted="--format parquet, csv or json")
    if form is Form.parquet and not output:
        raise ConfigError("Parquet without a file", do="name one: --output rows.parquet")
    return form


def run_query(workspace: str, sql: str, asked: Form | None, output: str | None, most: int | None) -> None:
    """Asks the catalog, and prints or writes what it says; of a table, how many rows it does not show."""
    form = form_of(asked, output)
    with open_catalog(workspace, create=False) as catalog, batches(catalog, sql) as rows:
        if form is Form.table:
            _print(rows, _TABLE_ROWS if most is None else most)
            return
        count = write(rows, form, output, most)
    if output:
        sys.stderr.write(f"{count:,} rows in {output}\n")


def _print(rows: pa.RecordBatchReader, most: int) -> None:
    shown: list[dict[str, Any]] = []
    count = 0
    for batch in rows:
        shown += batch.slice(0, most - len(shown)).to_pylist()
        count += batch.num_rows
    if len(rows.schema) > _TABLE_COLUMNS:
        print_records(shown)
    else:
        print_rows(shown, "no rows")
    if count > len(shown):
        sys.stdout.write(
            f"… and {count - len(shown):,} more rows: --max-rows shows more, --output FILE keeps all\n"
        )


def write(rows: pa.RecordBatchReader, form: Form, output: str | None, most: int | None) -> int:
    """Writes rows, `most` of them if given, to a file or to standard output, and says how many there were.

    Raises `BadInput` naming the column that the form cannot hold.
    """
    wanted = first(rows, most)
    if output is None:
        sys.stdout.flush()
        return _WRITERS[form](wanted, rows.schema, sys.stdout.buffer)
    with _whole(output) as file:
        return _WRITERS[form](wanted, rows.schema, file)


def first(rows: Iterable[pa.RecordBatch], most: int | None) -> Iterator[pa.RecordBatch]:
    """The first `most` rows of batches; all where it is null."""
    left = most
    for batch in rows:
        if left is None:
            yield batch
        elif left > 0:
            yield batch.slice(0, left)
            left -= min(left, batch.num_rows)
        else:
            return


@contextmanager
def _whole(uri: str) -> Generator[IO[bytes]]:
    """A file that appears under its name when the block ends without an error."""
    fs, path = fsspec.core.url_to_fs(uri)
    parent, _, name = path.rpartition("/")
    fs.makedirs(parent, exist_ok=True)
    draft = f"{parent}/.{name}.{uuid.uuid4().hex}.tmp"
    try:
        with fs.open(draft, "wb") as file:
            yield file
        fs.mv(draft, path)
    finally:
        if fs.exists(draft):
            fs.rm(draft)


def plain(value: Any) -> Any:
    """A cell as JSON can hold it: no NaN, no bytes."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def _json(rows: Iterator[pa.RecordBatch], _schema: pa.Schema, file: IO[bytes]) -> int:
    count = 0
    for batch in rows:
        for row in batch.to_pylist():
            text = json.dumps(plain(row), default=str, ensure_ascii=False)
            file.write(((",\n  " if count else "[\n  ") + text).encode())
            count += 1
    file.write(b"\n]\n" if count else b"[]\n")
    return count


def _csv(rows: Iterator[pa.RecordBatch], schema: pa.Schema, file: IO[bytes]) -> int:
    """With nested columns as JSON; quotes where a value needs them, so that one value can be taken by a shell."""
    import polars as pl

    flat = pa.schema([pa.field(field.name, _csv_type(field.type)) for field in schema])
    pl.DataFrame(flat.empty_table()).write_csv(file)
    count = 0
    for batch in rows:
        columns = [_cells(column, field.type) for column, field in zip(batch.columns, flat, strict=True)]
        pl.DataFrame(pa.table(columns, schema=flat)).write_csv(file, include_header=False)
        count += batch.num_rows
    return count


def _csv_type(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    as_it_is = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return kind if as_it_is or types.is_timestamp(kind) or types.is_date(kind) else pa.string()


def _cells(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    return pa.array([_text(value) for value in column.to_pylist()], kind)


def _text(value: Any) -> str | None:
    if isinstance(value, list | dict):
        return json.dumps(plain(value), default=str, ensure_ascii=False)
    return None if value is None else str(plain(value))


def _parquet(rows: Iterator[pa.RecordBatch], schema: pa.Schema, file: IO[bytes]) -> int:
    import pyarrow.parquet as pq

    count = 0
    try:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in rows:
                writer.write_batch(batch)
                count += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise BadInput("a column that Parquet cannot hold", found=kinds, do="cast it to varchar") from None
    return count


_Writer = Callable[[Iterator[pa.RecordBatch], pa.Schema, IO[bytes]], int]
_WRITERS: dict[Form, _Writer] = {Form.json: _json, Form.csv: _csv, Form.parquet: _parquet}
