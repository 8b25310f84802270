"""Votes and verdicts as frames: what aggregation, agreement and reports work on, wherever the votes came from."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import BadInput

VOTES: Final = pl.Schema(
    {
        "item_id": pl.String,
        "judge": pl.String,
        "first": pl.Int32,  # which reply was shown first: 0 for a, 1 for b
        "sample_index": pl.Int32,
        "verdict": pl.String,  # win | loss | tie of reply a, or failed
        "score_a": pl.Float64,  # null where failed, and where the judge gives none
        "score_b": pl.Float64,
    }
)
BY_JUDGE: Final = pl.Schema(
    {
        "item_id": pl.String,
        "judge": pl.String,
        "verdict": pl.String,  # win | loss | tie | inconsistent | failed
        "score_a": pl.Float64,  # calibrated: the mean over both orders; null where not to be had
        "score_b": pl.Float64,
        "verdict_a_first": pl.String,  # win | loss | tie | failed; null where this order was not asked
        "verdict_b_first": pl.String,
        "wins": pl.Int32,  # votes
        "losses": pl.Int32,
        "ties": pl.Int32,
        "failed": pl.Int32,
    }
)
VERDICTS: Final = pl.Schema(
    {
        "item_id": pl.String,
        "verdict": pl.String,  # win | loss | tie | inconsistent | failed
        "score_a": pl.Float64,
        "score_b": pl.Float64,
        "margin": pl.Float64,  # score_a - score_b
        "conflict": pl.Boolean,  # whether some judge says otherwise in the other order; null where unknown
        "bpde": pl.Float64,  # entropy of the valid votes in nats, [0, ln 3]; null without any
        "wins": pl.Int32,
        "losses": pl.Int32,
        "ties": pl.Int32,
        "failed": pl.Int32,
        "needs_person": pl.Boolean,
    }
)

FACTS: Final = pl.Schema(
    {
        "item_id": pl.String,
        "gold": pl.String,  # win | loss | tie of reply a, by people; null where nobody said
        "chars_a": pl.Int64,  # length of the reply in characters; null where it is not known
        "chars_b": pl.Int64,
    }
)


def votes_of(judgments: pl.DataFrame) -> pl.DataFrame:
    """The pairwise rows of the table `judgments` as `VOTES`. Raises `BadInput` for a vote that stands there twice."""
    pairwise = judgments.filter(pl.col("kind") == "pairwise")
    votes = pairwise.select(
        "item_id",
        "judge",
        "sample_index",
        "verdict",
        first=pl.col("order").list.first(),
        score_a=pl.col("scores").list.get(0, null_on_oob=True),
        score_b=pl.col("scores").list.get(1, null_on_oob=True),
    ).select(pl.col(name).cast(kind) for name, kind in VOTES.items())
    keys = ["item_id", "judge", "first", "sample_index"]
    twice = votes.height - votes.select(keys).n_unique() if votes.height else 0
    if twice:
        raise BadInput("judgments", found=f"{twice} votes that stand there twice", wanted="each vote once")
    return votes


def checked(votes: pl.DataFrame) -> pl.DataFrame:
    """`votes` as `VOTES`, sorted by item, judge, order and sample: what follows does not depend on their order.

    Raises `BadInput`, with counts, for a vote that stands there twice, one without item, judge, order or sample, an
    unknown verdict, half a pair of scores, scores of a failed vote, and a verdict that its own scores contradict.
    """
    rows = votes.select(pl.col(name).cast(kind) for name, kind in VOTES.items())
    given, failed = pl.col("score_a").is_not_null(), pl.col("verdict") == "failed"
    difference = pl.col("score_a") - pl.col("score_b")
    defects = {
        "not named": pl.any_horizontal(pl.col(*_KEYS).is_null()),
        "shown first: neither 0 nor 1": ~pl.col("first").is_in((0, 1)),
        "of an unknown verdict": ~pl.col("verdict").is_in(_SIGNS).fill_null(value=False),
        "with half a pair of scores": given != pl.col("score_b").is_not_null(),
        "failed, and scored": failed & given,
        "with scores that are no numbers": ~difference.is_finite(),
        "with a verdict that its scores contradict": ~failed & (difference.sign() != sign("verdict")),
    }
    counts = rows.select(flag.fill_null(value=False).sum().alias(name) for name, flag in defects.items())
    found = {name: count for name, count in counts.row(0, named=True).items() if count}
    if twice := rows.height - rows.select(_KEYS).n_unique() if rows.height else 0:
        found["that stand there twice"] = twice
    if found:
        said = "; ".join(f"{count} {name}" for name, count in found.items())
        raise BadInput("votes of judges", found=said, wanted="each vote once, whole, in line with its scores")
    return rows.sort(_KEYS)


def sign(column: str) -> pl.Expr:
    """A verdict as a number: win 1, loss -1, tie 0; null for anything else."""
    return pl.col(column).replace_strict(_SIGNS, default=None, return_dtype=pl.Int8)


_KEYS: Final = ("item_id", "judge", "first", "sample_index")
_SIGNS: Final = {"win": 1, "loss": -1, "tie": 0, "failed": None}
