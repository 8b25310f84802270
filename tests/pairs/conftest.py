"""Builders of conversations and feedback for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from tilth.schemas import conform, empty


def logged(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `conversations`: `say` is a list of texts, user first; roles can be given as (role, text)."""
    return pl.concat([empty("conversations"), *(_conversation(**row) for row in rows)])


def _conversation(id: str, say: Sequence[str | tuple[str, str]], **fields: Any) -> pl.DataFrame:
    turns = [
        turn if isinstance(turn, tuple) else (("user", "assistant")[at % 2], turn)
        for at, turn in enumerate(say)
    ]
    row = {
        "id": id,
        "source": "memory://log",
        "record_id": f"record of {id}",
        "record_rows": 1,
        "owned_from": 0,
        "split": "train",
        "messages": [{"role": role, "content": text} for role, text in turns],
        "model": "m",
        **fields,
    }
    return conform(pl.DataFrame([row], infer_schema_length=None), "conversations")


def signals(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `feedback` with `owned`: about the assistant turn before the one they are said in."""
    nothing = empty("feedback").with_columns(pl.lit(None, pl.Boolean).alias("owned"))
    return pl.concat([nothing, *(_signal(**row) for row in rows)])


def _signal(conversation_id: str, message_index: int, polarity: str, **fields: Any) -> pl.DataFrame:
    owned = fields.pop("owned", True)
    row = {
        "id": f"{conversation_id}@{message_index}{polarity}",
        "conversation_id": conversation_id,
        "message_index": message_index,
        "target_index": message_index - 1,
        "polarity": polarity,
        "labels": ["gratitude" if polarity == "positive" else "negative_feedback"],
        "strength": 0.9,
        "dialogue_state": "feedback",
        "on_refusal": False,
        "method": "rules",
        "split": "train",
        **fields,
    }
    return conform(pl.DataFrame([row]), "feedback").with_columns(owned=pl.lit(owned))


def reaction(message_index: int, kind: str, value: float = 1.0) -> dict[str, Any]:
    """One entry of the column `reactions`."""
    return {"message_index": message_index, "kind": kind, "value": value, "at": None}


@pytest.fixture(scope="session")
def build() -> Any:
    """The builders, as attributes."""

    class Build:
        logged = staticmethod(logged)
        signals = staticmethod(signals)
        reaction = staticmethod(reaction)

    return Build
