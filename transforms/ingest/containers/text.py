"""JSONL, JSON arrays, and JSON values one after another, as chunks of rows from a stream of blocks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tilth.schemas import Reason
from tilth.transforms.ingest.containers.rows import MAX_ROW_BYTES, JsonChunk, lines
from tilth.transforms.ingest.record import PAYLOAD_BYTES, SetAside
from tilth.transforms.ingest.streams import Cut


def line_chunks(
    blocks: Iterable[bytes], start: int = 0, stop: int | None = None
) -> Iterator[JsonChunk | SetAside]:
    """The lines that begin at or after `start` and before `stop`, in chunks of about a block.

    `blocks` begin one byte before `start` (at 0 for 0): a line belongs to the range in which it begins.
    """
    reader = _Lines(start, stop)
    try:
        for block in blocks:
            yield from reader.feed(block)
            if reader.done:
                return
    except Cut as cut:
        yield cut_off(cut, reader.at, reader.held)
        return
    yield from reader.finish()


@dataclass(slots=True)
class _Lines:
    start: int
    stop: int | None
    held: bytes = b""  # the beginning of a line whose end has not come yet
    at: int = -1  # the file offset of `held`
    skipping: bool = False  # within a line that is not wanted: too long, or begun before `start`
    done: bool = False

    def __post_init__(self) -> None:
        self.at, self.skipping = max(self.start - 1, 0), self.start > 0

    def feed(self, block: bytes) -> Iterator[JsonChunk | SetAside]:
        if self.skipping:
            block = self._skip(block)
        data = self.held + block
        end = data.rfind(b"\n") + 1
        if self.stop is not None and self.at + end >= self.stop:
            end, self.done = self._last(data)
        if end:
            yield lines(data[:end], self.at)
        self.held, self.at = data[end:], self.at + end
        if len(self.held) > MAX_ROW_BYTES and not self.done:
            yield too_large(self.at, self.held)
            self.at, self.held, self.skipping = self.at + len(self.held), b"", True

    def _skip(self, block: bytes) -> bytes:
        end = block.find(b"\n") + 1
        self.skipping = end == 0
        self.at += end or len(block)
        self.done = self.stop is not None and self.at >= self.stop
        return block[end:] if end else b""

    def _last(self, data: bytes) -> tuple[int, bool]:
        """The end of the last line that begins before `stop`; there is nothing to wait for after it."""
        before = (self.stop or 0) - self.at - 1
        return (data.find(b"\n", before) + 1 if before >= 0 else 0), True

    def finish(self) -> Iterator[JsonChunk]:
        wanted = self.stop is None or self.at < self.stop
        if self.held.strip() and wanted and not self.done:
            yield lines(self.held, self.at, whole=False)


def cut_off(cut: Cut, at: int, held: bytes) -> SetAside:
    """The row that stands for what a truncated or broken stream lost."""
    if cut.broken:
        return SetAside(
            at, Reason.UNREADABLE, "the compressed stream is broken from here on", held[:PAYLOAD_BYTES]
        )
    return SetAside(at, Reason.TRUNCATED, "the compressed stream ends before its end", held[:PAYLOAD_BYTES])


def too_large(at: int, head: bytes) -> SetAside:
    """A row above `MAX_ROW_BYTES`."""
    return SetAside(at, Reason.TOO_LARGE, f"a row of more than {MAX_ROW_BYTES} bytes", head[:PAYLOAD_BYTES])


_OUTSIDE: Final = re.compile(rb'["\[\]{},]|[^\s"\[\]{},]+')
_IN_STRING: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)


def value_chunks(blocks: Iterable[bytes]) -> Iterator[JsonChunk | SetAside]:
    """The elements of a JSON array, or values one after another, in chunks; counted, not by byte.

    Only brackets and quotes are looked at, so that a broken element costs no other. A JSON text that ends before
    its end gives one row set aside.
    """
    splitter = _Values()
    try:
        for block in blocks:
            yield from splitter.feed(block)
    except Cut as cut:
        yield cut_off(cut, splitter.count, splitter.held)
        return
    yield from splitter.finish()


@dataclass(slots=True)
class _Values:
    """Finds where each value of the outermost level begins and ends."""

    held: bytes = b""
    scanned: int = 0  # how far `held` is scanned
    begun: int | None = None  # where the value begins that has not ended yet
    depth: int = 0
    base: int = 0  # the depth at which values stand: 1 within an array
    in_string: bool = False
    dropping: bool = False  # the value begun is too large to be kept
    opened: bool = False
    closed: bool = False
    count: int = 0

    def feed(self, block: bytes) -> Iterator[JsonChunk | SetAside]:
        block = block if self.opened else self._open(self.held + block)
        self.held = self.held + block if self.opened else block
        if self.opened:
            values = list(self._scan())
            yield from self._chunk(values)
            yield from self._forget()

    def _open(self, data: bytes) -> bytes:
        text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
        self.held, self.opened = (b"", True) if text else (b"", False)
        if text.startswith(b"["):
            self.base = self.depth = 1
            return text[1:]
        return text

    def _scan(self) -> Iterator[bytes]:
        while self.scanned < len(self.held):
            if self.in_string and not self._string():
                return
            found = _OUTSIDE.search(self.held, self.scanned)
            self.scanned = found.end() if found else len(self.held)
            if found:
                yield from self._token(found.start())

    def _string(self) -> bool:
        """Moves behind the string's end; False where it has not come yet."""
        found = _IN_STRING.match(self.held, self.scanned)
        self.scanned = found.end() if found else self.scanned
        self.in_string = self.held[self.scanned : self.scanned + 1] != b'"'
        self.scanned += not self.in_string
        return not self.in_string

    def _token(self, at: int) -> Iterator[bytes]:
        letter = self.held[at : at + 1]
        if letter in (b",", b"]", b"}") and self.depth == self.base:
            yield from self._value(at)
            self.closed = self.closed or letter != b","
        elif letter in (b"]", b"}"):
            self.depth -= 1
            if self.depth == self.base:
                yield from self._value(at + 1)
        else:
            self.begun = at if self.begun is None else self.begun
            self.depth += letter in (b"[", b"{")
            self.in_string = letter == b'"'

    def _value(self, end: int) -> Iterator[bytes]:
        if self.begun is not None and not self.dropping:
            yield self.held[self.begun : end]
        self.begun, self.dropping = None, False

    def _chunk(self, values: list[bytes]) -> Iterator[JsonChunk]:
        if values:
            sizes = np.array([len(value) for value in values], dtype=np.int64)
            ends = np.cumsum(sizes + 1) - 1
            yield JsonChunk(b"\n".join([*values, b""]), ends - sizes, ends, self.count, counted=True)
            self.count += len(values)

    def _forget(self) -> Iterator[SetAside]:
        """Lets go of what is scanned and not needed, and of a value that has grown too large."""
        begun = self.scanned if self.begun is None else self.begun
        if len(self.held) - begun > MAX_ROW_BYTES and not self.dropping:
            yield too_large(self.count, self.held[begun:])
            self.count, self.dropping = self.count + 1, True
        keep = self.scanned if self.dropping else begun
        self.held, self.scanned = self.held[keep:], self.scanned - keep
        self.begun = None if self.begun is None else 0

    def finish(self) -> Iterator[SetAside]:
        """What the end of the text says: a value or the array may still be open."""
        if self.dropping or not self.opened:
            return
        if self.begun is not None or (self.base and not self.closed):
            left = self.held[self.begun or 0 :][:PAYLOAD_BYTES]
            yield SetAside(self.count, Reason.TRUNCATED, "the JSON text ends before its end", left)
