"""What a training format is: from which tables it can be made, what it leaves out and why, how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple  # Any: JSON values

import polars as pl

Tables = Mapping[str, pl.DataFrame]
Unfit = Mapping[str, Callable[[Tables], pl.Expr]]
FORMS: Final = (".parquet", ".jsonl", ".ndjson")


class Made(NamedTuple):
    """The rows of a format, and how many rows of its table are not among them, by reason."""

    rows: pl.DataFrame
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Projection:
    """How a format is made of one table.

    Args:
        project: from tables by name to the rows of the format; pure.
        unfit: which rows of the table the format cannot hold, by reason; a row counts with its first reason.
        merges: why `project` makes fewer rows than it is given, where it does.
        needs: other tables that it reads.
    """

    project: Callable[[Tables], pl.DataFrame]
    unfit: Unfit = field(default_factory=dict)
    merges: str = ""
    needs: tuple[str, ...] = ()

    def make(self, table: str, tables: Tables) -> Made:
        """The rows that fit, projected, and the count of those that did not, by reason."""
        whole = tables[table]
        reasons = [
            pl.when(unfit(tables).fill_null(False)).then(pl.lit(why)) for why, unfit in self.unfit.items()
        ]
        why = pl.coalesce(*reasons, pl.lit(None, pl.String)).alias("why")
        found = whole.with_columns(why).get_column("why")
        kept = whole.filter(found.is_null())
        rows = self.project({**tables, table: kept})
        counted = dict(found.drop_nulls().value_counts(sort=True).iter_rows())
        merged = kept.height - _own(rows, kept)
        return Made(rows, {**counted, **({self.merges: merged} if merged else {})})


def _own(rows: pl.DataFrame, kept: pl.DataFrame) -> int:
    """How many rows stand for rows of the table; a format may draw more from other tables (CUT)."""
    if "id" not in rows.columns:
        return rows.height
    return rows.filter(pl.col("id").is_in(kept.get_column("id").implode())).height


@dataclass(frozen=True, slots=True)
class Format:
    """One training format.

    Args:
        name: what it is asked for by.
        describe: what it is for, in one line.
        of: how it is made, by the table that it is made of.
        beside: what else the trainer reads: file name -> the entry of one file of rows, by table and rows' file.
        forms: the endings of files that the trainer reads.
    """

    name: str
    describe: str
    of: Mapping[str, Projection]
    beside: Mapping[str, Callable[[str, str], dict[str, Any]]] = field(default_factory=dict)
    forms: tuple[str, ...] = FORMS
