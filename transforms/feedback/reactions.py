"""Thumbs that users put on replies, as feedback rows."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import empty, polars_schema
from tilth.transforms.feedback.mining import feedback_ids
from tilth.transforms.feedback.rules import VERSION
from tilth.transforms.feedback.taxonomy import POLARITY, REACTIONS

# One thumb is worth 1/2; n of them 1 - 2^-n: more votes make a surer label, none makes a certain one.
_ONE_VOTE: Final = 0.5


def observe_reactions(conversations: pl.DataFrame) -> pl.DataFrame:
    """One feedback row per reply that more users raised or lowered a thumb on than not.

    Reads id, record_id, messages, owned_from, split and reactions of kind thumbs_up and thumbs_down with a value
    above 0 (the number of votes). The majority is the polarity and its lead n is the strength, 1 - 2^-n; a tie says
    nothing and gives no row, as does a reaction on a turn that is not the assistant's. Ranks and scores compare
    siblings, which pairing does.

    Returns the columns of `mine(...).feedback`; message_index and target_index are the reply, evidence is empty.
    """
    votes = _votes(conversations)
    if votes.is_empty():
        return empty("feedback").with_columns(owned=pl.lit(value=True)).clear()
    rows = votes.with_columns(
        pl.lit(None, dtype=pl.String).alias("dialogue_state"),
        labels=pl.concat_list("kind"),
        polarity=pl.col("kind").replace_strict(POLARITY, return_dtype=pl.String),
        strength=(1 - _ONE_VOTE ** pl.col("lead")).clip(upper_bound=0.99),
        evidence=pl.lit([], dtype=polars_schema("feedback")["evidence"]),
        on_refusal=pl.lit(value=False),
        method=pl.lit("reaction"),
        method_version=pl.lit(VERSION),
        target_index=pl.col("message_index"),
        owned=pl.col("message_index") >= pl.col("owned_from"),
    )
    rows = rows.with_columns(feedback_ids(rows)).select(*polars_schema("feedback"), "owned")
    return rows.cast(dict(polars_schema("feedback"))).sort("conversation_id", "message_index")


def _votes(conversations: pl.DataFrame) -> pl.DataFrame:
    """The kind that won and its lead, per conversation and reply."""
    wanted = pl.element().struct.field("kind").is_in(REACTIONS) & (pl.element().struct.field("value") > 0)
    reacted = conversations.select("id", "reactions").with_row_index("row")
    reacted = reacted.with_columns(pl.col("reactions").list.filter(wanted)).filter(pl.col("reactions").list.len() > 0)
    each = reacted.explode("reactions").unnest("reactions")
    signed = pl.when(pl.col("kind") == "thumbs_up").then(pl.col("value")).otherwise(-pl.col("value"))
    net = each.group_by("row", "message_index", maintain_order=True).agg(signed.sum().alias("net"))
    of = conversations.select(pl.col("id").alias("conversation_id"), "record_id", "messages", "owned_from", "split")
    votes = pl.concat([net, of.select(pl.all().gather(net.get_column("row")))], how="horizontal")
    at = pl.col("messages").list.get(pl.col("message_index"), null_on_oob=True)
    kind = pl.when(pl.col("net") > 0).then(pl.lit("thumbs_up")).otherwise(pl.lit("thumbs_down"))
    return votes.filter(
        (pl.col("net") != 0) & (pl.col("message_index") >= 0) & (at.struct.field("role") == "assistant")
    ).with_columns(kind.alias("kind"), pl.col("net").abs().alias("lead"))
