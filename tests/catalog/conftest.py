"""A small coherent release of all tables, staged as a run would stage it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tilth.catalog import Catalog, open_catalog
from tilth.schemas import TABLES, polars_schema

Rows = dict[str, list[dict[str, Any]]]
Stage = Callable[..., dict[str, list[str]]]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASKED = turn("user", "how deep do I sow peas?")
WRONG, RIGHT = turn("assistant", "on the roof"), turn("assistant", "five centimetres")
SIDES = {
    "prompt": [ASKED],
    "prompt_id": "a" * 32,
    "conversation_id": "c" * 32,
    "feedback_ids": ["f" * 32],
    "method": "rules",
    "split": "train",
}


def coherent_rows() -> Rows:
    """One conversation, two signals, one pair, two labels, one rationale, one row set aside, all coherent."""
    signal = {
        "conversation_id": "c" * 32,
        "on_refusal": False,
        "method": "rules",
        "method_version": "1",
        "split": "train",
        "strength": 0.9,
        "dialogue_state": "feedback",
    }
    negative = {
        "id": "f" * 32, "message_index": 2, "target_index": 1, "polarity": "negative",
        "labels": ["factual_error"],
        "evidence": [{"label": "factual_error", "text": "not on the roof", "start": 4, "end": 19}],
    }  # fmt: skip
    positive = {
        "id": "e" * 32, "message_index": 4, "target_index": 3, "polarity": "positive",
        "labels": ["gratitude"],
        "evidence": [{"label": "gratitude", "text": "thanks", "start": 0, "end": 6}],
    }  # fmt: skip
    said = [ASKED, WRONG, turn("user", "no, not on the roof"), RIGHT, turn("user", "thanks")]
    return {
        "conversations": [
            {"id": "c" * 32, "source": "log", "record_id": "r", "record_rows": 1, "messages": said,
             "user_key": "u", "owned_from": 0, "reactions": [], "split": "train"},
        ],
        "feedback": [{**signal, **negative}, {**signal, **positive}],
        "pairs": [
            {**SIDES, "id": "1" * 32, "chosen": [RIGHT], "rejected": [WRONG], "origin": "observed_recovery",
             "chosen_score": 0.9, "rejected_score": -0.9, "margin": 1.8},
        ],
        "unpaired": [
            {**SIDES, "id": "2" * 32, "completion": [RIGHT], "label": True, "weight": 0.9},
            {**SIDES, "id": "3" * 32, "prompt_id": "b" * 32, "completion": [WRONG], "label": False,
             "weight": 0.9},
        ],
        "rationales": [
            {"id": "4" * 32, "pair_id": "1" * 32, "kind": "user_complaint", "text": "no, not on the roof",
             "evidence": [{"side": "rejected", "quote": "not on the roof"}], "factors": [],
             "feedback_ids": ["f" * 32], "conversation_id": "c" * 32, "method": "rules", "split": "train"},
        ],
        "quarantine": [
            {"id": "5" * 32, "source": "log", "stage": "ingest", "reason": "broken_json", "key": "log#row=2",
             "detail": "line 2", "payload": "{", "source_rows": 1},
        ],
    }  # fmt: skip


def arrow_rows(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table with the exact types of `table`; what a row does not say is null."""
    schema = polars_schema(table)
    frame = pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)
    return frame.to_arrow().cast(TABLES[table])


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """An empty catalog in a workspace whose name needs care."""
    with open_catalog(str(tmp_path / "my work #1")) as opened:
        yield opened


@pytest.fixture
def stage(catalog: Catalog) -> Stage:
    """Writes the parts of a run, one part per row, where the catalog wants them; gives URIs by table."""

    def write(run_id: str, rows: Rows | None = None, family: str = "observed") -> dict[str, list[str]]:
        return {
            table: [write_part(catalog, family, table, run_id, *item) for item in enumerate(some)]
            for table, some in (coherent_rows() if rows is None else rows).items()
        }

    return write


def write_part(
    catalog: Catalog, family: str, table: str, run_id: str, number: int, row: dict[str, Any]
) -> str:
    directory = catalog.staging(family, table, run_id)
    os.makedirs(directory, exist_ok=True)  # noqa: PTH103  (a URI of the local file system is a path)
    uri = f"{directory}/{number:05d}.parquet"
    pq.write_table(arrow_rows(table, [row]), uri)
    return uri


@pytest.fixture
def rows() -> Callable[[], Rows]:
    """Fresh coherent rows, to be changed by a test."""
    return coherent_rows


@pytest.fixture
def as_arrow() -> Callable[[str, list[dict[str, Any]]], pa.Table]:
    """Turns rows into an Arrow table of exact types."""
    return arrow_rows
