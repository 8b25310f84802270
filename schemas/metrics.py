"""What is counted over the rows of a table: metrics that add up, and the contracts that say what is looked at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts over some rows of one table. `merge` is associative and commutative, and exact."""

    rows: int
    counts: Mapping[str, int]  # flag -> rows where it is true
    totals: Mapping[str, int]  # integer number -> its sum
    lows: Mapping[str, float | None]  # number -> smallest; null without rows
    highs: Mapping[str, float | None]

    def merge(self, other: Metrics) -> Metrics:
        """The metrics of both sets of rows together."""
        return Metrics(
            self.rows + other.rows,
            {name: count + other.counts[name] for name, count in self.counts.items()},
            {name: total + other.totals[name] for name, total in self.totals.items()},
            {name: _extreme(min, low, other.lows[name]) for name, low in self.lows.items()},
            {name: _extreme(max, high, other.highs[name]) for name, high in self.highs.items()},
        )

    def row(self) -> dict[str, float | int | None]:
        """One flat row: `rows`, `<flag>`, `<flag>_share`, `<number>_min`, `_max`, of integers `_mean`."""
        row: dict[str, float | int | None] = {"rows": self.rows, **self.counts}
        row |= {f"{name}_share": _ratio(count, self.rows) for name, count in self.counts.items()}
        row |= {f"{name}_min": low for name, low in self.lows.items()}
        row |= {f"{name}_max": high for name, high in self.highs.items()}
        return row | {f"{name}_mean": _ratio(total, self.rows) for name, total in self.totals.items()}


def _extreme(pick: Callable[..., float], one: float | None, other: float | None) -> float | None:
    return pick((value for value in (one, other) if value is not None), default=None)


def _ratio(count: int, rows: int) -> float | None:
    return count / rows if rows else None


def _as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


@dataclass(frozen=True, slots=True)
class Contract:
    """What is looked at in each row of one table.

    Args:
        defects: flags that should be false; where an expression yields null, the row counts as bad.
        facts: flags that are worth counting and are no defect by themselves; null counts as false.
        numbers: measures of a row.
        prepare: adds columns that the expressions need and cannot derive themselves.
    """

    defects: Mapping[str, pl.Expr]
    facts: Mapping[str, pl.Expr] = field(default_factory=dict)
    numbers: Mapping[str, pl.Expr] = field(default_factory=dict)
    prepare: Callable[[pl.DataFrame], pl.DataFrame] = _as_it_is

    def project(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The slim rows, in order: one boolean or number a column, no text."""
        return self.prepare(frame).select(
            *(flag.fill_null(True).alias(name) for name, flag in self.defects.items()),
            *(flag.fill_null(False).alias(name) for name, flag in self.facts.items()),
            *(number.alias(name) for name, number in self.numbers.items()),
        )

    def measure(self, frame: pl.DataFrame) -> Metrics:
        """The metrics of these rows."""
        slim = self.project(frame)
        flags = [*self.defects, *self.facts]
        whole = [name for name in self.numbers if slim.schema[name].is_integer()]
        numbers = {name: _finite(slim, name) for name in self.numbers}
        return Metrics(
            slim.height,
            {name: int(slim.get_column(name).sum()) for name in flags},
            {name: int(slim.get_column(name).sum()) for name in whole},
            {name: _number(values.min()) for name, values in numbers.items()},
            {name: _number(values.max()) for name, values in numbers.items()},
        )


def _finite(slim: pl.DataFrame, name: str) -> pl.Series:
    values = slim.get_column(name).drop_nulls()
    return values if values.dtype.is_integer() else values.filter(values.is_finite())


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def merge(metrics: Iterable[Metrics]) -> Metrics:
    """The metrics of all parts together. Raises `TypeError` without any part."""
    return functools.reduce(Metrics.merge, metrics)
