"""Identity: content hashes for rows, fingerprints for configurations, seeds for randomness."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import polars as pl

# Never occurs in stored text (ingest sets rows with NUL aside), so joining with it is injective.
_SEPARATOR = "\0"


def messages_key(column: str) -> pl.Expr:
    """A string per row that two message lists share only when they are equal; length first, then role, content, …"""
    turn = pl.element().struct
    joined = pl.concat_str([turn.field("role"), turn.field("content")], separator=_SEPARATOR)
    listed = pl.col(column).list.eval(joined).list.join(_SEPARATOR)
    return pl.concat_str([pl.col(column).list.len().cast(pl.String), listed], separator=_SEPARATOR)


def content_ids(frame: pl.DataFrame, kind: str, keys: Sequence[pl.Expr]) -> pl.Series:
    """128-bit hex ids, one a row, from `kind` (a table's name) and string expressions; nulls count as empty.

    >>> frame = pl.DataFrame({"a": ["x", "y", "x"]})
    >>> ids = content_ids(frame, "demo", [pl.col("a")])
    >>> ids[0] == ids[2], ids[0] == ids[1], len(ids[0])
    (True, False, 32)
    """
    joined = pl.concat_str([pl.lit(kind), *(key.fill_null("") for key in keys)], separator=_SEPARATOR)
    texts = frame.select(joined.alias("key")).get_column("key")
    ids = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    return pl.Series("id", ids, dtype=pl.String)


def content_id(*parts: str) -> str:
    """The same hash as `content_ids` for one row, from strings."""
    return hashlib.blake2b(_SEPARATOR.join(parts).encode(), digest_size=16).hexdigest()


def fingerprint(value: object) -> str:
    """A 128-bit hex hash of a configuration. Refuses (`TypeError`) what canonical JSON cannot hold.

    Fields of dataclasses that take no part in equality (`compare=False`) take no part here.

    >>> fingerprint({"b": 1, "a": [True, None]}) == fingerprint({"a": [True, None], "b": 1})
    True
    """
    text = json.dumps(
        _plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a configuration's keys are strings")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        deciding = [field.name for field in dataclasses.fields(value) if field.compare]
        fields = {name: _plain(getattr(value, name)) for name in deciding}
        return {"": type(value).__name__, **fields}
    raise TypeError(f"a configuration cannot hold a {type(value).__name__}")
