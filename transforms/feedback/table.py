"""Rows of the table `feedback`."""

from __future__ import annotations

import polars as pl

from tilth.schemas import PL_MESSAGES, conform, content_ids, polars_schema
from tilth.schemas.ids import messages_key
from tilth.transforms.feedback.rules import VERSION


def feedback_rows(
    signals: pl.DataFrame, conversations: pl.DataFrame, method: str, version: str = VERSION
) -> pl.DataFrame:
    """Signals as rows of the table `feedback`, with a boolean `owned`, in the order of conversation, turn and polarity.

    Args:
        signals: columns of the table that the method fills, and `row`, the position in `conversations`.
        conversations: id, record_id, messages, owned_from and split are read.
        method: rules, reaction or model.
        version: of the method.
    """
    of = conversations.select("record_id", "messages", "owned_from", "split", conversation_id="id")
    rows = pl.concat([signals, of.select(pl.all().gather(signals.get_column("row")))], how="horizontal")
    rows = rows.with_columns(method=pl.lit(method), method_version=pl.lit(version))
    owned = (rows.get_column("message_index") >= rows.get_column("owned_from")).alias("owned")
    columns = [name for name in polars_schema("feedback") if name in rows.columns]
    table = conform(rows.select(columns).with_columns(_ids(rows)), "feedback").with_columns(owned)
    return table.sort("conversation_id", "message_index", "polarity", maintain_order=True)


def _ids(rows: pl.DataFrame) -> pl.Series:
    """Ids that do not depend on the path through a tree: the record, the turns up to the signal, what it says."""
    prefix = pl.col("messages").cast(PL_MESSAGES).list.head(pl.col("message_index") + 1)
    keys = [
        pl.col("record_id"),
        messages_key("prefix"),
        pl.col("target").cast(pl.String),
        pl.col("polarity"),
        pl.col("method"),
    ]
    said = rows.select("record_id", "polarity", "method", prefix.alias("prefix"), target="target_index")
    return content_ids(said, "feedback", keys)
