"""Which conversations are English: what the source says, else function words and scripts."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas.language import guess

_SAMPLE: Final = 1000  # characters of a conversation's user turns that are looked at
_UNSAID: Final = ("", "und", "unknown", "nolang", "none", "null", "mul", "xx", "zxx", "n/a")


def languages(conversations: pl.DataFrame) -> pl.Series:
    """A language code per conversation; "en" for English and for short Latin text that shows no other language.

    A source's own `language` is believed ("English", "en-GB", "en" are all "en"; anything else is passed on as it
    stands, lower case). Elsewhere the user turns decide: the script, then the count of function words of thirteen
    languages. Heuristic: a text with fewer than two function words of its language counts as English.
    """
    stated = conversations.get_column("language").cast(pl.String).str.strip_chars().str.to_lowercase()
    frame = pl.DataFrame({"code": stated}).with_columns(_normal("code").alias("code")).with_row_index("row")
    open_rows = frame.filter(pl.col("code").is_null()).get_column("row")
    if open_rows.is_empty():
        return frame.get_column("code").alias("language")
    guessed = guess(_sample(conversations.get_column("messages").gather(open_rows))).fill_null("en")
    return frame.get_column("code").scatter(open_rows, guessed).alias("language")


def _normal(column: str) -> pl.Expr:
    code = pl.col(column)
    english = code.str.contains(r"^(?:en|eng|english)(?:[-_ (].*)?$")
    return pl.when(code.is_in(_UNSAID)).then(None).when(english).then(pl.lit("en")).otherwise(code)


def _sample(messages: pl.Series) -> pl.Series:
    said = pl.when(pl.element().struct.field("role") == "user").then(
        pl.element().struct.field("content").str.head(_SAMPLE)
    )
    joined = pl.col("messages").list.eval(said).list.join(" ", ignore_nulls=True).str.head(_SAMPLE)
    return messages.to_frame("messages").select(joined.str.to_lowercase().alias("text")).to_series()
