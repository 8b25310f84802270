"""What tests of the whole job share: running it on the sample logs, and the truth about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tilth.catalog import Catalog
from tilth.flows.conductor import Conductor
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "samples" / "logs"
FILES = ("support.openai.jsonl", "assistant.sharegpt.json", "community.oasst.jsonl")


@dataclass(frozen=True)
class World:
    """A run's result and its tables."""

    result: RunResult
    catalog: Catalog
    expected: dict[str, Any]

    def table(self, name: str) -> pl.DataFrame:
        return self.catalog.frame(f"observed.{name}").collect()


def run_on(workspace: Path, sources: list[str], **options: Any) -> RunResult:
    """One run, conducted directly."""
    return run(
        "observed", load(options={"sources": sources, "workspace": str(workspace), **options}), Conductor()
    )
