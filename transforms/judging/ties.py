"""How well scores pick the right reply: RewardBench 2 (arXiv 2506.01937), its fractional credit and its Ties score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import polars as pl

from tilth.transforms.judging.rewards import finite, once

_KEY: Final = ["item_id", "response_id"]


def item_credits(scores: pl.DataFrame) -> pl.DataFrame:
    """`item_id`, `credit` in [0, 1]: the share of correct replies among those with the highest score.

    1 where the one correct reply is strictly on top, 1/k where it shares the top with k - 1 wrong ones, else 0. Null
    where some reply of the item has no score: a judge that failed has neither won nor lost.

    Args:
        scores: `item_id`, `response_id`, `score`, `correct`.
    """
    rows = once(scores.select(*_KEY, "correct", score=finite("score")), _KEY)
    score, correct = pl.col("score"), pl.col("correct")
    share = correct.filter(score == score.max()).mean()
    whole = score.is_not_null().all()
    return rows.group_by("item_id").agg(credit=pl.when(whole).then(share)).sort("item_id")


@dataclass(frozen=True, slots=True)
class TiesScore:
    """The Ties score and its parts; each part is a mean over prompts in [0, 1], but `margin` in [-1, 1].

    `total` reaches 1.01. NaN without any prompt that has both kinds of items.
    """

    accuracy_tied: float
    accuracy_reference: float
    tied_gap_over_spread: float
    least_gap_over_spread: float
    margin: float
    prompts: int
    incomplete: int  # prompts left out because a score or one kind of item is missing

    @property
    def total(self) -> float:
        """The weighted sum of the parts, as RewardBench 2 weighs them."""
        accuracy = 0.3 * self.accuracy_tied + 0.3 * self.accuracy_reference
        order = 0.2 * self.tied_gap_over_spread + 0.2 * self.least_gap_over_spread
        return accuracy + order + 0.01 * self.margin


def ties_score(scores: pl.DataFrame) -> TiesScore:
    """The Ties score: are all correct replies above all wrong ones, and nearer to each other than to these?

    Comparisons are strict. A margin over no spread is +1 or -1, and 0 where the gap is 0 too. Unlike the released code,
    all five parts are means over the same prompts: those with both kinds of items and every score.

    Args:
        scores: `prompt_id`, `kind` (`tied`: many correct replies; `ref`: the same question with one), `response_id`,
            `score`, `correct`.
    """
    rows = scores.select("prompt_id", "kind", "response_id", "correct", score=finite("score"))
    items = _items(once(rows, ["prompt_id", "kind", "response_id"]))
    tied, ref = (items.filter(pl.col("kind") == kind).drop("kind") for kind in ("tied", "ref"))
    both = tied.join(ref, on="prompt_id", suffix="_ref").drop_nulls()
    seen = scores.get_column("prompt_id").n_unique()
    measured = both.select(**_parts()).mean().row(0, named=True)
    known = {name: math.nan if value is None else float(value) for name, value in measured.items()}
    return TiesScore(**known, prompts=both.height, incomplete=seen - both.height)


def _items(rows: pl.DataFrame) -> pl.DataFrame:
    """`gap` between the lowest correct and the highest wrong reply, `spread` of the correct; null if unknown."""
    score, correct = pl.col("score"), pl.col("correct")
    right, wrong = score.filter(correct), score.filter(~correct)
    known = score.is_not_null().all() & correct.is_not_null().all()
    return rows.group_by("prompt_id", "kind").agg(
        gap=pl.when(known).then(right.min() - wrong.max()),
        spread=pl.when(known).then(right.max() - right.min()),
    )


def _parts() -> dict[str, pl.Expr]:
    gap, spread = pl.col("gap"), pl.col("spread")
    least = pl.min_horizontal("gap", "gap_ref")
    # x / 0 is infinite and its tanh is 1; 0 / 0 is NaN and counts as 0.
    margin = (least / spread - 1).tanh().fill_nan(0.0)
    return {
        "accuracy_tied": gap > 0,
        "accuracy_reference": pl.col("gap_ref") > 0,
        "tied_gap_over_spread": gap > spread,
        "least_gap_over_spread": least > spread,
        "margin": margin,
    }
