"""Which shape rows have, told from their keys and the types of their values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tilth.transforms.ingest.fields import json_list
from tilth.transforms.ingest.shapes import CHATS

_LEAST_CONFIDENCE: Final = 0.3

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Detection:
    """The shape that most rows have. `confidence` is from 0 to 1; `shape` is None where no shape is likely.

    `turns` is the key of the list of turns, for shapes that have one.
    """

    shape: str | None
    confidence: float
    reasons: tuple[str, ...]
    turns: str | None = None


class _Claim(NamedTuple):
    """One row looks like `shape`, with `weight` from 0 to 1, because of `sign`."""

    shape: str
    weight: float
    sign: str
    turns: str | None = None


def detect(rows: Sequence[object]) -> Detection:
    """The shape of sample `rows`. Confidence is the mean over rows of how clearly each has it."""
    claims = [claim for row in rows if isinstance(row, Mapping) for claim in _strongest(row)]
    weights: Counter[tuple[str, str | None]] = Counter()
    for claim in claims:
        weights[claim.shape, claim.turns] += claim.weight  # type: ignore[assignment]  (a Counter of floats)
    if not weights:
        return Detection(None, 0.0, ("no row has the keys of a known shape",))
    (shape, turns), weight = weights.most_common(1)[0]
    confidence = round(weight / len(rows), 3)
    signs = Counter(claim.sign for claim in claims if (claim.shape, claim.turns) == (shape, turns))
    reasons = tuple(f"{sign}: {count} of {len(rows)} rows" for sign, count in signs.most_common(3))
    return Detection(shape if confidence >= _LEAST_CONFIDENCE else None, confidence, reasons, turns)


def _strongest(row: Row) -> list[_Claim]:
    found = [claim for look in _LOOKS for claim in look(row)]
    return sorted(found, key=lambda claim: -claim.weight)[:1]


def _oasst(row: Row) -> list[_Claim]:
    prompt = row.get("prompt")
    if isinstance(prompt, Mapping) and "replies" in prompt:
        return [_Claim("oasst", 1.0, "`prompt` holds a tree of `replies`")]
    if {"message_id", "parent_id", "text", "role"} <= row.keys():
        weight = 1.0 if "message_tree_id" in row else 0.8
        return [_Claim("oasst", weight, "a message with `message_id` and `parent_id`")]
    return []


def _hh(row: Row) -> list[_Claim]:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        return []
    marked = "\n\nHuman:" in f"\n\n{chosen}"
    plain = isinstance(row.get("prompt"), str)
    claims = (
        [_Claim("hh", 1.0, "`chosen` and `rejected` are transcripts of Human and Assistant")]
        if marked
        else []
    )
    return claims or (
        [_Claim("ultrafeedback", 0.7, "`chosen` and `rejected` reply to `prompt`")] if plain else []
    )


def _ultrafeedback(row: Row) -> list[_Claim]:
    completions = row.get("completions")
    if isinstance(row.get("instruction"), str) and isinstance(completions, list):
        return [_Claim("ultrafeedback", 1.0, "`instruction` with a list of `completions`")]
    if all(_turn_keys(row.get(side)) == ("role", "content") for side in ("chosen", "rejected")):
        scored = 1.0 if "score_chosen" in row else 0.9
        return [_Claim("ultrafeedback", scored, "`chosen` and `rejected` are lists of messages")]
    return []


def _chat(row: Row) -> list[_Claim]:
    return [claim for key in row if (claim := _chat_claim(row, key))]


def _chat_claim(row: Row, key: str) -> _Claim | None:
    keys = _turn_keys(row[key])
    if keys == ("from", "value"):
        usual = key == CHATS["sharegpt"].turns
        return _Claim("sharegpt", 1.0 if usual else 0.9, f"`{key}` holds {{from, value}}", key)
    if keys != ("role", "content"):
        return None
    if key == "conversation" and row.keys() & {"conversation_hash", "hashed_ip", "toxic"}:
        return _Claim("wildchat", 1.0, "`conversation` beside WildChat's own keys", key)
    if key == "conversation" and {"conversation_id", "model"} <= row.keys():
        return _Claim("lmsys", 0.95, "`conversation` with `conversation_id` and `model`", key)
    sides = ("chosen", "rejected", "prompt")
    weight = 1.0 if key == "messages" else 0.5 if key in sides else 0.85
    return _Claim("openai", weight, f"`{key}` holds {{role, content}}", key)


def _turn_keys(value: object) -> tuple[str, str] | None:
    turns = json_list(value) if isinstance(value, str) and value.startswith("[") else value
    if not isinstance(turns, list) or not turns:
        return None
    for keys in (("from", "value"), ("role", "content")):
        if all(
            isinstance(turn, Mapping) and keys[0] in turn and (keys[1] in turn or "tool_calls" in turn)
            for turn in turns
        ):
            return keys
    return None


_LOOKS: Final[tuple[Callable[[Row], list[_Claim]], ...]] = (_oasst, _hh, _ultrafeedback, _chat)
