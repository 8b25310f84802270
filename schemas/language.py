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
    frame = (
        text.to_frame("text")
        .with_row_index("row")
        .with_columns(
            pl.col("text").str.count_matches(_words(function_words()["en"])).alias("en"),
            pl.col("text").str.count_matches(r"[ \n]+").alias("gaps"),
        )
    )
    ascii_only = pl.col("text").str.len_bytes() == pl.col("text").str.len_chars()
    # One word in eight from the English list, and nothing but ASCII: no other language looks like that.
    plain = (pl.col("en") * 8 > pl.col("gaps")) & ascii_only
    unsure = frame.filter(~plain.fill_null(False))
    other = unsure.filter(~ascii_only)  # no other script is written in ASCII
    codes = frame.select(pl.when(plain).then(pl.lit("en"))).to_series()
    for found in (_latin(unsure), other.select("row", code=_script())):
        found = found.drop_nulls("code")
        codes = codes.scatter(found.get_column("row"), found.get_column("code"))
    return codes.alias("language")


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


def _latin(unsure: pl.DataFrame) -> pl.DataFrame:
    """The `code` of the language whose function words are most for each `row`; null where there are too few."""
    # Every character that is no letter becomes one space: words are found without Unicode tables, ten times faster.
    spaced = pl.concat_str(pl.lit(" "), pl.col("text").str.replace_all(r"[^\p{L}]", " "), pl.lit(" "))
    others = {code: words.split() for code, words in function_words().items() if code != "en"}
    patterns = {
        code: " (?:" + "|".join(word.replace("'", " ") for word in words) + ") "
        for code, words in others.items()
    }
    texts = unsure.select("row", "en", spaced.alias("spaced"))
    counts = texts.select(
        "row",
        "en",
        *(pl.col("spaced").str.count_matches(words).alias(code) for code, words in patterns.items()),
    ).with_columns(pl.max_horizontal(*patterns).alias("best"))
    sure = (pl.col("best") >= _SURE) & (pl.col("best") > pl.col("en"))
    named = [pl.when(sure & (pl.col(code) == pl.col("best"))).then(pl.lit(code)) for code in patterns]
    english = pl.when(pl.col("en") >= _SURE).then(pl.lit("en"))
    return counts.select("row", pl.coalesce(*named, english).alias("code"))
