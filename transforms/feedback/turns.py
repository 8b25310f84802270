"""The user turns that can be feedback: those with a reply of the assistant before them, and what stands around them."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import context
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.similarity import repeated
from tilth.transforms.feedback.speech import spoken

_REPLY_EDGE: Final = 400  # what a reply does (ask, fail, refuse, apologise) shows at its ends


def user_turns(conversations: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    """One row per user turn that follows a reply with text, in order, numbered by `turn`.

    Columns: `row` (position of the conversation in the frame), `message_index`, `target_index` (the last assistant
    turn with text before it), `content`, `spoken`, `request` (the last user turn before the target), `words`, `ends`
    (the reply's head and tail in lower case), `similar` and `repeats` (see `similarity`), and the facts about the
    exchange named in `patterns.CONTEXTS`.
    """
    placed = _placed(conversations)
    turns = _with_text(placed).with_row_index("turn")
    turns = turns.with_columns(spoken(turns.get_column("content"), rules), *repeated(placed, turns, rules))
    return (
        turns.with_columns(ends(pl.col("reply")).alias("ends")).with_columns(_facts()).drop("reply", "answer")
    )


def _placed(conversations: pl.DataFrame) -> pl.DataFrame:
    """Every message with its place and the places of the reply, the request and the answer around it."""
    length = pl.col("messages").list.len()
    listed = conversations.select("messages").with_row_index("row").filter(length > 0)
    listed = listed.with_columns(pl.int_ranges(0, length).alias("message_index"), length.alias("n"))
    flat = listed.explode("messages", "message_index").unnest("messages").with_row_index("at")
    flat = flat.with_columns(pl.col("at").cast(pl.Int64), pl.col("content").fill_null(""))
    says = (pl.col("content").str.len_bytes() > 0) & pl.col("content").str.contains(r"[^\s]")
    first, last = (
        pl.col("at") - pl.col("message_index"),
        pl.col("at") - pl.col("message_index") + pl.col("n") - 1,
    )
    reply = pl.when((pl.col("role") == "assistant") & says).then(pl.col("at"))
    asked = pl.when((pl.col("role") == "user") & says).then(pl.col("at"))
    flat = flat.with_columns(
        reply.forward_fill().alias("reply_at"),
        reply.shift(-1).backward_fill().alias("answer_at"),
        asked.forward_fill().alias("asked_at"),
        first.alias("first"),
        last.alias("last"),
    )
    return flat.with_columns(_within("reply_at"), _within("answer_at"))


def _within(column: str) -> pl.Expr:
    return (
        pl.when(pl.col(column).is_between(pl.col("first"), pl.col("last"))).then(pl.col(column)).alias(column)
    )


def _with_text(flat: pl.DataFrame) -> pl.DataFrame:
    content = flat.get_column("content")
    chosen = flat.filter((pl.col("role") == "user") & pl.col("reply_at").is_not_null())
    asked_at = flat.get_column("asked_at").gather(chosen.get_column("reply_at"))
    asked_at = asked_at.set(asked_at < chosen.get_column("first"), None)
    return chosen.select(
        "row",
        pl.col("message_index").cast(pl.Int32),
        (pl.col("reply_at") - pl.col("first")).cast(pl.Int32).alias("target_index"),
        "content",
        content.gather(chosen.get_column("reply_at")).alias("reply"),
        content.gather(chosen.get_column("answer_at"))
        .fill_null("")
        .str.head(160)
        .str.to_lowercase()
        .alias("answer"),
        content.gather(asked_at).fill_null("").alias("request"),
        (pl.col("content").str.count_matches(r"[ \n\t]+") + 1).alias("words"),
    )


def _facts() -> list[pl.Expr]:
    found = context()
    text = pl.col("ends")
    named = ("asked", "failed", "refused", "suggested", "offered", "confirming", "lost", "invited")
    return [
        *(text.str.contains(found[name]).alias(name) for name in named),
        pl.col("answer").str.contains(found["apologised"]).alias("apologised"),
        pl.col("reply").str.contains(found["code"]).alias("code"),
    ]


def ends(reply: pl.Expr) -> pl.Expr:
    """The reply in lower case; of a long one the head and the tail."""
    cut = pl.concat_str(reply.str.head(_REPLY_EDGE), pl.lit("\n"), reply.str.tail(_REPLY_EDGE))
    short = reply.str.len_bytes() <= 2 * _REPLY_EDGE
    return (
        pl.when(short).then(reply).otherwise(cut).str.to_lowercase().str.replace_all("’", "'", literal=True)
    )
