"""Thumbs that users put on replies, as feedback rows."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import polars_schema
from tilth.transforms.feedback.table import feedback_rows
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
    signals = votes.with_columns(
        target_index=pl.col("message_index"),
        labels=pl.concat_list("kind"),
        polarity=pl.col("kind").replace_strict(POLARITY, return_dtype=pl.String),
        strength=(1 - _ONE_VOTE ** pl.col("lead")).clip(upper_bound=0.99),
        evidence=pl.lit([], dtype=polars_schema("feedback")["evidence"]),
        on_refusal=pl.lit(value=False),
    )
    return feedback_rows(signals, conversations, "reaction")


def _votes(conversations: pl.DataFrame) -> pl.DataFrame:
    """The kind that won and its lead, per conversation and reply: row, message_index, kind, lead."""
    reaction = pl.element().struct
    wanted = reaction.field("kind").is_in(REACTIONS) & (reaction.field("value") > 0)
    reacted = conversations.select(pl.col("reactions").list.filter(wanted)).with_row_index("row")
    each = reacted.filter(pl.col("reactions").list.len() > 0).explode("reactions").unnest("reactions")
    signed = pl.when(pl.col("kind") == "thumbs_up").then(pl.col("value")).otherwise(-pl.col("value"))
    net = each.group_by("row", "message_index", maintain_order=True).agg(signed.sum().alias("net"))
    placed = net.with_columns(conversations.get_column("messages").gather(net.get_column("row")))
    role = pl.col("messages").list.get(pl.col("message_index"), null_on_oob=True).struct.field("role")
    votes = placed.filter((pl.col("net") != 0) & (pl.col("message_index") >= 0) & (role == "assistant"))
    kind = pl.when(pl.col("net") > 0).then(pl.lit("thumbs_up")).otherwise(pl.lit("thumbs_down"))
    return votes.select("row", "message_index", kind=kind, lead=pl.col("net").abs())
