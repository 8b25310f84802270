"""Bytes of a source, block by block, decompressed; a stream that was cut off says so after its last whole byte."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from tilth.transforms.ingest.sources import open_bytes

BLOCK_BYTES: Final = 4 << 20


class Cut(Exception):
    """The compressed stream ends, or breaks, before its end; all bytes before that were given out."""

    def __init__(self, broken: bool) -> None:
        super().__init__("broken" if broken else "ended early")
        self.broken = broken


def blocks(uri: str, compression: str | None, start: int = 0) -> Iterator[bytes]:
    """The bytes of `uri` from `start` (of the stored bytes) in blocks of at most about `BLOCK_BYTES`.

    Raises `Cut` in the place of the bytes that a truncated or broken compressed stream lost.
    """
    with open_bytes(uri) as file:
        if start:
            file.seek(start)
        stored = iter(lambda: file.read(BLOCK_BYTES), b"")
        yield from stored if compression is None else _decompressed(stored, _DECODERS[compression])


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


# gzip's own header (16) or zlib's, found by itself (32)
_DECODERS: Final[dict[str, Callable[[], Any]]] = {
    "gzip": lambda: zlib.decompressobj(wbits=47),
    "bz2": bz2.BZ2Decompressor,
    "zstd": _zstd,
}
_STEP_BYTES: Final = 16 << 10  # of compressed input, so that a dense stream cannot fill the memory


def _decompressed(stored: Iterator[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    decoder, open_member = new(), False
    for block in stored:
        for at in range(0, len(block), _STEP_BYTES):
            rest = block[at : at + _STEP_BYTES]
            while rest:
                try:
                    data = decoder.decompress(rest)
                except Exception as error:
                    raise Cut(broken=True) from error
                if data:
                    yield data
                open_member, rest = not decoder.eof, b""
                if decoder.eof:
                    rest, decoder = decoder.unused_data.lstrip(b"\0"), new()  # gzip may be padded with zeros
    if open_member:
        raise Cut(broken=False)
