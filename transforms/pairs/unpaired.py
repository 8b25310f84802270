"""Replies with a clear yes or no: unpaired labels, for KTO (arXiv 2402.01306) and BCO (arXiv 2404.04656)."""

from __future__ import annotations

import polars as pl

from tilth.schemas import Reason
from tilth.transforms.pairs.candidates import Objection, Ruled, replies, rule_unpaired
from tilth.transforms.pairs.policy import PairPolicy
from tilth.transforms.pairs.standing import opinions, says, thumbs, worded


def unpaired_labels(conversations: pl.DataFrame, feedback: pl.DataFrame, policy: PairPolicy) -> Ruled:
    """One label per reply with clear feedback; `weight` is the strength of the clearest signal.

    True needs clear satisfaction in words or a thumb up; false a complaint that judges the reply
    (`policy.complaint_labels`: UR2 and UR3 only, as Naturally Occurring Feedback, arXiv 2407.10944, trains
    KTO) or a thumb down. Dropped: `contradictory` when there is any signal of the other polarity about the
    reply, however weak, on any path of its record; `correct_refusal` when what looks like a correct refusal
    is blamed. A reply that several paths share is labelled once, in the conversation that owns it.

    Args:
        conversations: rows of the table, every conversation of a record among them.
        feedback: rows of the table and `owned`, with the same signal on every path that holds it.
        policy: the thresholds.
    """
    clear = opinions(feedback, conversations).filter(_clear(policy))
    rows = replies(_labels(clear), conversations)
    refused, opposed = "the complaint is about what looks like a refusal", "there is praise and blame"
    objections = [
        Objection(pl.col("contradictory"), Reason.CONTRADICTORY, opposed),
        Objection(pl.col("refused"), Reason.CORRECT_REFUSAL, refused),
    ]
    return rule_unpaired(rows.rename({"reply": "completion"}), objections)


def _clear(policy: PairPolicy) -> pl.Expr:
    positive, strength = pl.col("polarity") == "positive", pl.col("strength")
    praise = positive & says(policy.satisfied_labels) & (strength >= policy.min_positive)
    complaint = ~positive & says(policy.complaint_labels) & (strength >= policy.min_negative)
    return (worded() & (praise | complaint)) | (thumbs() & (strength >= policy.min_reaction))


def _labels(clear: pl.DataFrame) -> pl.DataFrame:
    """One row per reply, with all its clear signals, in the conversation that owns the first of them."""
    ordered = clear.sort(~pl.col("owned").fill_null(False), "conversation_id", "id")
    return ordered.group_by("reply_key").agg(
        pl.col("conversation_id", "index").first(),
        label=(pl.col("polarity") == "positive").all(),
        contradictory=(pl.col("praised") & pl.col("blamed")).any(),
        refused=(pl.col("on_refusal").fill_null(False) & (pl.col("polarity") == "negative")).any(),
        weight=pl.col("strength").max(),
        feedback_ids=pl.col("id").unique().sort(),
        method=pl.col("method").max(),  # "rules" where words are among the signals
    )
