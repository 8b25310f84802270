"""Reads a task's rows into batches: the vectorised path for what is proven clean, the reference path for the rest."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from tilth.schemas import Reason
from tilth.transforms.ingest.assemble import ROW, draft, finish, quarantine
from tilth.transforms.ingest.containers import Chunk, chunks, record_of
from tilth.transforms.ingest.fast import Clean, FastPath
from tilth.transforms.ingest.record import PAYLOAD_BYTES, ReadConfig, Record, Refused, SetAside
from tilth.transforms.ingest.shapes import ChatShape, Shape, shape_for
from tilth.transforms.ingest.trees import read_trees

BATCH_ROWS: Final = 50_000  # mining costs half as much per row as in batches of 10,000
BATCH_BYTES: Final = 48 << 20
_CHAT_ROWS: Final = 16_384  # of a chunk at once; a record of another shape may be several conversations
_OTHER_ROWS: Final = 4_096
_TREES_AT_ONCE: Final = 512

_Given = Chunk | SetAside


class Batch(NamedTuple):
    """Some records of a source, whole, and what was set aside among them.

    ``rows_in == conversations["record_rows"].sum() + quarantine["source_rows"].sum()`` holds for each.
    """

    conversations: pl.DataFrame
    quarantine: pl.DataFrame
    rows_in: int


def read(
    options: Mapping[str, Any],
    config: ReadConfig | None = None,
    *,
    fast: bool = True,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Batches of a task that `tilth.transforms.ingest.plan` made, of about 50,000 conversations or 48 MiB at most.

    `fast` lets the vectorised path read what it can prove clean; without it the result is the same. `limit` stops
    after about so many source rows. A row's own fault never raises.
    """
    config = config or ReadConfig()
    trees = options["shape"] == "oasst"
    return _gathered(_tree_pieces(options, config, limit) if trees else _pieces(options, config, fast, limit))


def without(
    batch: Batch, users: Collection[str], conversations: Collection[str], place: str, before: int = 0
) -> Batch:
    """A batch in which forgotten conversations are rows of quarantine that say nothing of them.

    What could not be read loses its payload: nothing tells that it is not theirs. The rows of a record of which some
    conversations stay count with the first that does, so a batch still adds up.

    Args:
        batch: as `read` yields it.
        users: keys of users to leave out; without any, and without `conversations`, the batch is returned as it is.
        conversations: ids of conversations to leave out.
        place: what tells this task from others that read the same file.
        before: how many conversations of this task were left out of earlier batches.
    """
    if not users and not conversations:
        return batch
    known = list(users)
    theirs = (
        pl.col("user_key").is_in(known)
        | pl.col("other_user_keys").list.eval(pl.element().is_in(known)).list.any()
    )
    marked = batch.conversations.with_columns(
        _gone=theirs.fill_null(value=False) | pl.col("id").is_in(list(conversations)),
        _record=(pl.col("record_rows") > 0).cum_sum(),
    )
    # Those that stay come before those that go: the first of this order carries the record's rows.
    order = pl.int_range(pl.len(), dtype=pl.Int64) + pl.col("_gone").cast(pl.Int64) * pl.len()
    marked = marked.with_columns(order.alias("_order"))
    rows = (
        pl.when(pl.col("_order") == pl.col("_order").min().over("_record"))
        .then(pl.col("record_rows").sum().over("_record"))
        .otherwise(0)
        .cast(pl.Int32)
    )
    counted = marked.with_columns(rows.alias("record_rows"))
    gone = counted.filter("_gone").with_row_index("_number", before)
    aside = gone.select(
        "source",
        stage=pl.lit("ingest"),
        reason=pl.lit(Reason.FORGOTTEN.value),
        key=pl.format("{}#forgotten={}.{}", "source", pl.lit(place), "_number"),
        detail=pl.lit("this user or conversation is to be forgotten"),
        payload=pl.lit(None, pl.String),
        source_rows="record_rows",
    )
    unread = batch.quarantine.with_columns(payload=pl.lit(None, pl.String))
    kept = counted.filter(~pl.col("_gone")).select(batch.conversations.columns)
    return Batch(kept, pl.concat([unread, aside]), batch.rows_in)


def _gathered(pieces: Iterable[Batch]) -> Iterator[Batch]:
    """Small pieces joined; a piece is never split."""
    held: list[Batch] = []
    rows = size = 0
    for piece in pieces:
        height, weight = piece.conversations.height, piece.conversations.estimated_size()
        if held and (rows + height > BATCH_ROWS or size + weight > BATCH_BYTES):
            yield _joined(held)
            held, rows, size = [], 0, 0
        held.append(piece)
        rows, size = rows + height, size + weight
    if held:
        yield _joined(held)


def _joined(pieces: list[Batch]) -> Batch:
    conversations = pl.concat([piece.conversations for piece in pieces])
    return Batch(
        conversations, pl.concat([piece.quarantine for piece in pieces]), sum(p.rows_in for p in pieces)
    )


def _pieces(options: Mapping[str, Any], config: ReadConfig, fast: bool, limit: int | None) -> Iterator[Batch]:
    (file,) = options["files"]
    shape = shape_for(options) if options["shape"] else None
    path = FastPath(shape, config) if isinstance(shape, ChatShape) else None
    usable = path if path and path.ready else None
    given = _sliced(chunks(file, usable.columns if usable else None), _CHAT_ROWS if usable else _OTHER_ROWS)
    seen = 0
    for chunk, clean in _ahead(given, usable if fast else None):
        piece = _piece(chunk, clean, file, shape, config)
        yield piece
        seen += piece.rows_in
        if limit is not None and seen >= limit:
            return


def _ahead(given: Iterable[_Given], path: FastPath | None) -> Iterator[tuple[_Given, Clean | None]]:
    """Each chunk with what the fast path makes of it, read two chunks ahead: Arrow and polars let go of the lock."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        waiting: deque[tuple[_Given, Future[Clean] | None]] = deque()
        for chunk in given:
            if path is None or isinstance(chunk, SetAside):
                waiting.append((chunk, None))
            else:
                waiting.append((chunk, pool.submit(path.read, chunk)))
            if len(waiting) > 2:
                yield _awaited(*waiting.popleft())
        yield from (_awaited(*one) for one in waiting)


def _awaited(chunk: _Given, clean: Future[Clean] | None) -> tuple[_Given, Clean | None]:
    return chunk, clean.result() if clean else None


def _sliced(given: Iterable[_Given], rows: int) -> Iterator[_Given]:
    for chunk in given:
        if isinstance(chunk, SetAside) or len(chunk) <= rows:
            yield chunk
        else:
            yield from (chunk.part(begin, begin + rows) for begin in range(0, len(chunk), rows))


def _piece(
    chunk: _Given, clean: Clean | None, file: Mapping[str, Any], shape: Shape | None, config: ReadConfig
) -> Batch:
    if isinstance(chunk, SetAside):
        return _batch([], [chunk], [file], config, 1)
    left = np.arange(len(chunk)) if clean is None else clean.left
    records, refused = _by_reference(chunk, left, shape, config)
    drafted = draft(records, config.user_salt)
    if clean is not None:
        drafted = (
            pl.concat([clean.drafted, drafted]).sort(ROW, maintain_order=True) if records else clean.drafted
        )
    return Batch(finish(drafted, file["uri"]), quarantine(refused, [file]), len(chunk))


def _by_reference(
    chunk: Chunk, rows: Iterable[int], shape: Shape | None, config: ReadConfig
) -> tuple[list[tuple[int, Record]], list[SetAside]]:
    records: list[tuple[int, Record]] = []
    refused: list[SetAside] = []
    for row in rows:
        try:
            record = _record(chunk, row, shape, config)
            records.append((row, record))
            refused += [_aside(chunk, row, refusal, 0) for refusal in record.refusals]
        except Refused as refusal:
            refused.append(_aside(chunk, row, refusal, 1))
    return records, refused


def _record(chunk: Chunk, row: int, shape: Shape | None, config: ReadConfig) -> Record:
    value = record_of(chunk, row)
    if shape is None:
        raise Refused(Reason.NOT_A_CONVERSATION, "the file has no known shape")
    record = shape.read(value, config)
    if not record.conversations:
        raise record.refusals[0]
    return record


def _aside(chunk: Chunk, row: int, refusal: Refused, rows: int) -> SetAside:
    payload = chunk.payload(row)[:PAYLOAD_BYTES]
    return SetAside(chunk.place(row), refusal.reason, refusal.detail, payload, rows)


def _tree_pieces(options: Mapping[str, Any], config: ReadConfig, limit: int | None) -> Iterator[Batch]:
    files = options["files"]
    items = read_trees(_limited(files, limit), sum(file["size_bytes"] for file in files), config)
    while some := list(islice(items, _TREES_AT_ONCE)):
        records = [item for item in some if isinstance(item, Record)]
        asides = [item for item in some if isinstance(item, SetAside)]
        yield _batch(records, asides, files, config, sum(item.rows for item in some))


def _batch(
    records: list[Record],
    asides: list[SetAside],
    files: list[Mapping[str, Any]],
    config: ReadConfig,
    rows_in: int,
) -> Batch:
    drafted = draft(enumerate(records), config.user_salt)
    return Batch(finish(drafted, files[0]["uri"]), quarantine(asides, files), rows_in)


def _limited(files: list[Mapping[str, Any]], limit: int | None) -> Iterator[tuple[int, _Given]]:
    seen = 0
    for number, file in enumerate(files):
        for chunk in _sliced(chunks(file), _OTHER_ROWS):
            yield number, chunk
            seen += 1 if isinstance(chunk, SetAside) else len(chunk)
            if limit is not None and seen >= limit:
                return
