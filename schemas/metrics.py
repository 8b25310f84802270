"""What is counted over the rows of a table: metrics that add up, and the contracts that say what is looked at."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

_MILLION: Final = 1_000_000
_FAR: Final = 1e6  # what is averaged counts as no more than this, so that sums stay exact
_QUANTILES: Final = (10, 50, 90)  # per cent


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many rows fall in each bin of a fixed list. Rows that fall in none are counted nowhere.

    Args:
        edges: what lies between the bins, ascending and above 0; none where bins are words.
    """

    labels: tuple[str, ...]
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()

    def merge(self, other: Histogram) -> Histogram:
        """Both together."""
        added = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.labels, added, self.edges)

    def quantile(self, percent: int) -> float | None:
        """Where so many rows lie below, drawn straight (of logarithms) within a bin; of an outer bin, its edge.

        >>> Histogram(("..1", "1..4", "4.."), (1, 2, 1), (1.0, 4.0)).quantile(50)
        2.0
        """
        wanted, below = sum(self.counts) * percent / 100, 0
        ends = [self.edges[0], *self.edges, self.edges[-1]]
        for place, count in enumerate(self.counts):
            if count and below + count >= wanted:
                low, high = ends[place], ends[place + 1]
                return round(low * math.exp(math.log(high / low) * (wanted - below) / count), 6)
            below += count
        return None

    def row(self, name: str, rows: int) -> Iterator[tuple[str, float | int | None]]:
        """`<name>=<label>` for each bin; of numbers quantiles, of words the shares of the largest, others and none."""
        yield from ((f"{name}={label}", count) for label, count in zip(self.labels, self.counts, strict=True))
        if self.edges:
            yield from ((f"{name}_p{percent}", self.quantile(percent)) for percent in _QUANTILES)
            return
        known, largest = sum(self.counts), max(self.counts)
        yield f"{name}_largest_share", _ratio(largest, rows)
        yield f"{name}_other_share", _ratio(known - largest, rows)
        yield f"{name}_unknown_share", _ratio(rows - known, rows)


@dataclass(frozen=True, slots=True)
class Bins:
    """How rows fall into bins: `place` is the number of the bin, null for none."""

    place: pl.Expr
    labels: tuple[str, ...]
    edges: tuple[float, ...] = ()

    @classmethod
    def of_words(cls, word: pl.Expr, words: tuple[str, ...]) -> Bins:
        """One bin for each of these words."""
        return cls(word.cast(pl.Enum(words), strict=False).to_physical(), words)

    @classmethod
    def of_numbers(cls, number: pl.Expr, edges: tuple[float, ...]) -> Bins:
        """Bins between these edges, and one below and one above; an edge belongs to the bin above it."""
        place = pl.sum_horizontal(number >= edge for edge in edges).cast(pl.UInt32)
        ends = ["", *(f"{edge:g}" for edge in edges), ""]
        labels = tuple(f"{low}..{high}" for low, high in itertools.pairwise(ends))
        return cls(pl.when(number.is_not_null()).then(place), labels, edges)

    def count(self, places: pl.Series) -> Histogram:
        """The histogram of these bin numbers."""
        found = dict(places.drop_nulls().value_counts().iter_rows())
        return Histogram(self.labels, tuple(found.get(at, 0) for at in range(len(self.labels))), self.edges)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts over some rows of one table. `merge` is associative and commutative, and exact."""

    rows: int
    counts: Mapping[str, int]  # flag -> rows where it is true
    totals: Mapping[str, int]  # integer number -> its sum
    lows: Mapping[str, float | None]  # number -> smallest; null without rows
    highs: Mapping[str, float | None]
    millionths: Mapping[str, int] = field(default_factory=dict)  # number -> its sum in millionths
    histograms: Mapping[str, Histogram] = field(default_factory=dict)

    def merge(self, other: Metrics) -> Metrics:
        """The metrics of both sets of rows together."""
        return Metrics(
            self.rows + other.rows,
            {name: count + other.counts[name] for name, count in self.counts.items()},
            {name: total + other.totals[name] for name, total in self.totals.items()},
            {name: _extreme(min, low, other.lows[name]) for name, low in self.lows.items()},
            {name: _extreme(max, high, other.highs[name]) for name, high in self.highs.items()},
            {name: total + other.millionths[name] for name, total in self.millionths.items()},
            {name: one.merge(other.histograms[name]) for name, one in self.histograms.items()},
        )

    def row(self) -> dict[str, float | int | None]:
        """One flat row: `rows`, `<flag>`, `<flag>_share`, `<number>_min`, `_max`, `_mean`, and what histograms say.

        Means are of integers, and of what is summed in millionths.
        """
        row: dict[str, float | int | None] = {"rows": self.rows, **self.counts}
        row |= {f"{name}_share": _ratio(count, self.rows) for name, count in self.counts.items()}
        row |= {f"{name}_min": low for name, low in self.lows.items()}
        row |= {f"{name}_max": high for name, high in self.highs.items()}
        row |= {f"{name}_mean": _ratio(total, self.rows) for name, total in self.totals.items()}
        row |= {
            f"{name}_mean": _ratio(total, self.rows * _MILLION) for name, total in self.millionths.items()
        }
        for name, histogram in self.histograms.items():
            row |= histogram.row(name, self.rows)
        return row


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
        averaged: numbers of which only the mean is kept, exact to a millionth a row; beyond a million they are cut.
        bins: what is kept as a histogram.
        prepare: adds columns that the expressions need and cannot derive themselves.
    """

    defects: Mapping[str, pl.Expr]
    facts: Mapping[str, pl.Expr] = field(default_factory=dict)
    numbers: Mapping[str, pl.Expr] = field(default_factory=dict)
    averaged: Mapping[str, pl.Expr] = field(default_factory=dict)
    bins: Mapping[str, Bins] = field(default_factory=dict)
    prepare: Callable[[pl.DataFrame], pl.DataFrame] = _as_it_is

    def project(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The slim rows, in order: one boolean or number a column, no text."""
        return self.prepare(frame).select(
            *(flag.fill_null(True).alias(name) for name, flag in self.defects.items()),
            *(flag.fill_null(False).alias(name) for name, flag in self.facts.items()),
            *(number.alias(name) for name, number in self.numbers.items()),
            *(
                (mean.clip(-_FAR, _FAR) * _MILLION).round().cast(pl.Int64).alias(f"{name}:mean")
                for name, mean in self.averaged.items()
            ),
            *(bins.place.alias(f"{name}:bin") for name, bins in self.bins.items()),
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
            {name: int(slim.get_column(f"{name}:mean").sum()) for name in self.averaged},
            {name: bins.count(slim.get_column(f"{name}:bin")) for name, bins in self.bins.items()},
        )


def _finite(slim: pl.DataFrame, name: str) -> pl.Series:
    values = slim.get_column(name).drop_nulls()
    return values if values.dtype.is_integer() else values.filter(values.is_finite())


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def merge(metrics: Iterable[Metrics]) -> Metrics:
    """The metrics of all parts together. Raises `TypeError` without any part."""
    return functools.reduce(Metrics.merge, metrics)
