"""Pairs of a tournament: every match with a winner is a preference (Varco Arena, arXiv 2411.01281)."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import Reason
from tilth.schemas.contracts import TOURNAMENT
from tilth.transforms.judging.bracket import Bracket
from tilth.transforms.pairs.candidates import Objection, Ruled, rule_pairs
from tilth.transforms.pairs.rated import sides

_WHY: Final = {
    "tie": (Reason.JUDGES_TIED, "the judges see no difference; the lot decided who plays on"),
    "inconsistent": (Reason.JUDGES_INCONSISTENT, "the judges contradict each other, or themselves"),
    "failed": (Reason.JUDGES_FAILED, "the judges came to no verdict"),
}


def won_pairs(bracket: Bracket, responses: pl.DataFrame) -> Ruled:
    """The winner of each match over its loser, as rows of `pairs`; matches without a winner are set aside.

    Args:
        bracket: all rounds played.
        responses: rows of the table, of those who took part.
    """
    matches = bracket.results.join(bracket.verdicts.drop("verdict"), on="match_id", how="left")
    first = pl.col("winner_id").ne_missing(
        pl.col("second_id")
    )  # without a winner the sides stand as they were drawn

    def side(of_first: str, of_second: str) -> pl.Expr:
        return pl.when(first).then(of_first).otherwise(of_second)

    choices = matches.select(
        "verdict",
        won_by="judgment_ids",
        chosen_id=side("first_id", "second_id"),
        rejected_id=side("second_id", "first_id"),
        chosen_score=side("first_score", "second_score"),
        rejected_score=side("second_score", "first_score"),
    )
    replies = responses.rename({"id": "response_id"}).with_columns(
        judgment_ids=pl.lit([], pl.List(pl.String))
    )
    rows = sides(choices, replies, TOURNAMENT).with_columns(
        judgment_ids=pl.col("won_by"), settled=pl.col("verdict").is_in(("win", "loss"))
    )
    return rule_pairs(
        rows.with_columns(verdict=pl.when("settled").then(pl.lit("win")).otherwise("verdict")), _objections()
    )


def _objections() -> list[Objection]:
    verdict = pl.col("verdict")
    named = [Objection(verdict == name, reason, detail) for name, (reason, detail) in _WHY.items()]
    return [*named, Objection(verdict != "win", Reason.JUDGES_FAILED, "no verdict that is known")]
