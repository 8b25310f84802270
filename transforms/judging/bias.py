"""What judges prefer apart from what is good: the first place, the longer reply. Every share with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tilth.transforms.judging.agreement import agreement
from tilth.transforms.judging.noise import (
    Consistency,
    accuracy,
    consistency,
    denoised,
    in_both_orders,
    towards_gold,
)
from tilth.transforms.judging.votes import sign

_Z: Final = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Share:
    """A share or a difference of shares over n votes or items, with its 95 % interval; null for nothing to count."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Position:
    """What the place of a reply does to one judge.

    Args:
        first_preferred: the share of decided votes that prefer what is shown first; 0.5 without bias. Only samples
            that are valid in both orders count, so that neither reply stands first more often.
        conflict: the share of items on which the judge says otherwise in the other order (FairEval).
        accuracy_difference: right where the preferred reply is shown first, less right where it is shown second.
        denoised: the same of accuracies without flips, acc'_A - acc'_B; null without repeated samples.
    """

    first_preferred: Share
    conflict: Share
    accuracy_difference: Share
    denoised: float | None


@dataclass(frozen=True, slots=True)
class Length:
    """What the length of a reply, in characters, does to one judge.

    Args:
        longer_preferred: the share of decided items on which the judge prefers the longer reply.
        gold_longer: the share of items on which people do: what of it is no bias.
        right_where_longer: accuracy (in both orders) where people prefer the longer reply.
        right_elsewhere: the same where they do not.
        accuracy_difference: the former less the latter. The groups differ in content, not in length alone.
        denoised: the same of accuracies without flips; null without repeated samples.
        baseline: agreement with gold of a judge that only looks at length.
        baseline_kappa: Cohen's kappa of it; a judge that is not above it may be no more than that.
    """

    longer_preferred: Share
    gold_longer: Share
    right_where_longer: Share
    right_elsewhere: Share
    accuracy_difference: Share
    denoised: float | None
    baseline: float | None
    baseline_kappa: float | None


def share(successes: Sequence[float], counts: Sequence[float]) -> Share:
    """The share of successes among counts, given per item, with Wilson's score interval.

    Votes on one item are alike: where they vary more between items than independent votes would, the interval counts
    fewer of them (the effective sample size, n / design effect; Korn and Graubard 1998).

    >>> share([9, 7], [10, 10]).value, share([], []).value
    (0.8, None)
    """
    won, of = np.asarray(successes, dtype=float), np.asarray(counts, dtype=float)
    n = of.sum()
    if not n:
        return Share(None, None, None, 0)
    p = float(won.sum() / n)
    low, high = _wilson(p, _effective(won, of, p))
    return Share(p, low, high, int(n))


def _effective(won: np.ndarray, of: np.ndarray, p: float) -> float:
    """How many independent votes tell as much."""
    n, items = float(of.sum()), int((of > 0).sum())
    if not 0 < p < 1:
        return items
    variance = float(((won - p * of) ** 2).sum()) / n**2
    return n / max(1.0, variance / (p * (1 - p) / n))


def _wilson(p: float, n: float) -> tuple[float, float]:
    middle, spread = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    whole = 1 + _Z**2 / n
    # Rounding must not put the share itself outside its interval.
    return min(p, max(0.0, (middle - spread) / whole)), max(p, min(1.0, (middle + spread) / whole))


def difference(one: Share, other: Share) -> Share:
    """One share less another of other items, with Newcombe's interval (1998, method 10)."""
    if one.value is None or other.value is None:
        return Share(None, None, None, one.n + other.n)
    (p, low_p, high_p), (q, low_q, high_q) = (_bounds(side) for side in (one, other))
    below, above = math.hypot(p - low_p, high_q - q), math.hypot(high_p - p, q - low_q)
    return Share(p - q, p - q - below, p - q + above, one.n + other.n)


def _bounds(side: Share) -> tuple[float, float, float]:
    return side.value or 0.0, side.low or 0.0, side.high or 0.0


def paired_difference(one: Sequence[bool], other: Sequence[bool]) -> Share:
    """One share less another over the same items, with the adjusted Wald interval (Agresti and Min 2005)."""
    n = len(one)
    if not n:
        return Share(None, None, None, 0)
    alone = sum(a and not b for a, b in zip(one, other, strict=True))
    others = sum(b and not a for a, b in zip(one, other, strict=True))
    middle, whole = (alone - others) / (n + 2), n + 2
    spread = _Z * math.sqrt(alone + others + 1 - (alone - others) ** 2 / whole) / whole
    return Share((alone - others) / n, middle - spread, middle + spread, n)


def flags(rows: pl.DataFrame, flag: pl.Expr, of: pl.Expr | None = None) -> Share:
    """The share of rows, each an item of its own, where a flag holds; null flags do not count."""
    kept = (
        (rows if of is None else rows.filter(of)).select(flag.alias("flag")).get_column("flag").drop_nulls()
    )
    return share(kept.cast(pl.Float64).to_list(), [1.0] * kept.len())


def position(votes: pl.DataFrame, one: pl.DataFrame, gold: pl.DataFrame) -> Position:
    """What the place of a reply does to one judge.

    Args:
        votes: `VOTES` of this judge.
        one: `BY_JUDGE` of this judge.
        gold: `item_id`, `gold` (win, loss or tie of reply a); may be empty.
    """
    towards = towards_gold(one, gold).drop_nulls()
    right = [(towards.get_column(name) > 0).to_list() for name in ("shown_first", "shown_second")]
    known = pl.all_horizontal(sign(name).is_not_null() for name in ("verdict_a_first", "verdict_b_first"))
    return Position(
        _first_preferred(votes),
        flags(one, pl.col("verdict_a_first") != pl.col("verdict_b_first"), of=known),
        paired_difference(right[0], right[1]),
        _without_flips(votes, towards, gold),
    )


def _first_preferred(votes: pl.DataFrame) -> Share:
    valid = votes.filter(pl.col("verdict") != "failed")
    whole = valid.filter(pl.col("first").n_unique().over("item_id", "sample_index") == 2)
    favour = sign("verdict") * (1 - 2 * pl.col("first"))  # 1: what is shown first
    items = whole.group_by("item_id").agg(won=(favour == 1).sum(), of=(favour != 0).sum())
    return share(items.get_column("won").to_list(), items.get_column("of").to_list())


def _without_flips(votes: pl.DataFrame, towards: pl.DataFrame, gold: pl.DataFrame) -> float | None:
    right = accuracy(towards)
    preferred = votes.join(gold.select("item_id", "gold"), on="item_id").filter(
        pl.col("gold").is_in(("win", "loss"))
    )
    in_first = (pl.col("first") == 0) == (pl.col("gold") == "win")
    noise = [consistency(preferred.filter(where)).noise for where in (in_first, ~in_first)]
    return _less(denoised(right.shown_first, noise[0]), denoised(right.shown_second, noise[1]))


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def length(votes: pl.DataFrame, one: pl.DataFrame, facts: pl.DataFrame) -> Length:
    """What the length of a reply does to one judge.

    Args:
        votes: `VOTES` of this judge.
        one: `BY_JUDGE` of this judge.
        facts: `FACTS`: `item_id`, `gold`, `chars_a`, `chars_b`, each but the first null where it is not known.
    """
    longer = (pl.col("chars_a") - pl.col("chars_b")).sign()  # 1: a
    known = facts.filter(longer.is_not_null()).with_columns(longer=longer.cast(pl.Int8))
    said = one.join(known, on="item_id").filter(pl.col("longer") != 0)
    decided, unequal = pl.col("verdict").is_in(("win", "loss")), pl.col("longer") != 0
    preferred = known.filter(pl.col("gold").is_in(("win", "loss")))
    groups = _by_length(votes, one, preferred)
    blind = _length_alone(known)
    return Length(
        flags(said, sign("verdict") == pl.col("longer"), of=decided),
        flags(preferred, sign("gold") == pl.col("longer"), of=unequal),
        *(right for right, _ in groups),
        accuracy_difference=difference(groups[0][0], groups[1][0]),
        denoised=_less(*(denoised(right.value, same.noise) for right, same in groups)),
        baseline=blind[0],
        baseline_kappa=blind[1],
    )


def _by_length(
    votes: pl.DataFrame, one: pl.DataFrame, preferred: pl.DataFrame
) -> list[tuple[Share, Consistency]]:
    """Accuracy in both orders and self-consistency: of items whose preferred reply is longer, then of the others."""
    towards, runs = towards_gold(one, preferred).drop_nulls(), in_both_orders(votes)
    favoured = sign("gold") == pl.col("longer")
    return [
        (
            flags(
                towards.join(group, on="item_id", how="semi"),
                pl.col("shown_first") + pl.col("shown_second") > 0,
            ),
            consistency(runs.join(group, on="item_id", how="semi")),
        )
        for group in (preferred.filter(favoured), preferred.filter(~favoured))
    ]


def _length_alone(known: pl.DataFrame) -> tuple[float | None, float | None]:
    words = pl.col("longer").replace_strict({1: "win", -1: "loss", 0: "tie"}, return_dtype=pl.String)
    found = agreement(known.select(words).to_series().to_list(), known.get_column("gold").to_list())
    return found.agreement, found.kappa
