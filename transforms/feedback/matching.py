"""Finds the lexicon's patterns in spoken text: one row per match, with the offsets of its evidence."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import CONTEXTS, Pattern
from tilth.transforms.feedback.prefilter import candidates, patterns

HITS: Final = pl.Schema(
    {"turn": pl.UInt32, "label": pl.String, "weight": pl.Float64, "start": pl.Int32, "end": pl.Int32}
)
# What takes the next words back: "nothing wrong", "if that doesn't work", "I don't think that's wrong".
_NEGATED: Final = (
    r"(?:n't|\b(?:not|dont|doesnt|didnt|isnt|wasnt|wont|cant|never|nothing|nobody|hardly|without|if|whether|in case|"
    r"unless|might be|may be|neither|nor|far from))(?: [a-z']+){0,2} *$"
)


def matches(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows of `HITS` for `turns` (columns turn, spoken and the facts of `patterns.CONTEXTS`)."""
    turns = turns.select("turn", "spoken", *CONTEXTS)
    few = candidates(turns.get_column("spoken"))
    always = [at for at in range(len(patterns())) if at not in few]
    which = turns.select(_may_hold(patterns()[at]).alias(str(at)) for at in always)
    tried = {at: turns[rows] for at, rows in few.items() if len(rows)}
    tried |= {at: found for at in always if (found := turns.filter(which.get_column(str(at)))).height}
    found = [matches_of(patterns()[at], rows) for at, rows in sorted(tried.items())]
    return pl.concat([hits for hits in found if hits.height] or [pl.DataFrame(schema=HITS)])


def _may_hold(pattern: Pattern) -> pl.Expr:
    return pl.col("spoken").str.contains(pattern.regex)


def matches_of(pattern: Pattern, turns: pl.DataFrame) -> pl.DataFrame:
    """Rows of `HITS` for one pattern."""
    spoken = pl.col("spoken")
    turns = turns.filter(_allowed(pattern)).filter(spoken.str.contains(pattern.regex))
    if turns.is_empty():
        return pl.DataFrame(schema=HITS)
    turns = turns.filter(_not_taken_back(pattern))
    groups = spoken.str.extract_groups(pattern.regex)
    turns = turns.select(
        "turn",
        spoken.cast(pl.Binary).alias("bytes"),
        spoken.str.find(pattern.regex).alias("at"),
        groups.struct.field("1").alias("lead"),
        groups.struct.field("2").alias("evidence"),
    )
    head = pl.col("bytes").bin.head(pl.col("at") + pl.col("lead").str.len_bytes()).cast(pl.String)
    own = ~head.str.tail(40).str.contains(_NEGATED)
    return turns.filter(own).select(
        "turn",
        pl.lit(pattern.label).alias("label"),
        pl.lit(pattern.weight).alias("weight"),
        head.str.len_chars().cast(pl.Int32).alias("start"),
        (head.str.len_chars() + pl.col("evidence").str.len_chars()).cast(pl.Int32).alias("end"),
    )


def _allowed(pattern: Pattern) -> pl.Expr:
    """The facts about the exchange that the pattern asks for."""
    wanted = [pl.any_horizontal(pattern.when)] if pattern.when else []
    return pl.all_horizontal(pl.lit(value=True), *wanted, *(~pl.col(name) for name in pattern.not_when))


def _not_taken_back(pattern: Pattern) -> pl.Expr:
    return pl.lit(value=True) if pattern.unless is None else ~pl.col("spoken").str.contains(pattern.unless)
