"""Single values of foreign rows: ids, names, instants, lists that CSV holds as text. What cannot be read is null."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final

from tilth.schemas import Reason
from tilth.transforms.ingest.record import Refused

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECONDS_FROM: Final = 100_000_000_000
"""A number of at least this size counts milliseconds since 1970; as seconds it would be the year 5138."""
MICROSECONDS_FROM: Final = 100_000_000_000_000


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, None where there is none; a key that holds the dots itself comes first."""
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def first_name(row: Mapping[str, Any], paths: Sequence[str]) -> str | None:
    """The first id or name that `paths` lead to: a text, or a number as text. Raises `Refused` on NUL in it."""
    found = (name(look_up(row, path)) for path in paths)
    value = next((text for text in found if text is not None), None)
    if value is not None:
        check_text(value, "an id or a name")
    return value


def name(value: object) -> str | None:
    """An id or a name as text; None for what is neither text nor number, or empty."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def first_instant(row: Mapping[str, Any], paths: Sequence[str]) -> datetime | None:
    """The first instant that `paths` lead to."""
    found = (instant(look_up(row, path)) for path in paths)
    return next((value for value in found if value is not None), None)


def instant(value: object) -> datetime | None:
    """A point in time from ISO 8601 text, an epoch in seconds, milliseconds or microseconds, or a datetime.

    Without a zone it is UTC. None for anything else.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return _from_epoch(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if not isinstance(value, datetime):
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _from_epoch(value: float) -> datetime | None:
    unit = "seconds"
    if abs(value) >= MILLISECONDS_FROM:
        unit = "microseconds" if abs(value) >= MICROSECONDS_FROM else "milliseconds"
    return _EPOCH + timedelta(**{unit: value})


@lru_cache(maxsize=1 << 16)
def user_key(user: str, salt: str) -> str:
    """The salted 128-bit hash that stands for a user."""
    return hashlib.blake2b(f"{salt}\0{user}".encode(), digest_size=16).hexdigest()


def check_text(text: str, what: str) -> None:
    """Raises `Refused` when `text` holds NUL or half a surrogate pair."""
    if "\0" in text:
        raise Refused(Reason.NUL_CHARACTER, f"{what} holds U+0000")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(Reason.INVALID_UTF8, f"{what} holds half a surrogate pair") from error


def texts_in(value: object) -> Iterator[str]:
    """All strings of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)


def kind_of(value: object) -> str:
    """The JSON name of a value's type, for details."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a boolean",
        type(None): "null",
    }
    return names.get(type(value), "a number" if isinstance(value, int | float) else "another type")


def list_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """The list at `path`; text that is a JSON list (as in CSV) is read.

    Raises `Refused`: nothing there, no list, or an empty one.
    """
    value = look_up(row, path)
    if value is None:
        raise Refused(Reason.NOT_A_CONVERSATION, f"no `{path}`")
    if isinstance(value, str):
        value = json_list(value)
    if not isinstance(value, list):
        raise Refused(Reason.WRONG_TYPE, f"`{path}` is {kind_of(value)}, wanted a list")
    if not value:
        raise Refused(Reason.EMPTY, f"`{path}` is an empty list")
    return value


def json_list(text: str) -> Any:
    """The list that `text` is as JSON, else `text` itself."""
    import orjson

    try:
        return orjson.loads(text) if text.lstrip().startswith("[") else text
    except ValueError:
        return text
