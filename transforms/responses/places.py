"""Where replies of models are wanted: the place of a criticised reply, what leads to it, what the user wants of it."""

from __future__ import annotations

import polars as pl

from tilth.schemas import content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.pairs import replies


def places(preferences: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """`PLACES` with `feedback_ids`, the logged `reply` and its `model`, `calls_tools` and `tool_calls_json`.

    One row for each of `preferences` (rows of the table), joined by conversation and turn. Raises `ValueError` when the
    conversation of some preference is not among `conversations`, or the turn there is not the assistant's.
    """
    wanted = preferences.select(
        "conversation_id", "preferences", "feedback_ids", index="target_index", said_prompt="prompt_id"
    )
    found = replies(wanted, conversations).with_columns(target_index=pl.col("index").cast(pl.Int32))
    named = found.with_columns(content_ids(found, "prompts", [messages_key("prompt")]).alias("prompt_id"))
    if (
        named.height != preferences.height
        or (named.get_column("prompt_id") != named.get_column("said_prompt")).any()
    ):
        raise ValueError("preferences came without their conversations")
    return named.drop("index", "said_prompt").sort("conversation_id", "target_index")


def answerable(places: pl.DataFrame) -> pl.DataFrame:
    """Those where a model can be asked: without tools in what leads there, whose definitions are not known."""
    tools = pl.col("prompt").list.eval(pl.element().struct.field("role") == "tool").list.any()
    return places.filter(pl.col("tool_calls_json").is_null() & ~tools & ~pl.col("calls_tools"))


def mean_chars(conversations: pl.DataFrame) -> int:
    """The text of one conversation in characters, on average; 0 without any."""
    chars = pl.col("messages").list.eval(pl.element().struct.field("content").str.len_chars()).list.sum()
    mean = conversations.select(chars.mean()).item()
    return round(mean or 0)
