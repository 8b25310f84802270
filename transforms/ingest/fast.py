"""The vectorised path: rows that are proven clean, a chunk at a time; all others go the reference path.

What reads JSON here is Arrow's reader with an explicit schema, because it refuses what it cannot hold: polars'
NDJSON reader was seen to turn numbers, booleans and lists into text, to keep the first of two equal keys where
Python keeps the last, and to make U+0000 of half a surrogate pair. Arrow's reader takes some texts for JSON that
the reference does not (``Inf``, thousands of brackets, two values on a line); lines that could be such are not
given to it. Property tests hold both paths equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl

from tilth.transforms.ingest.assemble import ROW, draft_schema
from tilth.transforms.ingest.containers import ArrowChunk, Chunk, JsonChunk
from tilth.transforms.ingest.fields import MICROSECONDS_FROM, MILLISECONDS_FROM, user_key
from tilth.transforms.ingest.reactions import REACTION_KEYS
from tilth.transforms.ingest.record import ReadConfig
from tilth.transforms.ingest.shapes.chat import ChatShape
from tilth.transforms.ingest.turns import MESSAGE_ID_KEYS, TOOL_KEYS

if TYPE_CHECKING:
    import pyarrow as pa

_ROLES: Final = {"system": 0, "user": 1, "assistant": 2}  # tool turns go the reference path
_FOLLOWS: Final = np.array([[1, 1, 1], [0, 0, 1], [0, 1, 0]], dtype=bool)  # [before, after]
_SPECIAL: Final = (*TOOL_KEYS, *REACTION_KEYS, "reactions")
# Escapes that could spell a key or NUL, numbers that are none; `\u00` with 4 to 7 is an ASCII letter.
_KEYS: Final = tuple(f'"{key}"' for key in _SPECIAL)
_DOUBTFUL: Final = (*_KEYS, "\\u0000", "\\u004", "\\u005", "\\u006", "\\u007", "NaN", "Inf")
_DEEP_BYTES, _DEEP_BRACKETS = 800, 400
_SMALLEST: Final = 64  # rows; a block with a broken row is halved down to this, then read by reference
_DAY: Final = r"[12]\d{3}-\d\d-\d\d"
_ISO: Final = (
    rf"^{_DAY}[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{{1,6}})?(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)?$"
)
_NOT_BLANK: Final = r"[^\s\x1c-\x1f]"  # what str.strip leaves


class Clean(NamedTuple):
    """What the fast path made of a chunk: a draft of its clean rows, and which rows are left."""

    drafted: pl.DataFrame
    left: np.ndarray


@dataclass(frozen=True, slots=True)
class FastPath:
    """Reads chunks of one shape. `ready` says whether the shape is one that it can read."""

    shape: ChatShape
    config: ReadConfig

    @property
    def ready(self) -> bool:
        """Whether all of the shape's places are plain keys. (A clean row has nothing to merge.)"""
        shape = self.shape
        keys = (shape.turns, *shape.ids, *shape.users, *shape.instants, *shape.models, *shape.languages)
        plain = not any("." in key for key in (*keys, shape.system or ""))
        return plain and shape.turns not in keys[1:]

    @property
    def row_keys(self) -> tuple[str, ...]:
        """The keys of a row that are read beside its turns."""
        shape = self.shape
        keys = (*shape.ids, *shape.users, *shape.instants, *shape.models, *shape.languages)
        return tuple(dict.fromkeys((*keys, shape.system) if shape.system else keys))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a table that either path reads."""
        return (self.shape.turns, *self.row_keys, "reactions")

    def read(self, chunk: Chunk) -> Clean:
        """The clean rows of `chunk`; a kind of chunk that it cannot read is left whole."""
        frames = [self._clean(frame) for frame in self._frames(chunk)]
        drafted = pl.concat(frames) if frames else pl.DataFrame(schema=draft_schema())
        left = np.setdiff1d(np.arange(len(chunk)), drafted.get_column(ROW).to_numpy(), assume_unique=True)
        return Clean(drafted, left)

    def _frames(self, chunk: Chunk) -> Iterator[pl.DataFrame]:
        if isinstance(chunk, ArrowChunk):
            frame = self._from_arrow(chunk.batch)
            yield from () if frame is None else (frame,)
        elif isinstance(chunk, JsonChunk):
            yield from _json_frames(chunk, self)

    def _from_arrow(self, batch: pa.RecordBatch) -> pl.DataFrame | None:
        names = batch.schema.names
        if len(set(names)) < len(names) or self.shape.turns not in names:
            return None
        frame = pl.DataFrame(batch.select([name for name in names if name in self.columns]))
        kind = frame.schema[self.shape.turns]
        if not isinstance(kind, pl.List) or not isinstance(kind.inner, pl.Struct):
            return None
        fields = {field.name: field.dtype for field in kind.inner.fields}
        if fields.get(self.shape.speaker) != pl.String or fields.get(self.shape.text) != pl.String:
            return None
        return frame.with_columns(pl.int_range(pl.len()).alias(ROW))

    def _clean(self, frame: pl.DataFrame) -> pl.DataFrame:
        turns = _flat_turns(frame.get_column(self.shape.turns), self)
        meta = self._meta(_without_empty(frame))
        clean = turns.clean & ~meta.get_column("_doubt").to_numpy()
        drafted = meta.with_columns(turns.messages.alias("messages")).filter(pl.Series(clean))
        return _completed(drafted, self.config.user_salt)

    def _meta(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What rows say beside their turns, and `_doubt` where only the reference path can tell."""
        shape = self.shape
        names = {
            "source_id": shape.ids,
            "_user": shape.users,
            "model": shape.models,
            "language": shape.languages,
        }
        read = {
            column: [_name(frame, key) for key in keys if key in frame.columns]
            for column, keys in names.items()
        }
        instants = [_instant(frame, key) for key in shape.instants if key in frame.columns]
        doubts = [doubt for found in read.values() for _, doubt in found] + [doubt for _, doubt in instants]
        others = [key for key in (shape.system, "reactions") if key and key in frame.columns]
        doubts += [_given(frame, key) for key in others]
        return frame.select(
            ROW,
            *(
                _first([value for value, _ in found], pl.String()).alias(column)
                for column, found in read.items()
            ),
            _first([value for value, _ in instants], pl.Datetime("us", "UTC")).alias("started_at"),
            (pl.any_horizontal(doubts) if doubts else pl.lit(False)).fill_null(False).alias("_doubt"),
        )


def _without_empty(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(column for column in frame if column.null_count() < len(column))


def _first(values: list[pl.Expr], kind: pl.DataType) -> pl.Expr:
    return pl.coalesce(values) if values else pl.lit(None, dtype=kind)


def _given(frame: pl.DataFrame, key: str) -> pl.Expr:
    text = frame.schema[key] == pl.String
    return pl.col(key).is_not_null() & (pl.col(key) != "") if text else pl.col(key).is_not_null()


def _name(frame: pl.DataFrame, key: str) -> tuple[pl.Expr, pl.Expr]:
    """An id or a name as `fields.name` reads it, and whether it cannot be read here."""
    kind, value = frame.schema[key], pl.col(key)
    if kind == pl.String:
        return pl.when(value != "").then(value), value.str.contains("\0", literal=True)
    if kind.is_integer():
        return value.cast(pl.String), pl.lit(False)
    return pl.lit(None, dtype=pl.String), value.is_not_null()


def _instant(frame: pl.DataFrame, key: str) -> tuple[pl.Expr, pl.Expr]:
    """A point in time as `fields.instant` reads it, and whether it cannot be read here."""
    kind, value = frame.schema[key], pl.col(key)
    if kind == pl.String:
        read = _from_iso(value)
        return read, value.is_not_null() & (read.is_null() | ~value.str.contains(_ISO))
    if kind.is_integer():
        whole = value.cast(pl.Int64, strict=False)
        return _from_epoch(whole), value.is_not_null() & ~whole.is_between(0, 10**17).fill_null(False)
    if isinstance(kind, pl.Datetime) and kind.time_unit != "ns":
        moment = value.dt.convert_time_zone("UTC") if kind.time_zone else value.dt.replace_time_zone("UTC")
        return moment.dt.cast_time_unit("us"), ~moment.dt.year().is_between(2, 9998)
    return pl.lit(None, dtype=pl.Datetime("us", "UTC")), value.is_not_null()


def _from_iso(value: pl.Expr) -> pl.Expr:
    has_offset = value.str.slice(-6, 1).is_in(["+", "-"])
    zoned = pl.when(has_offset).then(value).otherwise(value.str.strip_suffix("Z") + "+00:00")
    read = zoned.str.replace(" ", "T", literal=True).str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False
    )
    return read.dt.convert_time_zone("UTC")


def _from_epoch(value: pl.Expr) -> pl.Expr:
    scale = (
        pl.when(value < MILLISECONDS_FROM)
        .then(1_000_000)
        .when(value < MICROSECONDS_FROM)
        .then(1000)
        .otherwise(1)
    )
    return (value.clip(0, 10**17) * scale).cast(pl.Datetime("us", "UTC"))


class _Turns(NamedTuple):
    messages: pl.Series  # as the table has them, of rows that may not be clean
    clean: np.ndarray


def _flat_turns(turns: pl.Series, path: FastPath) -> _Turns:
    shape, roles = path.shape, {name: role for name, role in path.shape.roles.items() if role in _ROLES}
    sizes = turns.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = turns.filter(pl.Series(sizes > 0)).explode(empty_as_null=False)
    role = flat.struct.field(shape.speaker).replace_strict(
        list(roles), list(roles.values()), default=None, return_dtype=pl.String
    )
    text = flat.struct.field(shape.text)
    bad = _bad_turns(flat, role, text, path)
    clean = sizes > 0
    if len(flat):
        begins = np.concatenate(([0], np.cumsum(sizes[clean])[:-1]))
        codes = role.replace_strict(
            list(_ROLES), list(_ROLES.values()), default=0, return_dtype=pl.UInt8
        ).to_numpy()
        clean[clean] = _talks(codes, begins) & ~np.logical_or.reduceat(bad, begins)
    return _Turns(_listed(role, text, sizes), clean)


def _bad_turns(flat: pl.Series, role: pl.Series, text: pl.Series, path: FastPath) -> np.ndarray:
    fields = flat.struct.fields
    keys = (*_SPECIAL, *MESSAGE_ID_KEYS)
    special = [
        flat.struct.field(key).is_not_null()
        for key in keys
        if key in fields and key not in (path.shape.speaker, path.shape.text)
    ]
    said = pl.col("text")
    checks = pl.DataFrame(
        [role.alias("role"), text.alias("text"), *(s.alias(f"_{n}") for n, s in enumerate(special))]
    )
    good = (
        pl.col("role").is_not_null()
        & (said.str.len_bytes() <= path.config.max_message_chars)
        & said.str.contains(_NOT_BLANK)
        & ~said.str.contains("\0", literal=True)
    )
    doubt = pl.any_horizontal([f"_{n}" for n in range(len(special))]) if special else pl.lit(False)
    return checks.select((~good.fill_null(False) | doubt).alias("bad")).get_column("bad").to_numpy()


def _talks(codes: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Per row: every turn may follow the one before it, and there is an assistant turn."""
    follows = np.ones(len(codes), dtype=bool)
    follows[1:] = _FOLLOWS[codes[:-1], codes[1:]]
    follows[begins] = True
    return np.logical_and.reduceat(follows, begins) & np.logical_or.reduceat(
        codes == _ROLES["assistant"], begins
    )


def _listed(role: pl.Series, text: pl.Series, sizes: np.ndarray) -> pl.Series:
    import pyarrow as pa

    flat = pl.DataFrame([role.alias("role"), text.alias("content")]).to_struct("messages")
    values = flat.to_arrow(compat_level=pl.CompatLevel.newest())  # the oldest would copy all texts
    offsets = pa.array(np.concatenate(([0], np.cumsum(sizes))), pa.int64())
    return pl.Series("messages", pa.LargeListArray.from_arrays(offsets, values))


def _completed(drafted: pl.DataFrame, salt: str) -> pl.DataFrame:
    """All columns of a draft."""
    kinds = draft_schema()
    hashed = [None if user is None else user_key(user, salt) for user in drafted.get_column("_user")]
    fixed: Mapping[str, Any] = {"record_rows": 1, "owned_from": 0, "other_user_keys": [], "reactions": []}
    keys = pl.Series("user_key", hashed, dtype=pl.String)
    rest = [
        pl.lit(fixed.get(name), dtype=kind).alias(name)
        for name, kind in kinds.items()
        if name not in drafted.columns
    ]
    return drafted.with_columns(rest).with_columns(keys).select(list(kinds))


def _json_frames(chunk: JsonChunk, path: FastPath) -> Iterator[pl.DataFrame]:
    import pyarrow as pa

    offsets = np.append(chunk.starts, chunk.ends[-1:])
    texts = pa.Array.from_buffers(
        pa.large_binary(), len(chunk), [None, pa.py_buffer(offsets), pa.py_buffer(chunk.data)]
    )
    rows = np.flatnonzero(_plain_lines(chunk, pl.Series(texts)))
    schema = _json_schema(chunk, rows, path)
    if schema is None:
        return
    block = _Block(texts if len(rows) == len(chunk) else texts.take(pa.array(rows)), rows, schema)
    yield from block.frames(0, len(rows))


def _plain_lines(chunk: JsonChunk, texts: pl.Series) -> np.ndarray:
    """Which rows begin and end as an object and hold nothing on which the two paths might differ."""
    data = np.frombuffer(chunk.data, dtype=np.uint8)
    ends = chunk.ends - 1
    ends = np.where(data[ends] == ord("\r"), ends - 1, ends)
    text = _decoded(chunk, texts)
    doubtful = text.str.contains_any(list(_DOUBTFUL)).fill_null(True).to_numpy()
    plain = (data[chunk.starts] == ord("{")) & (data[ends] == ord("}")) & ~doubtful
    for row in np.flatnonzero(plain & (ends - chunk.starts > _DEEP_BYTES)):
        line = chunk.payload(int(row))
        plain[row] = line.count(b"]") + line.count(b"}") < _DEEP_BRACKETS
    return plain


def _decoded(chunk: JsonChunk, texts: pl.Series) -> pl.Series:
    """The lines as text, null where they are no UTF-8."""
    try:
        return texts.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series([_text(chunk.payload(row)) for row in range(len(chunk))], dtype=pl.String)


def _text(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _json_schema(chunk: JsonChunk, rows: np.ndarray, path: FastPath) -> pa.Schema | None:
    """Arrow types of the keys that matter, as the first row has them; None where that one is not plain enough."""
    import pyarrow as pa

    sample = _sample(chunk, rows)
    if sample is None:
        return None
    kinds = {str: pa.string(), int: pa.int64(), type(None): pa.string()}
    values = {key: sample.get(key) for key in path.row_keys}
    if any(type(value) not in kinds for value in values.values()):
        return None
    turn = dict.fromkeys((path.shape.speaker, path.shape.text, *MESSAGE_ID_KEYS), pa.string())
    fields = {key: kinds[type(value)] for key, value in values.items()}
    return pa.schema({**fields, path.shape.turns: pa.list_(pa.struct(turn.items()))})


def _sample(chunk: JsonChunk, rows: np.ndarray) -> Mapping[str, Any] | None:
    import orjson

    for row in rows[:8]:
        try:
            return orjson.loads(chunk.payload(int(row)))
        except ValueError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that look plain, to be read at once or in halves."""

    texts: pa.Array
    rows: np.ndarray
    schema: pa.Schema

    def frames(self, begin: int, end: int) -> Iterator[pl.DataFrame]:
        """Frames of the lines from `begin` to before `end`; lines that Arrow refuses are in none."""
        import pyarrow as pa

        if begin == end:
            return
        try:
            table = self._read(begin, end)
        except pa.ArrowException:
            table = None
        if table is not None and table.num_rows == end - begin:
            yield pl.DataFrame(table).with_columns(pl.Series(ROW, self.rows[begin:end], dtype=pl.Int64))
        elif end - begin > _SMALLEST:
            middle = (begin + end) // 2
            yield from self.frames(begin, middle)
            yield from self.frames(middle, end)

    def _read(self, begin: int, end: int) -> pa.Table:
        import pyarrow as pa
        import pyarrow.json as pj

        _, offsets, data = self.texts.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[self.texts.offset :]
        size = int(bounds[end] - bounds[begin])
        text = pa.BufferReader(data.slice(int(bounds[begin]), size))
        reading = pj.ReadOptions(use_threads=False, block_size=size + 1)
        parsing = pj.ParseOptions(explicit_schema=self.schema, unexpected_field_behavior="ignore")
        return pj.read_json(text, reading, parsing)
