"""How far two versions of a dataset are apart, metric by metric: more than the rules, and chance, allow?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tilth.schemas.expectations import DriftRule

Row = Mapping[str, float | int | None]
_EMPTY: Final = 1e-4  # the share that an empty bin counts with: the index has no value at 0
_SURE: Final = (
    2.326  # standard deviations: of what does not drift, chance lets about one in a hundred through
)


@dataclass(frozen=True, slots=True)
class Drift:
    """One rule and what was observed of it; `success` is null when either version does not have the metric."""

    table: str
    metric: str
    kind: str  # absolute | relative | loss | psi
    before: float | int | None  # null for histograms
    now: float | int | None
    change: float | None
    allowed: float  # at least what the rule says; more where so few rows show that much by chance
    severity: str
    success: bool | None
    why: str


def drift(table: str, now: Row, before: Row, rules: Sequence[DriftRule]) -> list[Drift]:
    """What the rules say of two rows of metrics (`Metrics.row`).

    Where it is more than the rule, shares are allowed what the normal approximation of two samples of these sizes lets
    expect by chance, and histograms what the chi-squared approximation does (Yurdakul 2018, Statistical properties of
    the population stability index): twenty rows are no reason to raise an alarm.
    """
    return [_judged(table, now, before, rule) for rule in rules]


def _judged(table: str, now: Row, before: Row, rule: DriftRule) -> Drift:
    metric, one, other = rule.metric, now.get(rule.metric), before.get(rule.metric)
    if rule.kind == "psi":
        change, chance = psi(*_bins(metric, now, before))
    else:
        change = _change(rule.kind, one, other)
        chance = _chance_of_share(one, other, now, before) if metric.endswith("_share") else 0.0
    allowed = max(rule.allowed, chance)
    success = None if change is None else change <= allowed
    return Drift(table, metric, rule.kind, other, one, change, allowed, rule.severity, success, rule.why)


def _change(kind: str, now: float | None, before: float | None) -> float | None:
    if now is None or before is None:
        return None
    match kind:
        case "absolute":
            return abs(now - before)
        case "relative":
            return abs(now - before) / abs(before) if before else None
        case _:
            return max(before - now, 0) / before if before else 0.0


def _chance_of_share(one: float | None, other: float | None, now: Row, before: Row) -> float:
    rows, rows_before = now.get("rows") or 0, before.get("rows") or 0
    if one is None or other is None or not rows or not rows_before:
        return 0.0
    mean = (one * rows + other * rows_before) / (rows + rows_before)
    return _SURE * math.sqrt(mean * (1 - mean) * (1 / rows + 1 / rows_before))


def psi(now: Sequence[int], before: Sequence[int]) -> tuple[float | None, float]:
    """The population stability index of two histograms, and what chance makes of it in one of a hundred cases.

    Null for histograms without rows.

    >>> psi([30, 70], [50, 50])[0]
    0.1694596
    """
    rows, rows_before = sum(now), sum(before)
    if not rows or not rows_before:
        return None, 0.0
    used = [(one, other) for one, other in zip(now, before, strict=True) if one or other]
    shares = [(max(one / rows, _EMPTY), max(other / rows_before, _EMPTY)) for one, other in used]
    found = sum((one - other) * math.log(one / other) for one, other in shares)
    return round(found, 7), _chi_squared(len(used) - 1) * (1 / rows + 1 / rows_before)


def _chi_squared(freedom: int) -> float:
    """The 99th percentile, by Wilson and Hilferty's approximation."""
    if not freedom:
        return 0.0
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + _SURE * math.sqrt(spread)) ** 3


def _bins(name: str, *rows: Row) -> list[list[int]]:
    labels = sorted({metric for row in rows for metric in row if metric.startswith(f"{name}=")})
    return [[int(row.get(label) or 0) for label in labels] for row in rows]
