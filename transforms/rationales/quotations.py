"""Spans of a reply that stand in what the user wrote too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN_WORDS: Final = 5
_WORD: Final = r"[\p{L}\p{N}]+"
_BASE: Final = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a word is lost


def quotations(replies: pl.Series, said: pl.Series) -> pl.Series:
    """How many spans of five or more words of each reply stand in the text beside it, case and punctuation aside.

    A span is as long as can be: it ends where the next five words do not stand together in `said`. Linear in the words.
    """
    rows, spans = _spans(replies)
    said_rows, known = _spans(said)
    there = pl.DataFrame({"row": said_rows, "span": known}).unique().with_columns(found=True)
    found = pl.DataFrame({"row": rows, "span": spans}).join(
        there, on=["row", "span"], how="left", maintain_order="left"
    )
    # The places of one reply are neighbours, so the place before is the one word earlier, or another reply's.
    begins = pl.col("found") & ~(
        pl.col("found").shift(1) & (pl.col("row").shift(1) == pl.col("row"))
    ).fill_null(value=False)
    counts = found.group_by("row").agg(begins.fill_null(value=False).sum().alias("count"))
    every = pl.DataFrame({"row": np.arange(len(replies))}).join(
        counts, on="row", how="left", maintain_order="left"
    )
    return every.get_column("count").fill_null(0)


def _spans(texts: pl.Series) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The row and the hash of every five words in turn, in order."""
    listed = pl.DataFrame({"row": np.arange(len(texts)), "text": texts.str.to_lowercase()})
    flat = listed.select("row", word=pl.col("text").str.extract_all(_WORD)).explode(
        "word", empty_as_null=False
    )
    rows, words = flat["row"].to_numpy(), flat["word"].hash().to_numpy()
    count = max(0, len(words) - SPAN_WORDS + 1)
    spans = np.zeros(count, dtype=np.uint64)
    for n in range(SPAN_WORDS):
        spans = spans * _BASE + words[n : n + count]
    whole = rows[:count] == rows[len(rows) - count :]
    return rows[:count][whole], spans[whole]
