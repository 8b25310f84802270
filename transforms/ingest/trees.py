"""Trees whose messages lie anywhere in a source: gathered by tree, in memory while small, else through files on disk.

Memory holds at most `GATHER_BYTES` of rows at once, or one bucket of the spilled rows (a hash of the tree's id
chooses among as many buckets as keep one of them below that size on average).
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import xxhash

from tilth.transforms.ingest.containers import Chunk, record_of
from tilth.transforms.ingest.record import PAYLOAD_BYTES, ReadConfig, Record, Refused, SetAside
from tilth.transforms.ingest.shapes.oasst import Loss, grow, grow_nested, is_nested, tree_id

GATHER_BYTES: Final = 64 << 20
_MAX_BUCKETS: Final = 256  # open files


class _Message(NamedTuple):
    tree: str
    file: int
    at: int
    text: bytes


def read_trees(
    chunks: Iterable[tuple[int, Chunk | SetAside]], size_bytes: int, config: ReadConfig
) -> Iterator[Record | SetAside]:
    """Records and rows set aside from chunks, which come with the number of their file."""
    with ExitStack() as stack:
        gathered = _Gathered(stack, size_bytes)
        for file, chunk in chunks:
            if isinstance(chunk, SetAside):
                yield chunk
                continue
            for index in range(len(chunk)):
                yield from _row(file, chunk, index, gathered, config)
        for bucket in gathered.buckets():
            for messages in _by_tree(bucket):
                yield from _tree(messages, config)


class _Gathered:
    """Messages, spilled to buckets once they are too many."""

    def __init__(self, stack: ExitStack, size_bytes: int) -> None:
        self.stack, self.limit = stack, GATHER_BYTES
        self.count = min(_MAX_BUCKETS, max(2, 4 * size_bytes // GATHER_BYTES))
        self.held: list[_Message] = []
        self.held_bytes = 0
        self.files: list[Any] = []

    def add(self, message: _Message) -> None:
        self.held.append(message)
        self.held_bytes += len(message.text) + len(message.tree)
        if self.held_bytes > self.limit:
            self._spill()

    def _spill(self) -> None:
        if not self.files:
            folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="tilth-trees-")))
            self.files = [self.stack.enter_context((folder / str(n)).open("w+b")) for n in range(self.count)]
        for message in self.held:
            bucket = xxhash.xxh3_64_intdigest(message.tree.encode()) % self.count
            pickle.dump(tuple(message), self.files[bucket])
        self.held, self.held_bytes = [], 0

    def buckets(self) -> Iterator[list[_Message]]:
        if not self.files:
            yield self.held
            return
        self._spill()
        for file in self.files:
            file.seek(0)
            yield list(_unpickled(file))


def _unpickled(file: Any) -> Iterator[_Message]:
    while True:
        try:
            yield _Message(*pickle.load(file))
        except EOFError:
            return


def _by_tree(messages: Sequence[_Message]) -> Iterable[list[_Message]]:
    trees: dict[str, list[_Message]] = {}
    for message in messages:
        trees.setdefault(message.tree, []).append(message)
    return trees.values()


def _row(
    file: int, chunk: Chunk, index: int, gathered: _Gathered, config: ReadConfig
) -> Iterator[Record | SetAside]:
    at = chunk.place(index)
    try:
        row = record_of(chunk, index)
        if not is_nested(row):
            gathered.add(_Message(tree_id(row), file, at, chunk.payload(index)))
            return
        record = grow_nested(row, config).record
    except Refused as refusal:
        yield SetAside(at, refusal.reason, refusal.detail, chunk.payload(index)[:PAYLOAD_BYTES], file=file)
        return
    if record:
        yield record
        for refusal in record.refusals:
            yield SetAside(
                at, refusal.reason, refusal.detail, chunk.payload(index)[:PAYLOAD_BYTES], rows=0, file=file
            )


def _tree(messages: list[_Message], config: ReadConfig) -> Iterator[Record | SetAside]:
    from tilth.transforms.ingest.containers.rows import parse

    rows: list[Mapping[str, Any]] = [parse(message.text) for message in messages]
    grown = grow(messages[0].tree, rows, config)
    if grown.record:
        yield grown.record
    for loss in grown.losses:
        yield _set_aside(messages, loss)


def _set_aside(messages: Sequence[_Message], loss: Loss) -> SetAside:
    last = messages[loss.rows[-1]]
    payload = last.text[:PAYLOAD_BYTES]
    return SetAside(last.at, loss.refusal.reason, loss.refusal.detail, payload, len(loss.rows), last.file)
