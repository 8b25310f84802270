"""How alike the two replies of a pair are: equal but for case and white space, or nearly all trigrams shared."""

from __future__ import annotations

from typing import Final

import polars as pl

ALIKE: Final = 0.95
"""The share of character trigrams (of both replies together) that two replies have in common to count as alike."""
_SHORT: Final = 40  # characters; below, one word of difference is a difference
_LONG: Final = 2_000  # of longer replies the first so many characters are compared
_HEAD: Final = 64
_PIECE: Final = 12
_SIDES: Final = ("chosen", "rejected")


def likeness(sides: pl.DataFrame) -> pl.DataFrame:
    """Two flags a row for the texts `chosen` and `rejected`: `near_equal` and `alike`, which holds the first.

    Near equal texts differ in case and white space only. Alike ones have a Jaccard likeness of trigrams, case and white
    space aside, of at least `ALIKE`.
    """
    rows = sides.select(*_SIDES).with_row_index("row")
    near = rows.filter(_same_head()).filter(_folded("chosen") == _folded("rejected")).get_column("row")
    # Trigrams are dear: only where sizes fit and a piece of the one reply stands in the other.
    likely = rows.filter(_same_size()).filter(_shared_piece())
    alike = likely.filter(_likeness() >= ALIKE).get_column("row")
    return rows.select(
        pl.col("row").is_in(near.implode()).alias("near_equal"),
        pl.col("row").is_in(pl.concat([near, alike]).implode()).alias("alike"),
    )


def _folded(side: str) -> pl.Expr:
    return _fold(pl.col(side))


def _fold(text: pl.Expr) -> pl.Expr:
    return text.fill_null("").str.to_lowercase().str.replace_all(r"\s+", "")


def _same_head() -> pl.Expr:
    """Texts that are equal when folded begin alike: of two beginnings one is that of the other."""
    one, other = (_fold(pl.col(side).str.head(_HEAD)) for side in _SIDES)
    return one.str.starts_with(other) | other.str.starts_with(one)


def _same_size() -> pl.Expr:
    one, other = (pl.col(side).str.len_bytes() for side in _SIDES)
    shorter, longer = pl.min_horizontal(one, other), pl.max_horizontal(one, other)
    return (shorter >= _SHORT) & (shorter >= longer * 0.85)  # white space may differ too


def _shared_piece() -> pl.Expr:
    """Whether one of a few short pieces of the chosen reply stands in the rejected; scattered edits hit not all."""
    size, other = pl.col("chosen").str.len_chars().clip(upper_bound=_LONG), pl.col("rejected")
    starts = [(size * share).cast(pl.Int64) for share in (0.02, 0.2, 0.4, 0.6, 0.8)]
    pieces = [pl.col("chosen").str.slice(start, _PIECE) for start in starts]
    return pl.any_horizontal(other.str.contains(piece, literal=True) for piece in pieces)


def _likeness() -> pl.Expr:
    one, other = (_trigrams(side) for side in _SIDES)
    common = one.list.set_intersection(other).list.len()
    return common / (one.list.len() + other.list.len() - common)


def _trigrams(side: str) -> pl.Expr:
    text = _folded(side).str.head(_LONG)
    return pl.concat_list(
        text.str.slice(start).str.extract_all(r"(?s).{3}") for start in range(3)
    ).list.unique()
