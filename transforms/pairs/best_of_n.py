"""The best against the worst of n samples of one prompt, by one scorer or by several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.transforms.pairs.candidates import Objection, Ruled, rule_pairs
from tilth.transforms.pairs.rated import GROUP, distinct, sides, without_pair

Combine = Literal["mean", "vote"]
SCORES: Final = pl.Schema({"response_id": pl.String, "scorer": pl.String, "score": pl.Float64})
_SLACK: Final = 1e-9
_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class BestOfN:
    """Guards and choices of best against worst.

    Args:
        combine: several scorers: `mean` of their z-scores within the prompt, or `vote` of each for its best and its
            worst, of which one reply must have the most (where all disagree open-instruct draws; here is no pair).
        min_gap: smallest difference of scores (of z-scores with several scorers) that is a preference; it must be
            above 0 in any case.
        max_length_ratio: a pair whose longer side has more than so many times the characters of the shorter is set
            aside; null for no limit.
    """

    combine: Combine = "mean"
    min_gap: float = 0.0
    max_length_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.combine not in ("mean", "vote"):
            raise ConfigError("how scorers are combined", found=self.combine, wanted="mean or vote")
        if not 0 <= self.min_gap < float("inf") or (self.max_length_ratio or 1.0) < 1:
            found = f"min_gap={self.min_gap}, max_length_ratio={self.max_length_ratio}"
            raise ConfigError("the guards of best-of-n pairs", found=found, wanted="0 or more; 1 or more")


def best_of_n_pairs(
    ratings: pl.DataFrame, policy: BestOfN, scores: pl.DataFrame | None = None, origin: str = "best_of_n"
) -> Ruled:
    """Rows of `pairs` of one origin, at most one a prompt; a prompt without is one row of `quarantine`.

    Replies of one prompt and conversation are compared; equal texts (case and white space aside) are one reply, scored
    with their mean. A reply that lacks the score of some scorer takes no part.

    Args:
        ratings: rows of the table: the replies, with the judgments that stand behind them.
        policy: guards and choices.
        scores: `SCORES` of these replies; without it, the ratings are the scores.
        origin: what the pairs are called.
    """
    replies = distinct(ratings)
    given = (
        ratings.select("response_id", scorer=pl.lit("rating"), score="rating") if scores is None else scores
    )
    copies = replies.select(*GROUP, one="response_id", response_id="copies").explode("response_id")
    merged = (
        copies.join(given, on="response_id")
        .sort("response_id", "scorer")
        .group_by(*GROUP, "scorer", response_id="one", maintain_order=True)
        .agg(pl.col("score").mean())
    )
    choices = best_and_worst(merged, policy.combine, GROUP)
    ruled = rule_pairs(sides(choices.drop(GROUP), replies, origin), _objections(policy))
    left = without_pair(ratings, choices, Reason.JUDGES_FAILED)
    return Ruled(ruled.kept, pl.concat([ruled.dropped, left]))


def _objections(policy: BestOfN) -> list[Objection]:
    gap, long = pl.col("chosen_score") - pl.col("rejected_score"), _length_ratio()
    return [
        Objection(~pl.col("agreed"), Reason.JUDGES_INCONSISTENT, "no reply has most of the scorers' votes"),
        Objection(
            gap < policy.min_gap - _SLACK,
            Reason.TIE,
            pl.format("a gap of {} is none by policy", gap.round(6)),
        ),
        Objection(
            long > (policy.max_length_ratio or float("inf")),
            Reason.NO_CANDIDATE,
            pl.format("one side is {} times as long as the other", long.round(2)),
        ),
    ]


def best_and_worst(
    scores: pl.DataFrame, combine: Combine = "mean", by: Sequence[str] = ("prompt_id",)
) -> pl.DataFrame:
    """The best and the worst reply of each prompt with at least two: `by`, `chosen_id`, `rejected_id`, their scores.

    With one scorer its scores decide and are the scores; with several, as `BestOfN` says, and the scores are means of
    z-scores (of the population; all 0 where a scorer finds no difference). Replies without a finite score of every
    scorer are left out. Of equal ones, the smallest id is the best and the largest the worst: where all are equal, the
    margin is 0 and the row is a tie, not a pair. `agreed` is whether votes single out one best and one worst.

    Args:
        scores: `by`, `response_id`, `scorer`, `score`, each scorer once a reply.
        combine: for several scorers.
        by: the columns that name a prompt.
    """
    scorers = scores.get_column("scorer").n_unique()
    known = scores.filter(pl.col("score").is_finite()).sort(*by, "response_id", "scorer")
    full = known.filter(pl.col("scorer").n_unique().over(*by, "response_id") == scorers)
    group = [*by, "scorer"]
    rows = _standing(full, group, single=scorers == 1)
    replies = rows.group_by(*by, "response_id", maintain_order=True).agg(
        pl.col("score").mean().round(_DIGITS), pl.col("best", "worst").sum().round(_DIGITS)
    )
    several = replies.filter(pl.len().over(by) > 1)
    keys = {"mean": (pl.col("score"), -pl.col("score")), "vote": (pl.col("best"), pl.col("worst"))}[combine]
    chosen, rejected = (_top(several, by, key, last) for key, last in zip(keys, (False, True), strict=True))
    both = chosen.join(rejected, on=by, suffix="_other")
    agreed = pl.lit(value=True) if combine == "mean" else pl.col("alone") & pl.col("alone_other")
    return both.select(
        *by,
        chosen_id="response_id",
        rejected_id="response_id_other",
        chosen_score="score",
        rejected_score="score_other",
        agreed=agreed,
    ).sort(by)


def _standing(rows: pl.DataFrame, group: list[str], *, single: bool) -> pl.DataFrame:
    """Each score, as a z-score unless it stands alone, with the part of its scorer's two votes that it gets."""
    score = pl.col("score")
    best, worst = score == score.max().over(group), score == score.min().over(group)
    centred = (score - score.mean().over(group)) / score.std(ddof=0).over(group)
    z = pl.when(best & worst).then(0.0).otherwise(centred)
    return rows.with_columns(
        score=score if single else z,
        best=best / best.sum().over(group),
        worst=worst / worst.sum().over(group),
    )


def _top(rows: pl.DataFrame, by: Sequence[str], key: pl.Expr, last: bool) -> pl.DataFrame:
    """The row of each prompt with the largest `key`, and whether it stands `alone` there."""
    marked = rows.with_columns(key=key, alone=(key == key.max().over(by)).sum().over(by) == 1)
    ordered = marked.sort("key", "response_id", descending=[True, last])
    return ordered.unique(by, keep="first", maintain_order=True).drop("key")


def _length_ratio() -> pl.Expr:
    one, other = (
        pl.col(side).list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
        for side in ("chosen", "rejected")
    )
    return pl.max_horizontal(one, other) / pl.min_horizontal(one, other)
