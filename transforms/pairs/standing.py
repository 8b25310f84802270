"""What all feedback of a record says about each reply, whichever path of the record it was said on."""

from __future__ import annotations

import polars as pl

from tilth.schemas import PL_MESSAGES, content_ids
from tilth.schemas.ids import messages_key


def reply_keys(turns: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """`turns` (`conversation_id`, `index`, …) with `reply_key`, equal for one reply on several paths.

    A reply is the same when its record, its text and all that led to it are. Turns of unknown conversations
    are left out.
    """
    logged = conversations.unique("id", keep="first").select(
        "record_id", "messages", conversation_id="id", shared=pl.col("id").n_unique().over("record_id") > 1
    )
    joined = turns.join(
        logged.with_columns(
            pl.when("shared").then("messages").otherwise(pl.lit(None, PL_MESSAGES)).alias("messages")
        ),
        on="conversation_id",
    )
    lead = joined.with_columns(lead=pl.col("messages").list.head(pl.col("index") + 1)).drop("messages")
    own = pl.when(~pl.col("shared")).then("conversation_id")
    keys = content_ids(
        lead, "replies", [pl.col("record_id"), pl.col("index").cast(pl.String), own, messages_key("lead")]
    )
    return lead.with_columns(keys.alias("reply_key")).drop("lead", "record_id", "shared")


def opinions(feedback: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """`feedback` about replies with `index` (its target), `reply_key`, and if it is `praised` or `blamed`.

    `praised` and `blamed` count every signal of that polarity, however weak and by whatever method.
    """
    aimed = feedback.filter(pl.col("target_index").is_not_null()).with_columns(index="target_index")
    targets = reply_keys(aimed.select("conversation_id", "index").unique(), conversations)
    keyed = aimed.join(targets, on=["conversation_id", "index"])
    return keyed.with_columns(
        praised=(pl.col("polarity") == "positive").any().over("reply_key"),
        blamed=(pl.col("polarity") == "negative").any().over("reply_key"),
    )


def says(labels: tuple[str, ...]) -> pl.Expr:
    """Whether a feedback row bears any of `labels`."""
    return pl.col("labels").list.set_intersection(pl.lit(list(labels), pl.List(pl.String))).list.len() > 0


def worded() -> pl.Expr:
    """Whether a feedback row is something that a user said, found by rules or by a model."""
    return pl.col("method").is_in(("rules", "model"))


def thumbs() -> pl.Expr:
    """Whether a feedback row is a thumb: a rank or a score says nothing about a reply on its own."""
    return (pl.col("method") == "reaction") & says(("thumbs_up", "thumbs_down"))
