"""What is read in the texts of a row: personal data and the language. Adds columns, keeps rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import polars as pl

from tilth.schemas.labels import LANGUAGES
from tilth.schemas.language import guess
from tilth.schemas.metrics import Bins
from tilth.schemas.pii import KINDS, flags_of, row_text

_SAMPLE: Final = 120  # characters that show a language; twice as many take twice as long
_ALL: Final = "_all"
_LANGUAGE: Final = "_language"
PII: Final = {name: pl.col(name) for name in (*(f"pii_{kind}" for kind in KINDS), "pii")}
LANGUAGE: Final = Bins.of_words(pl.col(_LANGUAGE), LANGUAGES)


def reading(table: str, main: pl.Expr | None = None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A `Contract.prepare` that adds the columns of `PII`, and, with `main` (a text a row), what `LANGUAGE` counts."""

    def read(frame: pl.DataFrame) -> pl.DataFrame:
        # Apart, because polars computes a text anew for each expression that uses it.
        texts = frame.select(row_text(table).alias(_ALL))
        flags = texts.select(**{name: flag for name, flag in flags_of(pl.col(_ALL)).items() if name != "pii"})
        added = flags.with_columns(pl.any_horizontal(pl.all()).alias("pii"))
        if main is not None:
            sample = frame.select(main.str.head(_SAMPLE).str.to_lowercase().alias("text")).to_series()
            added = added.with_columns(guess(sample).alias(_LANGUAGE))
        return frame.hstack(added)

    return read
