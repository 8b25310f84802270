"""Thumbs, ranks, scores and emojis as sources write them, brought to a few kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tilth.schemas import Reason
from tilth.transforms.ingest.fields import instant, kind_of
from tilth.transforms.ingest.record import Reaction, Refused

REACTION_KEYS: Final = ("feedback", "reaction", "rating")
"""Keys of a message that may hold what its reader thought of it."""

_UP: Final = frozenset({"thumbs_up", "thumbsup", "thumb_up", "thumbs up", "up", "upvote", "like", "liked", "positive",
                        "good", "+1", "1", "👍"})  # fmt: skip
_DOWN: Final = frozenset({"thumbs_down", "thumbsdown", "thumb_down", "thumbs down", "down", "downvote", "dislike",
                          "disliked", "negative", "bad", "-1", "👎"})  # fmt: skip
_NUMBERED: Final = {"rank": "rank", "ranking": "rank", "score": "score", "rating": "score", "stars": "score"}


def kind(name: str) -> str:
    """thumbs_up, thumbs_down, rank, score, or emoji for all else."""
    plain = name.strip().lower()
    plain = plain if plain in _DOWN else plain.replace("-", "_")
    if plain in _UP:
        return "thumbs_up"
    return "thumbs_down" if plain in _DOWN else _NUMBERED.get(plain, "emoji")


def on_message(message: Mapping[str, Any]) -> list[Reaction]:
    """The reactions under a message's own keys; a neutral or unknown value is none.

    A bare number 1 under `rating` is a score, not a thumb: on a scale of five it is the worst.
    """
    found: list[Reaction] = []
    for key in REACTION_KEYS:
        value = message.get(key)
        for item in value if isinstance(value, list) else [value]:
            reaction = _reaction(item, scale=key == "rating")
            found += [reaction] if reaction else []
    return found


def _reaction(value: object, scale: bool) -> Reaction | None:
    if isinstance(value, Mapping):
        return _described(value)
    if isinstance(value, str) and not (scale and value.strip() == "1"):
        name = kind(value)
        return Reaction(name, 1.0) if name in ("thumbs_up", "thumbs_down") else None
    amount = number(value)
    if amount is None:
        return None
    if amount == -1 or (amount == 1 and not scale):
        return Reaction("thumbs_up" if amount > 0 else "thumbs_down", 1.0)
    return Reaction("score", amount) if scale else None


def _described(value: Mapping[str, Any]) -> Reaction | None:
    name = next(
        (value[key] for key in ("kind", "type", "name", *REACTION_KEYS) if isinstance(value.get(key), str)),
        None,
    )
    if name is None:
        return None
    amount = number(value.get("value", value.get("count")))
    return Reaction(kind(name), 1.0 if amount is None else amount, instant(value.get("at")))


def number(value: object) -> float | None:
    """A finite number, also from text, else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def on_row(value: object, turns: int) -> list[tuple[int, Reaction]]:
    """The reactions of a row's `reactions` list, each with the index of its message; null gives none.

    Raises `Refused` when the list, an entry or its `message_index` is not as described.
    """
    if value is None:
        return []
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Refused(Reason.WRONG_TYPE, f"`reactions` is {kind_of(value)}, wanted a list")
    return [_indexed(entry, turns) for entry in value]


def _indexed(entry: object, turns: int) -> tuple[int, Reaction]:
    index = entry.get("message_index") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or isinstance(index, bool) or not isinstance(index, int):
        raise Refused(Reason.WRONG_TYPE, "a reaction without a whole `message_index`")
    reaction = _described(entry)
    if not 0 <= index < turns or reaction is None:
        raise Refused(Reason.WRONG_TYPE, "a reaction without a kind, or about a message that is not there")
    return index, reaction


def from_emojis(value: object) -> list[Reaction]:
    """OASST's ``{"name": [...], "count": [...]}``; names that begin with an underscore are marks of its workflow."""
    names = value.get("name") if isinstance(value, Mapping) else None
    counts = value.get("count") if isinstance(value, Mapping) else None
    if not isinstance(names, list) or not isinstance(counts, list):
        return []
    pairs = [
        (name, number(count)) for name, count in zip(names, counts, strict=False) if isinstance(name, str)
    ]
    return [Reaction(kind(name), count) for name, count in pairs if count and not name.startswith("_")]
