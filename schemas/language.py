"""Which language a text is in, by its script, else by function words. Heuristic: what shows no language is null."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import polars as pl

EDGE: Final = r"(?-u:\b)"  # the Unicode word edge would take the slow path on any text that is not ASCII
_SURE: Final = 2  # function words of a language that a text shows before it counts as that language


def guess(text: pl.Series) -> pl.Series:
    """A language code per text (lower case); null for one without letters of a known script or two function words."""
    words = function_words()
    frame = (
        text.to_frame("text")
        .with_row_index("row")
        .with_columns(
            pl.col("text").str.count_matches(_words(words["en"])).alias("en"),
            pl.col("text").str.count_matches(r"[ \n]+").alias("gaps"),
        )
    )
    # One word in eight from the English list, and nothing but ASCII: no other language looks like that.
    plain = (pl.col("en") * 8 > pl.col("gaps")) & (
        pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()
    )
    english = pl.when(pl.col("en") >= _SURE).then(pl.lit("en"))
    unsure = frame.filter(~plain.fill_null(False))
    codes = unsure.select(pl.coalesce(_script(), _latin(words), english)).to_series()
    return (
        frame.select(pl.when(plain).then(pl.lit("en")).alias("language"))
        .to_series()
        .scatter(unsure.get_column("row"), codes)
    )


def function_words() -> Mapping[str, str]:
    """The most frequent words of thirteen languages by code, separated by spaces."""
    return _data()["function_words"]


@cache
def _data() -> Any:  # Any: what a YAML file holds
    import yaml

    return yaml.safe_load(files("tilth.schemas").joinpath("languages.yaml").read_text(encoding="utf-8"))


def _words(words: str) -> str:
    return EDGE + "(?:" + "|".join(words.split()) + ")" + EDGE


def _script() -> pl.Expr:
    letters = pl.col("text").str.count_matches(r"\p{L}")
    found = [
        pl.when(pl.col("text").str.count_matches(f"[{letter}]") * 10 > letters * 3).then(pl.lit(code))
        for code, letter in _data()["scripts"].items()
    ]
    return pl.coalesce(found)


def _latin(function_words: Mapping[str, str]) -> pl.Expr:
    counts = {
        code: pl.col("text").str.count_matches(
            rf"(?:^|[^\p{{L}}])(?:{'|'.join(words.split())})(?:$|[^\p{{L}}])"
        )
        for code, words in function_words.items()
        if code != "en"
    }
    best = pl.max_horizontal(counts.values())
    sure = (best >= _SURE) & (best > pl.col("en"))
    return pl.coalesce([pl.when(sure & (count == best)).then(pl.lit(code)) for code, count in counts.items()])
