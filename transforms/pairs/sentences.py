"""The sentences of a turn that hold a span, verbatim."""

from __future__ import annotations

import polars as pl

# A sentence ends at a line break, or at a mark before white space or the end of the text ("3.5" ends none).
_WITHIN = r"(?:[^.!?\n]|[.!?]+[^\s.!?])"
_LEAD = rf"({_WITHIN}*)$"
_REST = rf"^({_WITHIN}*[.!?]*)"
_COMPLETE = r"[.!?\n]\s*$"


def sentences(text: pl.Expr, start: pl.Expr, end: pl.Expr) -> pl.Expr:
    """`text` from the start of the sentence at `start` to the end of the one before `end` (characters).

    A substring of `text`, without white space at its ends; at least the span itself.
    """
    span = text.str.slice(start, end - start)
    lead = text.str.slice(0, start).str.extract(_LEAD, 1).fill_null("")
    rest = text.str.slice(end).str.extract(_REST, 1).fill_null("")
    rest = pl.when(span.str.contains(_COMPLETE)).then(pl.lit("")).otherwise(rest)
    return pl.concat_str([lead, span, rest]).str.strip_chars()
