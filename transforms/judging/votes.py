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
