"""The hand-written pairs of `planted_rationales.jsonl`, and their rationales: two good and two bad ones each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson
import polars as pl

from tilth.schemas import polars_schema
from tilth.schemas.ids import content_id

ROWS: Final = [
    orjson.loads(line)
    for line in (Path(__file__).parent / "planted_rationales.jsonl").read_text().splitlines()
]
WANTED: Final = {
    None: None,
    "wrong_side": "label_not_recovered",
    "invented_quote": "evidence_not_found",
    "position_leak": "names_position",
    "copy": "copies_reply",
}
_TABLE: Final = polars_schema("rationales")
_COLUMNS: Final = {name: _TABLE[name] for name in ("id", "pair_id", "kind", "side", "text", "evidence")}


def pair(name: str, prompt: str, chosen: str, rejected: str) -> dict[str, object]:
    """One row of `pairs`, as far as rationales look at it."""
    sides = {"prompt": ("user", prompt), "chosen": ("assistant", chosen), "rejected": ("assistant", rejected)}
    messages = {side: [{"role": role, "content": text}] for side, (role, text) in sides.items()}
    return {"id": content_id(name), **messages}


def as_pairs(*rows: Mapping[str, object]) -> pl.DataFrame:
    """Rows of `pairs`."""
    return pl.DataFrame([*rows], schema=polars_schema("pairs"))


def as_rationales(*rows: Mapping[str, object]) -> pl.DataFrame:
    """Rationales with the columns that checks read, and what was planted in them."""
    plain = {"side": None, "kind": "specific", "evidence": [], "planted": None}
    return pl.DataFrame([{**plain, **row} for row in rows], schema={**_COLUMNS, "planted": pl.String})


PAIRS: Final = as_pairs(
    *(pair(row["pair"], row["prompt"], row["chosen"], row["rejected"]) for row in ROWS),
)
RATIONALES: Final = as_rationales(
    *(
        {**said, "id": content_id(row["pair"], str(at)), "pair_id": content_id(row["pair"])}
        for row in ROWS
        for at, said in enumerate(row["rationales"])
    )
)
GOOD: Final = RATIONALES.filter(pl.col("planted").is_null())
