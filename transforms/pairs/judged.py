"""Pairs that judges decided: a comparison becomes a pair only when the panel prefers the side meant to be better.

Source: WildFeedback (arXiv 2408.15549, section 3), which keeps a pair of a policy's own replies when a checklist judge
prefers the chosen side. We hold every pair to it, those of the expert too, and in both orders.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import Reason
from tilth.transforms.pairs.candidates import Objection, Ruled, rule_pairs

_VERDICTS: Final = {
    "loss": (Reason.JUDGES_PREFER_REJECTED, "the judges prefer the other side"),
    "tie": (Reason.JUDGES_TIED, "the judges see no difference"),
    "inconsistent": (Reason.JUDGES_INCONSISTENT, "the judges contradict each other, or themselves"),
}


def judged_pairs(comparisons: pl.DataFrame, verdicts: pl.DataFrame, judgments: pl.DataFrame) -> Ruled:
    """Comparisons that were won, as rows of `pairs`; every other one with the reason it is none. Joined by item alone.

    Args:
        comparisons: `COMPARISONS` of `tilth.transforms.responses.comparisons`.
        verdicts: `VERDICTS` of their items, in which the first side is the one that may become chosen; an item without
            one has failed.
        judgments: rows of the table; those of an item become the pair's `judgment_ids`.
    """
    named = judgments.group_by("item_id").agg(judgment_ids=pl.col("id").sort())
    said = verdicts.select("item_id", "verdict", "score_a", "score_b")
    rows = comparisons.join(said, on="item_id", how="left", maintain_order="left")
    rows = rows.join(named, on="item_id", how="left", maintain_order="left").with_columns(
        verdict=pl.col("verdict").fill_null("failed"),
        chosen_score="score_a",
        rejected_score="score_b",
        method=pl.lit("model"),
    )
    return rule_pairs(rows, _objections())


def _objections() -> list[Objection]:
    verdict = pl.col("verdict")
    told = [Objection(verdict == name, reason, detail) for name, (reason, detail) in _VERDICTS.items()]
    flagged = pl.col("flags").list.len().fill_null(0) > 0
    flags = pl.format("flagged: {}", pl.col("flags").list.join(", "))
    # Whatever is no win is none: a verdict that this list does not know is a failure, not a pair.
    failed = Objection(verdict != "win", Reason.JUDGES_FAILED, "the judges came to no verdict")
    return [Objection(flagged, Reason.MODERATED, flags), *told, failed]
