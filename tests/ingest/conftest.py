"""Ways to write a source and to read it whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from tilth.transforms.ingest import ReadConfig, expand, plan, read


class Ingested(NamedTuple):
    """Everything that came of a source."""

    conversations: pl.DataFrame
    quarantine: pl.DataFrame
    rows_in: int

    @property
    def reasons(self) -> list[str]:
        return self.quarantine.get_column("reason").to_list()

    @property
    def roles(self) -> list[str]:
        return [
            "".join(m["role"][0] for m in row) for row in self.conversations.get_column("messages").to_list()
        ]

    @property
    def texts(self) -> list[list[str]]:
        return [[m["content"] for m in row] for row in self.conversations.get_column("messages").to_list()]

    @property
    def reactions(self) -> list[list[tuple[int, str, float]]]:
        rows = self.conversations.get_column("reactions").to_list()
        return [[(r["message_index"], r["kind"], r["value"]) for r in row] for row in rows]


Ingest = Callable[..., Ingested]


@pytest.fixture
def ingest() -> Ingest:
    """Reads URIs from end to end and checks on the way that no row is lost."""

    def run(
        *uris: object, shape: str | None = None, mapping: object = None, fast: bool = True, **config: Any
    ) -> Ingested:
        tasks = plan(expand([str(uri) for uri in uris]), shape, None if mapping is None else str(mapping))
        batches = [batch for task in tasks for batch in read(task, ReadConfig(**config), fast=fast)]
        for batch in batches:
            kept = int(batch.conversations.get_column("record_rows").sum())
            assert batch.rows_in == kept + int(batch.quarantine.get_column("source_rows").sum())
        return Ingested(
            pl.concat([batch.conversations for batch in batches]),
            pl.concat([batch.quarantine for batch in batches]),
            sum(batch.rows_in for batch in batches),
        )

    return run


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows as JSONL; a row that is bytes is written as it is."""

    def write(rows: Sequence[object], name: str = "log.jsonl") -> Path:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write
