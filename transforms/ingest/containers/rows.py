"""What container readers give out: chunks of rows, each with its place in the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import orjson

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import kind_of
from tilth.transforms.ingest.record import Refused

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW_BYTES: Final = 32 << 20
"""A row of text above this is set aside without being parsed."""

_BLANK: Final = np.frombuffer(b" \t\r\n\v\f\0", dtype=np.uint8)[:6]


class Chunk(Protocol):
    """Some rows of a file, in order."""

    def __len__(self) -> int: ...

    def place(self, index: int) -> int:
        """Where row `index` stands: a byte (JSONL) or a row number."""
        ...

    def value(self, index: int) -> Any:
        """Row `index` as a Python value (Any: whatever JSON it is). Raises `Refused` when it cannot be read."""
        ...

    def payload(self, index: int) -> bytes:
        """Row `index` as bytes for the quarantine."""
        ...

    def part(self, begin: int, end: int) -> Chunk:
        """The rows from `begin` to before `end`, or to the last."""
        ...


@dataclass(frozen=True)
class JsonChunk:
    """Rows of JSON text, one after another in `data`; row n is ``data[starts[n]:ends[n]]``.

    `first` is the file offset of `data` (places are bytes) or, with `counted`, the number of the first row.
    """

    data: bytes
    starts: np.ndarray
    ends: np.ndarray
    first: int
    counted: bool = False
    whole: bool = True  # False: one row without a line end, which may have been cut

    def __len__(self) -> int:
        return len(self.starts)

    def place(self, index: int) -> int:
        """See `Chunk`."""
        return self.first + (index if self.counted else int(self.starts[index]))

    def payload(self, index: int) -> bytes:
        """See `Chunk`."""
        return self.data[self.starts[index] : self.ends[index]]

    def part(self, begin: int, end: int) -> JsonChunk:
        """See `Chunk`."""
        first = self.first + begin if self.counted else self.first
        return JsonChunk(
            self.data, self.starts[begin:end], self.ends[begin:end], first, self.counted, self.whole
        )

    def value(self, index: int) -> Any:
        """See `Chunk`. A last line without an end that is no JSON was cut, not broken."""
        try:
            return parse(self.payload(index))
        except Refused as refusal:
            if not self.whole:
                raise Refused(Reason.TRUNCATED, "the last line ends in the middle") from refusal
            raise


def lines(data: bytes, first: int, whole: bool = True) -> JsonChunk:
    """The lines of `data` that are not blank."""
    newlines = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 10)
    ends = newlines if data.endswith(b"\n") else np.append(newlines, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64)
    head = np.frombuffer(data, dtype=np.uint8)[np.minimum(starts, len(data) - 1)] if len(data) else starts
    doubtful = np.flatnonzero(np.isin(head, _BLANK))
    blank = [n for n in doubtful if not data[starts[n] : ends[n]].strip()]
    keep = np.ones(len(starts), dtype=bool)
    keep[blank] = False
    return JsonChunk(data, starts[keep], ends[keep], first, whole=whole)


def parse(text: bytes) -> Any:
    """A JSON value, as orjson or else the standard library reads it: logs written by Python hold NaN.

    Raises `Refused`: INVALID_UTF8 or BROKEN_JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return _parse_leniently(text)


def _parse_leniently(text: bytes) -> Any:
    import json

    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Refused(Reason.INVALID_UTF8, f"byte {error.start} of the row is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise Refused(
            Reason.BROKEN_JSON, f"{error.msg.partition(':')[0]}, at character {error.pos}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise Refused(Reason.BROKEN_JSON, "nested too deeply, or a number too long") from error


@dataclass(frozen=True)
class ArrowChunk:
    """Rows of one Arrow record batch; `first` is the number of its first row in the file."""

    batch: pa.RecordBatch
    first: int

    def __len__(self) -> int:
        return self.batch.num_rows

    def place(self, index: int) -> int:
        """See `Chunk`."""
        return self.first + index

    def value(self, index: int) -> Any:
        """See `Chunk`."""
        try:
            return self.batch.slice(index, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:  # an instant that Python cannot hold
            raise Refused(Reason.WRONG_TYPE, "a value that is out of range") from error

    def payload(self, index: int) -> bytes:
        """See `Chunk`."""
        try:
            return dumped(self.value(index))
        except Refused:
            return str(self.batch.slice(index, 1)).encode()

    def part(self, begin: int, end: int) -> ArrowChunk:
        """See `Chunk`."""
        return ArrowChunk(self.batch.slice(begin, end - begin), self.first + begin)


@dataclass(frozen=True)
class ObjectChunk:
    """Rows that a reader has made objects of, or refused."""

    rows: list[dict[str, Any] | Refused]
    texts: list[bytes]
    first: int

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> int:
        """See `Chunk`."""
        return self.first + index

    def value(self, index: int) -> Any:
        """See `Chunk`."""
        row = self.rows[index]
        if isinstance(row, Refused):
            raise row
        return row

    def payload(self, index: int) -> bytes:
        """See `Chunk`."""
        return self.texts[index]

    def part(self, begin: int, end: int) -> ObjectChunk:
        """See `Chunk`."""
        return ObjectChunk(self.rows[begin:end], self.texts[begin:end], self.first + begin)


def dumped(value: object) -> bytes:
    """Any row as JSON bytes; what JSON does not know becomes text."""
    import json

    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")


def record_of(chunk: Chunk, index: int) -> dict[str, Any]:
    """Row `index` as an object. Raises `Refused` when it is none."""
    value = chunk.value(index)
    if not isinstance(value, dict):
        raise Refused(Reason.WRONG_TYPE, f"the row is {kind_of(value)}, wanted an object")
    return value
