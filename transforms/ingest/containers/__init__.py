"""Containers: how rows lie in files. One function opens any of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from tilth.schemas import BadInput
from tilth.transforms.ingest.containers.columnar import arrow_chunks, parquet_chunks, row_group_ranges
from tilth.transforms.ingest.containers.csv_rows import csv_chunks
from tilth.transforms.ingest.containers.rows import ArrowChunk, Chunk, JsonChunk, record_of
from tilth.transforms.ingest.containers.text import line_chunks, value_chunks
from tilth.transforms.ingest.record import SetAside
from tilth.transforms.ingest.sources import COMPRESSIONS, CONTAINERS, SourceFile
from tilth.transforms.ingest.streams import Cut, blocks

__all__ = ["ArrowChunk", "Chunk", "JsonChunk", "chunks", "container_of", "record_of", "row_group_ranges"]

_MAGIC: Final = {b"PAR1": "parquet", b"ARRO": "arrow", b"\xff\xff\xff\xff": "arrow"}


def container_of(file: SourceFile) -> str:
    """jsonl, json (one array, or values one after another), csv, parquet or arrow: suffix first, then the bytes.

    Raises `BadInput` when neither says.
    """
    if file.container in ("csv", "parquet", "arrow"):
        return file.container
    head = _head(file)
    magic = _MAGIC.get(head[:4])
    if file.container is None and magic is None and head.lstrip()[:1] not in (b"{", b"["):
        known = ", ".join([*CONTAINERS, *COMPRESSIONS])
        raise BadInput(
            f"the file {file.uri!r} is of no known kind", wanted=f"a suffix among {known}, or JSON inside"
        )
    return magic or _json_kind(head, file.container)


def _head(file: SourceFile) -> bytes:
    try:
        return next(blocks(file.uri, file.compression), b"")
    except Cut:
        return b""


def _json_kind(head: bytes, suffix: str | None) -> str:
    """Lines are JSONL unless the first one is not a value by itself, or is the only line and a list."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    line, _, rest = text.partition(b"\n")
    if not text.startswith((b"[", b"{")):
        return "jsonl"
    if _is_json(line):
        return "json" if text.startswith(b"[") and not rest.strip() else "jsonl"
    return "json" if text.startswith(b"[") or suffix == "json" else "jsonl"


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except ValueError:
        return False
    return True


def chunks(file: Mapping[str, Any], columns: Sequence[str] | None = None) -> Iterator[Chunk | SetAside]:
    """The rows of one file of a task's options, whole or the range that they name; `columns` matter to Parquet."""
    uri, container, compression = file["uri"], file["container"], file["compression"]
    if container == "parquet":
        return parquet_chunks(uri, file.get("row_groups"), columns)
    if container == "arrow":
        return arrow_chunks(uri)
    if container == "csv":
        return csv_chunks(blocks(uri, compression))
    if container == "json":
        return value_chunks(blocks(uri, compression))
    start, stop = file.get("bytes") or (0, None)
    return line_chunks(blocks(uri, compression, max(start - 1, 0)), start, stop)
