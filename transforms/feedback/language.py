"""Which conversations are English: what the source says, else function words and scripts."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import EDGE, load

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
    guessed = _guessed(_sample(conversations.get_column("messages").gather(open_rows)))
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


def _guessed(text: pl.Series) -> pl.Series:
    data = load("_languages")
    frame = (
        text.to_frame("text")
        .with_row_index("row")
        .with_columns(
            pl.col("text").str.count_matches(_words(data["function_words"]["en"])).alias("en"),
            pl.col("text").str.count_matches(r"[ \n]+").alias("gaps"),
        )
    )
    # One word in eight from the English list, and nothing but ASCII: no other language looks like that.
    plain = (pl.col("en") * 8 > pl.col("gaps")) & (
        pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()
    )
    unsure = frame.filter(~plain)
    codes = unsure.select(pl.coalesce(_script(data["scripts"]), _latin(data["function_words"]), pl.lit("en")))
    return pl.repeat("en", frame.height, eager=True, dtype=pl.String).scatter(
        unsure.get_column("row"), codes.to_series()
    )


def _words(words: str) -> str:
    return EDGE + "(?:" + "|".join(words.split()) + ")" + EDGE


def _script(scripts: dict[str, str]) -> pl.Expr:
    letters = pl.col("text").str.count_matches(r"\p{L}")
    found = [
        pl.when(pl.col("text").str.count_matches(f"[{letter}]") * 10 > letters * 3).then(pl.lit(code))
        for code, letter in scripts.items()
    ]
    return pl.coalesce(found)


def _latin(function_words: dict[str, str]) -> pl.Expr:
    counts = {
        code: pl.col("text").str.count_matches(
            rf"(?:^|[^\p{{L}}])(?:{'|'.join(words.split())})(?:$|[^\p{{L}}])"
        )
        for code, words in function_words.items()
        if code != "en"
    }
    best = pl.max_horizontal(counts.values())
    sure = (best >= 2) & (best > pl.col("en"))
    return pl.coalesce([pl.when(sure & (count == best)).then(pl.lit(code)) for code, count in counts.items()])
