"""Parquet and Arrow IPC (file and stream) as chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from tilth.schemas import Reason
from tilth.transforms.ingest.containers.rows import ArrowChunk
from tilth.transforms.ingest.record import SetAside
from tilth.transforms.ingest.sources import open_bytes

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_ROWS: Final = 16_384
_CHUNK_BYTES: Final = 8 << 20
_TASK_BYTES: Final = 32 << 20
_ARROW_FILE: Final = b"ARROW1"


def parquet_chunks(
    uri: str, groups: Sequence[int] | None, columns: Sequence[str] | None
) -> Iterator[ArrowChunk | SetAside]:
    """Rows of the row groups from ``groups[0]`` to before ``groups[1]`` (all for None).

    A file that is not whole gives what can be read and one row set aside, as UNREADABLE.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = 0
    try:
        with open_bytes(uri) as file, pq.ParquetFile(file) as parquet:
            wanted = range(*groups) if groups else range(parquet.num_row_groups)
            at = sum(parquet.metadata.row_group(n).num_rows for n in range(wanted.start))
            names = [name for name in parquet.schema_arrow.names if columns is None or name in columns]
            for batch in parquet.iter_batches(_rows_at_once(parquet.metadata), list(wanted), names):
                yield from _checked(batch, at)
                at += batch.num_rows
    except (pa.ArrowException, OSError, EOFError) as error:
        yield unreadable(at, "Parquet", error)


def _rows_at_once(metadata: Any) -> int:
    size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    return max(64, min(_CHUNK_ROWS, _CHUNK_BYTES * metadata.num_rows // max(size, 1)))


def row_group_ranges(uri: str) -> list[tuple[int, int]] | None:
    """Ranges of row groups of about 32 MiB each; None for a file that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_bytes(uri) as file:
            metadata = pq.read_metadata(file)
    except (pa.ArrowException, OSError, EOFError):
        return None
    ranges, begin, size = [], 0, 0
    for group in range(metadata.num_row_groups):
        size += metadata.row_group(group).total_byte_size
        if size >= _TASK_BYTES or group == metadata.num_row_groups - 1:
            ranges.append((begin, group + 1))
            begin, size = group + 1, 0
    return ranges


def arrow_chunks(uri: str) -> Iterator[ArrowChunk | SetAside]:
    """Rows of an Arrow IPC file or stream, whichever the first bytes say."""
    import pyarrow as pa

    at = 0
    try:
        with open_bytes(uri) as file:
            magic = file.read(len(_ARROW_FILE))
            file.seek(0)
            for batch in _batches(file, magic == _ARROW_FILE) if magic else ():
                for offset in range(0, batch.num_rows, _CHUNK_ROWS):
                    yield from _checked(batch.slice(offset, _CHUNK_ROWS), at + offset)
                at += batch.num_rows
    except (pa.ArrowException, OSError, EOFError) as error:
        yield unreadable(at, "Arrow IPC", error)


def _batches(file: Any, seekable: bool) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    if not seekable:
        yield from pa.ipc.open_stream(file)
        return
    reader = pa.ipc.open_file(file)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _checked(batch: pa.RecordBatch, at: int) -> Iterator[ArrowChunk]:
    if batch.num_rows:
        batch.validate(full=True)  # text that is no UTF-8 would break polars later
        yield ArrowChunk(batch, at)


def unreadable(at: int, format_name: str, error: BaseException) -> SetAside:
    """The row that stands for a file, or the rest of it, that cannot be read."""
    return SetAside(
        at, Reason.UNREADABLE, f"not readable as {format_name} from here on ({type(error).__name__})"
    )
