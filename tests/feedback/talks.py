"""Conversations and a model's answers about them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import polars as pl

from tilth.schemas import PL_MESSAGES
from tilth.schemas.ids import content_id
from tilth.transforms.inference.requests import COMPLETIONS, Completion, to_frame

_COLUMNS = {
    "id": pl.String,
    "record_id": pl.String,
    "messages": PL_MESSAGES,
    "owned_from": pl.Int32,
    "language": pl.String,
    "split": pl.String,
    "source": pl.String,
    "model": pl.String,
    "tool_calls_json": pl.String,
}


def name(of: str) -> str:
    """An id as the tables have it."""
    return content_id(of)


def talk(*turns: str, called: str = "c", record: str | None = None, **columns: object) -> dict[str, object]:
    """One conversation; the turns alternate, the user begins. `called` becomes its id."""
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(turns)]
    row = {"owned_from": 0, "language": "en", "split": "train", "source": "s", **columns}
    return {"id": name(called), "record_id": name(record or called), "messages": messages, **row}


def talks(*rows: Mapping[str, object]) -> pl.DataFrame:
    """Conversations as a frame."""
    return pl.DataFrame([dict.fromkeys(_COLUMNS) | dict(row) for row in rows], schema=_COLUMNS)


def entry(turn: int, evidence: str = "", target: int | None = None, **said: Any) -> dict[str, Any]:
    """What a model says of one turn; without labels that it is no feedback."""
    plain = {
        "satisfaction": [],
        "dissatisfaction": [],
        "state": "feedback",
        "target": turn - 1 if target is None else target,
        "evidence": evidence,
        "refusal_was_right": False,
    }
    return {"turn": turn, **plain, **said}


def answers(texts: Mapping[str, Sequence[Mapping[str, Any]]]) -> pl.DataFrame:
    """Completions that give each request these entries."""
    said = [
        Completion(orjson.dumps({"turns": list(items)}).decode(), "stop", 10, 10) for items in texts.values()
    ]
    return to_frame(list(texts), said, "tiny@1") if texts else pl.DataFrame(schema=COMPLETIONS)
