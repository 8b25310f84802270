"""Complaints about replies that rightly refused: flagged, so that a refusal is never punished for being one.

WildFB's card calls it refusal validation (THU-KEG/WildFB). Here a flag is raised by the rules or by the model, and no
flag is ever taken back: a mistake costs a label, the other mistake would teach a model to comply.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.mining import on_refusal
from tilth.transforms.feedback.patterns import context
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.speech import spoken
from tilth.transforms.feedback.turns import ends

_ROLE: Final = pl.element().struct.field("role")
_CONTENT: Final = pl.element().struct.field("content")


def flagged(
    feedback: pl.DataFrame,
    conversations: pl.DataFrame,
    rules: FeedbackRules = FeedbackRules(),  # noqa: B008  (frozen)
) -> pl.DataFrame:
    """`feedback` with `on_refusal` true wherever anybody has reason to think so, in the same order.

    A complaint is flagged when its row says so, when the rules find that its reply rightly refused (whatever method
    found the complaint; English only), when another complaint about the same reply is flagged, or when the same signal
    is flagged on another path of its tree. Praise is never flagged. Twice is the same as once.

    Args:
        feedback: rows of the table, any columns besides.
        conversations: id and messages are read; those of the feedback among them.
        rules: how long texts are read.
    """
    said = pl.Series("found", _found(feedback, conversations, rules), dtype=pl.Boolean)
    complaint = pl.col("polarity") == "negative"
    flag = ((pl.col("on_refusal").fill_null(False) | pl.col("found")) & complaint).alias("on_refusal")
    rows = feedback.with_columns(said).with_columns(flag)
    count = -1
    while count != (
        count := int(rows.get_column("on_refusal").sum())
    ):  # from reply to signal to reply of a tree
        rows = rows.with_columns(
            pl.col("on_refusal").any().over("conversation_id", "target_index") & complaint
        )
        rows = rows.with_columns(pl.col("on_refusal").any().over("id") & complaint)
    return rows.select(feedback.columns)


def _found(feedback: pl.DataFrame, conversations: pl.DataFrame, rules: FeedbackRules) -> pl.Series:
    """Whether the rules see a rightly refused request behind each row; the rows of the rules have been looked at."""
    asked = feedback.with_row_index("at").filter(
        pl.col("polarity") == "negative", pl.col("method") != "rules", ~pl.col("on_refusal").fill_null(False)
    )
    exchanges = _exchanges(asked, conversations)
    told = exchanges.with_columns(
        spoken(exchanges.get_column("content"), rules), ends(pl.col("reply")).alias("ends")
    ).with_columns(pl.col("ends").str.contains(context()["refused"]).alias("refused"))
    hits = told.with_columns(on_refusal()).filter("on_refusal").get_column("at")
    return pl.repeat(False, feedback.height, eager=True, dtype=pl.Boolean).scatter(hits, True)


def _exchanges(asked: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """`content` of the turn, the `reply` it is about and the `request` before that; null contents are empty."""
    logged = conversations.select("messages", conversation_id="id").unique("conversation_id", keep="first")
    rows = asked.select("at", "conversation_id", "message_index", "target_index", "polarity")
    rows = rows.join(logged, on="conversation_id", how="inner")
    before = pl.col("messages").list.head(pl.col("target_index"))
    users = before.list.eval(pl.when(_ROLE == "user").then(_CONTENT)).list.drop_nulls()
    request = users.list.last().fill_null("").alias("request")
    return rows.select(
        "at", "polarity", _said("message_index", "content"), _said("target_index", "reply"), request
    )


def _said(place: str, name: str) -> pl.Expr:
    message = pl.col("messages").list.get(pl.col(place), null_on_oob=True)
    return message.struct.field("content").fill_null("").alias(name)
