"""Tables of users' own: read in batches whatever their form, written whole or not at all."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any, Final, Self  # Any: fsspec and pyarrow are typed in part

import fsspec
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tilth.schemas import BadInput, ConfigError, NotFound
from tilth.transforms.parts import ROW_GROUP_ROWS

READS: Final = (".parquet", ".jsonl", ".ndjson", ".csv")
WRITES: Final = (".parquet", ".jsonl", ".ndjson")
_BLOCK: Final = 1 << 20


def form(uri: str, known: tuple[str, ...] = READS) -> str:
    """The form of a table by its name's end. Raises `ConfigError` naming the forms that are known."""
    for ending in known:
        if uri.lower().endswith(ending):
            return ending
    raise ConfigError(
        "a table of an unknown form",
        found=uri.rpartition("/")[2],
        wanted=f"a name that ends in {', '.join(known)}",
    )


def digest(uri: str) -> str:
    """128 bits of a table's form and bytes, in hex. Raises `NotFound`."""
    hashed = hashlib.blake2b(form(uri).encode(), digest_size=16)
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.isfile(path):
        raise NotFound("no such table", found=uri, wanted="a file", do="check --input")
    with fs.open(path, "rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
    return hashed.hexdigest()


def columns(uri: str) -> list[str]:
    """The names of a table's columns, in order."""
    if form(uri) == ".parquet":
        with fsspec.open(uri, "rb") as file:
            return list(_parquet(file, uri).schema_arrow.names)
    return next(batches(uri, 1)).columns


def batches(uri: str, rows: int) -> Iterator[pl.DataFrame]:
    """The rows of a table in order, at most so many at a time; at least one frame.

    Parquet is streamed. JSONL and CSV are read whole, because only all rows together say what type a column has; values
    of CSV stay the text that they are ("007" is no 7). Raises `BadInput` for bytes of another form.
    """
    if form(uri) == ".parquet":
        yield from _parquet_batches(uri, rows)
        return
    fs, path = fsspec.core.url_to_fs(uri)
    frame = _parse(fs.cat_file(path), uri)
    for offset in range(0, max(1, frame.height), rows):
        yield frame.slice(offset, rows)


def _parquet(file: Any, uri: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(uri, error) from None


def _parquet_batches(uri: str, rows: int) -> Iterator[pl.DataFrame]:
    with fsspec.open(uri, "rb") as file:
        table = _parquet(file, uri)
        yielded = False
        for batch in table.iter_batches(batch_size=rows):
            yielded = True
            yield _frame(pa.Table.from_batches([batch]))
        if not yielded:
            yield _frame(table.schema_arrow.empty_table())


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  (narrowing)
    return frame


def _parse(data: bytes, uri: str) -> pl.DataFrame:
    try:
        if form(uri) == ".csv":
            return pl.read_csv(data, infer_schema=False)
        return pl.read_ndjson(data, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise _unreadable(uri, error, _broken_line(data) if form(uri) != ".csv" else None) from None


def _unreadable(uri: str, error: Exception, line: int | None = None) -> BadInput:
    # By its type alone: the message of a parser may quote the row that it stumbled over.
    found = type(error).__name__ if line is None else f"line {line} is no JSON object"
    name, wanted = uri.rpartition("/")[2], form(uri).removeprefix(".")
    return BadInput(f"{name} cannot be read", found=found, wanted=wanted)


def _broken_line(data: bytes) -> int | None:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            if line.strip() and not isinstance(orjson.loads(line), dict):
                return number
        except orjson.JSONDecodeError:
            return number
    return None


class TableWriter:
    """Writes one table from frames of equal columns; the file appears when the context ends without an error.

    Without `keep_empty`, a table without rows is no file, and takes an older one away.
    """

    def __init__(self, uri: str, *, keep_empty: bool = True) -> None:
        self._keep_empty = keep_empty
        self._form = form(uri, WRITES)
        self._fs, self._path = fsspec.core.url_to_fs(uri)
        parent, _, name = self._path.rpartition("/")
        self._draft = f"{parent}/.{name}.{uuid.uuid4().hex}.tmp"
        self._parquet: pq.ParquetWriter | None = None
        self._held: list[pa.Table] = []
        if parent:
            self._fs.makedirs(parent, exist_ok=True)
        self._file: IO[bytes] = self._fs.open(self._draft, "wb")
        self.rows = 0

    def write(self, frame: pl.DataFrame) -> None:
        """Appends rows; the first frame, even one without rows, decides the columns."""
        self.rows += frame.height
        if self._form != ".parquet":
            frame.write_ndjson(self._file)
            return
        self._held.append(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
        if sum(table.num_rows for table in self._held) >= ROW_GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        """Writes what is held as one row group: parts are too small to be read well."""
        table, self._held = pa.concat_tables(self._held), []
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._parquet.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._held and error is None:
                self._write_group()
            if self._parquet is not None:
                self._parquet.close()
            self._file.close()
            if error is None and (self.rows or self._keep_empty):
                self._fs.mv(self._draft, self._path)
            elif error is None and self._fs.exists(self._path):
                self._fs.rm(self._path)
        finally:
            if self._fs.exists(self._draft):
                self._fs.rm(self._draft)
