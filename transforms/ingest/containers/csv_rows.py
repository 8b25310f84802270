"""CSV (RFC 4180) as chunks of rows; the first line names the columns."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tilth.schemas import Reason
from tilth.transforms.ingest.containers.rows import MAX_ROW_BYTES, ObjectChunk, dumped
from tilth.transforms.ingest.containers.text import cut_off
from tilth.transforms.ingest.record import Refused, SetAside
from tilth.transforms.ingest.streams import Cut

_CHUNK_ROWS: Final = 4096
_CHUNK_CHARS: Final = 4 << 20


class _Texts:
    """Lines of text, decoded; bytes that are no UTF-8 become half surrogates, which later checks find."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self.blocks, self.cut = blocks, None
        self.cut: Cut | None

    def __iter__(self) -> Iterator[str]:
        decoder, held = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape"), ""
        try:
            for block in self.blocks:
                *whole, held = (held + decoder.decode(block)).split("\n")
                yield from (f"{line}\n" for line in whole)
        except Cut as cut:
            self.cut = cut
            return
        if held:
            yield held


def csv_chunks(blocks: Iterable[bytes]) -> Iterator[ObjectChunk | SetAside]:
    """Rows as objects. A row with a wrong number of cells or broken quotes is refused alone."""
    csv.field_size_limit(MAX_ROW_BYTES)
    texts = _Texts(blocks)
    first, size = 0, 0
    rows: list[_Row] = []
    for row in _rows(csv.reader(iter(texts), strict=True), texts):
        rows.append(row)
        size += sum(map(len, row.cells))
        if len(rows) == _CHUNK_ROWS or size > _CHUNK_CHARS:
            yield _chunk(rows, first)
            first, size, rows = first + len(rows), 0, []
    if rows:
        yield _chunk(rows, first)
    if texts.cut:
        yield cut_off(texts.cut, first + len(rows), b"")


class _Row(NamedTuple):
    value: dict[str, Any] | Refused
    cells: list[str]


def _rows(reader: Any, texts: _Texts) -> Iterator[_Row]:
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not texts.cut:  # else the cut itself is told of
                yield _Row(_refusal(error), [])
            continue
        if header is None:
            header = cells
        elif cells:
            yield _Row(_value(cells, header), cells)


def _refusal(error: csv.Error) -> Refused:
    ended = "end of data" in str(error)
    reason = Reason.TRUNCATED if ended else Reason.TOO_LARGE if "limit" in str(error) else Reason.WRONG_TYPE
    return Refused(reason, f"CSV: {error}")


def _value(cells: list[str], header: list[str]) -> dict[str, Any] | Refused:
    if len(cells) != len(header):
        return Refused(Reason.WRONG_TYPE, f"{len(cells)} cells, the header has {len(header)}")
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}


def _chunk(rows: list[_Row], first: int) -> ObjectChunk:
    texts = [dumped(row.cells if isinstance(row.value, Refused) else row.value) for row in rows]
    return ObjectChunk([row.value for row in rows], texts, first)
