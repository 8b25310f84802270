"""Builders of conversations and feedback for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from tilth.schemas import polars_schema


def logged(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `conversations`: `say` is a list of texts, user first; roles can be given as (role, text)."""
    return pl.DataFrame([_conversation(**row) for row in rows], schema=polars_schema("conversations"))


def _conversation(id: str, say: Sequence[str | tuple[str, str]], **fields: Any) -> dict[str, Any]:
    turns = [
        turn if isinstance(turn, tuple) else (("user", "assistant")[at % 2], turn)
        for at, turn in enumerate(say)
    ]
    return {
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


def signals(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `feedback` with `owned`: about the assistant turn before the one they are said in."""
    schema = {**polars_schema("feedback"), "owned": pl.Boolean}
    return pl.DataFrame([_signal(**row) for row in rows], schema=schema)


def _signal(conversation_id: str, message_index: int, polarity: str, **fields: Any) -> dict[str, Any]:
    return {
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
        "owned": True,
        **fields,
    }


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
