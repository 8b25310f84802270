"""Small publications without a catalog: rows in a file, a version that names it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from tilth.catalog import Version
from tilth.catalog.publishing import Bundle, Choice, Plan, write
from tilth.schemas import TABLES, polars_schema
from tilth.schemas.licences import combine

LABEL = "2026.11.21.1"


def pair(number: int, split: str = "train", said: str = "five centimetres") -> dict[str, Any]:
    """A pair whose texts are said about `number`."""
    texts = {"prompt": ("user", f"how deep do I sow {number}?"), "chosen": ("assistant", said)}
    texts["rejected"] = ("assistant", "on the roof")
    chats = {name: [{"role": role, "content": text}] for name, (role, text) in texts.items()}
    scores = {"chosen_score": 0.9, "rejected_score": -0.9, "margin": 1.8}
    return {"id": f"{number:032x}", **chats, **scores, "origin": "observed_recovery", "split": split}


def version(folder: Path, table: str, parts: Sequence[list[dict[str, Any]]], label: str = LABEL) -> Version:
    """A version of `observed.TABLE` with these parts."""
    files: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(parts):
        schema = polars_schema(table)
        frame = pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], schema=schema)
        files.append(str(folder / f"{table}-{label}-{number}.parquet"))
        pq.write_table(frame.to_arrow().cast(TABLES[table]), files[-1])
    made = datetime(2026, 11, 21, tzinfo=UTC)
    rows = sum(map(len, parts))
    return Version(f"observed.{table}", label, rows, 1, tuple(files), made, {"tilth.run_id": f"run-{label}"})


def planned(*versions: Version, name: str = "observed", **choice: Any) -> Plan:
    """A plan of these versions that nothing forbids."""
    return Plan(
        name=name,
        label=versions[0].version,
        versions=versions,
        choice=Choice(**choice),
        checks={one.table: () for one in versions},
        licences={"cc-by-4.0": 1},
        terms=combine(["cc-by-4.0"]),
        earlier={one.table: () for one in versions},
        conversations=(),
    )


def bundle(
    folder: Path, label: str = LABEL, pairs: int = 3, said: str = "five centimetres", **choice: Any
) -> Bundle:
    """Pairs in two splits."""
    rows = [pair(number, "test" if number % 3 == 2 else "train", said) for number in range(pairs)]
    one = version(folder, "pairs", [rows[:2], rows[2:]], label)
    return write(planned(one, **choice), folder / f"out-{label}-{pairs}")
