"""How much a user asked for after a reply that it could not know: the lexical guard against unfair pairs.

Source: User Feedback in Human-LLM Dialogues (arXiv 2507.23158), which finds that feedback often adds
constraints, so that a later reply answers another question than the earlier one. The paper leaves the finding
to a reader; we count words, which needs no model and can be wrong both ways: `PairPolicy.max_new_words` and
`max_new_share` set the balance.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

import polars as pl

_ENDINGS: Final = r"(?:['’]s|ing|ed|es|s)$"
_WORD: Final = r"[\p{L}\p{N}]+(?:['’]\p{L}+)?"


@cache
def ignored_words() -> list[str]:
    """Words that carry no request: function words, and what people say about a reply, not ask of it."""
    folder = resources.files("tilth.transforms.pairs").joinpath("words")
    files = (folder.joinpath(f"{name}.txt") for name in ("function", "about_replies"))
    return [word for file in files for word in file.read_text(encoding="utf-8").split()]


def content_words(text: pl.Expr) -> pl.Expr:
    """The distinct words of a text that could carry a request, in lower case, without common endings."""
    ignored = pl.lit(ignored_words(), pl.List(pl.String))
    words = (
        text.str.to_lowercase().str.replace_all("’", "'").str.extract_all(_WORD).list.set_difference(ignored)
    )
    return words.list.eval(pl.element().str.replace(_ENDINGS, "")).list.unique()


def new_words(rows: pl.DataFrame) -> pl.DataFrame:
    """How many content words of `said` do not occur in `known`, and their share of those of `said`.

    Args:
        rows: text columns `known` (what the earlier reply could know) and `said` (what the user said since),
            and `beyond`: up to so many content words in `said` are not looked up.

    Returns:
        Columns `new` (words) and `share` (above 0, to 1), row for row; null where there is nothing to look up.
    """
    said = rows.select(words=content_words(pl.col("said"))).get_column("words")
    asked = (
        rows.select("known")
        .with_columns(said)
        .with_row_index("row")
        .filter(said.list.len() > rows.get_column("beyond"))
    )
    counted = asked.select(
        "row",
        new=pl.col("words").list.set_difference(content_words(pl.col("known"))).list.len(),
        words=pl.col("words").list.len(),
    )
    shares = counted.select("row", "new", share=pl.col("new") / pl.col("words"))
    every = pl.DataFrame({"row": pl.arange(rows.height, dtype=pl.UInt32, eager=True)})
    return every.join(shares, on="row", how="left", maintain_order="left").drop("row")
