"""Finds the lexicon's patterns in spoken text: one row per match, with the offsets of its evidence."""

from __future__ import annotations

from functools import cache
from itertools import groupby
from typing import Final

import polars as pl

from tilth.transforms.feedback.patterns import CONTEXTS, Pattern
from tilth.transforms.feedback.prefilter import candidates, patterns, rare_patterns

HITS: Final = pl.Schema(
    {"turn": pl.UInt32, "label": pl.String, "weight": pl.Float64, "start": pl.Int32, "end": pl.Int32}
)
# Four patterns in one expression cost about as much as two alone. With tens of them the automaton outgrows the cache
# of the regular expression engine, and matching slows down a hundredfold.
_TOGETHER: Final = 4
# What takes the next words back: "nothing wrong", "if that doesn't work", "I don't think that's wrong".
_NEGATED: Final = (
    r"(?:n't|\b(?:not|dont|doesnt|didnt|isnt|wasnt|wont|cant|never|nothing|nobody|hardly|without|if|whether|in case|"
    r"unless|might be|may be|neither|nor|far from))(?: [a-z']+){0,2} *$"
)


def matches(turns: pl.DataFrame) -> pl.DataFrame:
    """Rows of `HITS` for `turns` (columns turn, spoken and the facts of `patterns.CONTEXTS`)."""
    turns = turns.select("turn", "spoken", *CONTEXTS)
    few = candidates(turns.get_column("spoken"))
    found = [
        hits for at, rows in few.items() if len(rows) for hits in matches_of([patterns()[at]], turns[rows])
    ]
    # One select: polars spreads the columns over the cores.
    near = turns.select(_any_of(group).alias(str(at)) for at, group in enumerate(_groups()))
    for at, group in enumerate(_groups()):
        found.extend(matches_of(group, turns.filter(near.get_column(str(at)))))
    return pl.concat([pl.DataFrame(schema=HITS), *found])


def matches_of(group: list[Pattern], turns: pl.DataFrame) -> list[pl.DataFrame]:
    """Rows of `HITS` for each pattern of `group` that has any."""
    if turns.is_empty():
        return []
    which = turns.select(_matched(pattern).alias(str(at)) for at, pattern in enumerate(group))
    hit = [which.get_column(str(at)) for at in range(len(group))]
    return [
        _spans(pattern, turns.filter(rows)) for pattern, rows in zip(group, hit, strict=True) if rows.any()
    ]


def _any_of(group: list[Pattern]) -> pl.Expr:
    return pl.col("spoken").str.contains("|".join(pattern.regex for pattern in group))


@cache
def _groups() -> list[list[Pattern]]:
    """Patterns without rare words, up to `_TOGETHER` of one scope that are tried at once."""
    rare = rare_patterns()
    rest = [pattern for at, pattern in enumerate(patterns()) if at not in rare]
    rest.sort(key=lambda pattern: pattern.scope)
    alike = [list(group) for _, group in groupby(rest, key=lambda pattern: pattern.scope)]
    return [group[at : at + _TOGETHER] for group in alike for at in range(0, len(group), _TOGETHER)]


def _spans(pattern: Pattern, turns: pl.DataFrame) -> pl.DataFrame:
    spoken = pl.col("spoken")
    groups = spoken.str.extract_groups(pattern.regex)
    turns = turns.filter(_stands(pattern)).select(
        "turn",
        spoken.cast(pl.Binary).alias("bytes"),
        spoken.str.find(pattern.regex).alias("at"),
        groups.struct.field("1").alias("lead"),
        groups.struct.field("2").alias("evidence"),
    )
    head = pl.col("bytes").bin.head(pl.col("at") + pl.col("lead").str.len_bytes()).cast(pl.String)
    return turns.filter(~head.str.tail(40).str.contains(_NEGATED)).select(
        "turn",
        pl.lit(pattern.label).alias("label"),
        pl.lit(pattern.weight).alias("weight"),
        head.str.len_chars().cast(pl.Int32).alias("start"),
        (head.str.len_chars() + pl.col("evidence").str.len_chars()).cast(pl.Int32).alias("end"),
    )


def _matched(pattern: Pattern) -> pl.Expr:
    """The pattern is found, and the exchange is as it asks."""
    wanted = [pl.any_horizontal(pattern.when)] if pattern.when else []
    refused = [~pl.col(name) for name in pattern.not_when]
    return pl.all_horizontal(pl.col("spoken").str.contains(pattern.regex), *wanted, *refused)


def _stands(pattern: Pattern) -> pl.Expr:
    """Nothing in the turn takes the match back."""
    return pl.lit(value=True) if pattern.unless is None else ~pl.col("spoken").str.contains(pattern.unless)
