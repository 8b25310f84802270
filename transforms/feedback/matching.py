"""Finds the lexicon's patterns in spoken text: one row per match, with the offsets of its evidence."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import Pattern, any_of, lexicon

HITS: Final = pl.Schema(
    {"turn": pl.UInt32, "label": pl.String, "weight": pl.Float64, "start": pl.Int32, "end": pl.Int32}
)
# What takes the next words back: "nothing wrong", "if that doesn't work", "I don't think that's wrong".
_NEGATED: Final = (
    r"\b(?:not|n'?t|dont|doesnt|didnt|isnt|wasnt|wont|cant|never|nothing|nobody|hardly|without|if|whether|in case|"
    r"unless|might be|may be|neither|nor|far from)(?: [a-z']+){0,2} *$"
)


def matches(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows of `HITS` for `turns` (columns turn, spoken and the facts of `patterns.CONTEXTS`)."""
    found = [hit for label in lexicon() for hit in _of_label(turns, label)]
    hits = pl.concat(found) if found else pl.DataFrame(schema={**HITS, "before": pl.String})
    return hits.filter(~pl.col("before").str.contains(_NEGATED)).select(pl.col(name).cast(HITS[name]) for name in HITS)


def _of_label(turns: pl.DataFrame, label: str) -> list[pl.DataFrame]:
    near = turns.filter(pl.col("spoken").str.contains(any_of(label)))
    if near.is_empty():
        return []
    patterns = lexicon()[label]
    which = near.select(pl.col("spoken").str.contains(p.regex).alias(str(p.index)) for p in patterns)
    return [_spans(near.filter(which.get_column(str(p.index))), p) for p in patterns if which.get_column(str(p.index)).any()]


def _spans(turns: pl.DataFrame, pattern: Pattern) -> pl.DataFrame:
    turns = turns.filter(_holds(pattern))
    spoken = pl.col("spoken")
    groups = spoken.str.extract_groups(pattern.regex)
    turns = turns.select(
        "turn",
        spoken.cast(pl.Binary).alias("bytes"),
        spoken.str.find(pattern.regex).alias("at"),
        groups.struct.field("1").alias("lead"),
        groups.struct.field("2").alias("evidence"),
    )
    head = pl.col("bytes").bin.head(pl.col("at") + pl.col("lead").str.len_bytes()).cast(pl.String)
    return turns.select(
        "turn",
        pl.lit(pattern.label).alias("label"),
        pl.lit(pattern.weight).alias("weight"),
        head.str.len_chars().alias("start"),
        (head.str.len_chars() + pl.col("evidence").str.len_chars()).alias("end"),
        head.str.tail(40).alias("before"),
    )


def _holds(pattern: Pattern) -> pl.Expr:
    conditions = [pl.lit(value=True)]
    if pattern.unless is not None:
        conditions.append(~pl.col("spoken").str.contains(pattern.unless))
    if pattern.when:
        conditions.append(pl.any_horizontal(pattern.when))
    conditions.extend(~pl.col(name) for name in pattern.not_when)
    return pl.all_horizontal(conditions)
