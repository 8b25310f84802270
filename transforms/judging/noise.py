"""How often a judge agrees with itself, how often it is right, and how right it would be without its own noise.

Source: Systematic Evaluation of LLM-as-a-Judge (arXiv 2408.13006, section 3). Differences from its released code are
said where they are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import polars as pl

from tilth.transforms.inference.sampling import seed_for
from tilth.transforms.judging.votes import sign

_NEAR_CHANCE: Final = 0.1  # of |1 - 2e|: closer to a coin than this, the correction divides by nearly nothing
_HALF: Final = 1 << 30  # of the range of `seed_for`


class Consistency(NamedTuple):
    """How probable it is that two runs of a judge on one item agree: the mean over `n` items; null without any."""

    n: int
    p: float | None

    @property
    def noise(self) -> float | None:
        """The paper's e = 1 - p. Two runs disagree about twice as often as one flips, so its correction is generous."""
        return None if self.p is None else 1 - self.p


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often one judge is right, over the `n` items with a gold preference that are valid in both orders.

    Args:
        n: items.
        both: right in both orders, or in one with a tie in the other.
        random: right in one order that is drawn for the item; what a judge of one order would reach.
        shown_first: right where the preferred reply is shown first.
        shown_second: right where it is shown second.
    """

    n: int
    both: float | None
    random: float | None
    shown_first: float | None
    shown_second: float | None


def consistency(runs: pl.DataFrame) -> Consistency:
    """Self-consistency from `runs` (columns `item_id`, `verdict`; null or failed: no run) of items with two or more.

    Per item the sum over verdicts of (n_v / n) * (n_v - 1) / (n - 1): how probable it is that two of its runs, drawn
    without putting back, say the same. Ties are a verdict of their own.
    """
    valid = runs.filter(pl.col("verdict").is_not_null(), pl.col("verdict") != "failed")
    counts = valid.group_by("item_id", "verdict").len("n_v").with_columns(pl.col("n_v").cast(pl.Float64))
    n, same = pl.col("n_v").sum(), (pl.col("n_v") * (pl.col("n_v") - 1)).sum()
    items = counts.group_by("item_id").agg(n=n, p=same / (n * (n - 1))).filter(pl.col("n") > 1)
    return Consistency(items.height, items.sort("item_id").select(pl.col("p").mean()).item())


def denoised(accuracy: float | None, noise: float | None) -> float | None:
    """(acc - e) / (1 - 2e): the accuracy of a judge that flips what it means with probability e, without the flips.

    Null where either is unknown, and where |1 - 2e| < 0.1: near a coin there is nothing to correct.

    >>> round(denoised(0.7, 0.1), 12), denoised(0.7, 0.5), denoised(0.7, None)
    (0.75, None, None)
    """
    if accuracy is None or noise is None or abs(1 - 2 * noise) < _NEAR_CHANCE:
        return None
    return (accuracy - noise) / (1 - 2 * noise)


def in_both_orders(votes: pl.DataFrame) -> pl.DataFrame:
    """What each sample (`VOTES` of one judge) says in both orders together: `item_id`, `verdict`.

    Win or loss where both orders say so; else null, as is a sample that lacks an order. (The released code means to
    leave such samples out, and counts them as chosen.)
    """
    signs = votes.select("item_id", "sample_index", sign=sign("verdict"))
    runs = signs.group_by("item_id", "sample_index").agg(pl.col("sign").sum())  # null counts as 0
    word = pl.col("sign").replace_strict({2: "win", -2: "loss"}, default=None, return_dtype=pl.String)
    return runs.select("item_id", verdict=word)


def towards_gold(one: pl.DataFrame, gold: pl.DataFrame) -> pl.DataFrame:
    """What one judge (`BY_JUDGE`) said where people prefer a reply: `item_id`, `shown_first`, `shown_second`.

    1: for the preferred reply, -1: against it, 0: tie, when it was shown in this place; null: nothing valid. `gold`
    has `item_id` and `gold`; its ties have no preferred reply and are left out.
    """
    first, second = sign("verdict_a_first"), sign("verdict_b_first")
    preferred = gold.filter(pl.col("gold").is_in(("win", "loss"))).select("item_id", "gold")
    said = one.join(preferred, on="item_id").with_columns(prefers_a=pl.col("gold") == "win")
    return said.select(
        "item_id",
        shown_first=pl.when("prefers_a").then(first).otherwise(-second),
        shown_second=pl.when("prefers_a").then(second).otherwise(-first),
    ).sort("item_id")


def accuracy(towards: pl.DataFrame, seed: int = 0) -> Accuracy:
    """How often one judge is right (`towards_gold`). Which order `random` takes follows from the seed and the item.

    (The released code draws in the order of rows, and counts each place over items that need not be valid in the
    other.)
    """
    valid = towards.drop_nulls()
    first, second = pl.col("shown_first"), pl.col("shown_second")
    drawn = [seed_for(seed, item, 0) < _HALF for item in valid.get_column("item_id")]
    takes_first = pl.Series("takes_first", drawn, dtype=pl.Boolean)
    shares = valid.with_columns(takes_first).select(
        both=(first + second > 0).mean(),
        random=(pl.when("takes_first").then(first).otherwise(second) > 0).mean(),
        shown_first=(first > 0).mean(),
        shown_second=(second > 0).mean(),
    )
    return Accuracy(valid.height, **shares.row(0, named=True))
