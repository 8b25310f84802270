"""Measured differences between the two sides of a pair: what goes with being chosen, without a model.

Source: PROFILE (arXiv 2410.06965). There a model extracts half of the factors; here are those that can be counted. A
factor says what differs, not why a reply was preferred: docs/reference/factors.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tilth.schemas import conform, content_ids, empty
from tilth.transforms.feedback.patterns import context
from tilth.transforms.feedback.turns import ends
from tilth.transforms.rationales.quotations import quotations
from tilth.transforms.rationales.readability import readability, sentences, unmarked, without_code, words
from tilth.transforms.rubrics.constraints import constraints_in
from tilth.transforms.rubrics.verifiers import passes

WAYS: Final = ("concordant", "discordant", "tied")
_BLOCK_PAIRS: Final = 4096  # measured at once; bounds the memory
_ROLE: Final = pl.element().struct.field("role")
_CONTENT: Final = pl.element().struct.field("content")
_MARK: Final = r"(?m)^[ \t]*(?:>[ \t]*)*(?:[-*+•]|\(?\d{1,3}[.)])[ \t]+\S"
_FENCE: Final = r"(?m)^[ \t]*(?:```|~~~)"
_ROW, _RULE = r"(?m)^[ \t]*\|.*\|[ \t]*$", r"(?m)^[ \t]*\|[ \t:|-]+\|[ \t]*$"
_NUMBER: Final = r"\d+(?:[.,]\d+)*"
_ASKED: Final = r"[?？]+[\"'”’»)\]*_]*(?:\s|$)"


@dataclass(frozen=True, slots=True)
class Factor:
    """What is measured of a reply.

    Args:
        measure: a number for each row of `_replies`; null where it cannot be told.
        one: what one of it is called.
        many: what any other number of it is called.
        direction: 1 where more is better, -1 where less is, None where neither is a virtue.
    """

    measure: Callable[[pl.DataFrame], pl.Series]
    one: str
    many: str
    direction: Literal[1, -1] | None = None


def _by(number: pl.Expr) -> Callable[[pl.DataFrame], pl.Series]:
    return lambda replies: replies.select(number.alias("number")).get_column("number")


def _constraints_met(replies: pl.DataFrame) -> pl.Series:
    rows = replies.select("programs", "text").iter_rows()
    return pl.Series([_share_met(programs, text) for programs, text in rows], dtype=pl.Float64)


def _share_met(programs: list[str], text: str) -> float | None:
    return sum(passes(program, text) for program in programs) / len(programs) if programs else None


def _declines(replies: pl.DataFrame) -> pl.Series:
    known = context()
    said = replies.select(ends=ends(pl.col("text")))
    by_policy = pl.col("ends").str.contains(known["refused"]) & pl.col("ends").str.contains(known["policy"])
    told = by_policy | pl.col("ends").str.contains(known["declines"])
    return said.select(number=told.cast(pl.Int8)).get_column("number")


def _quoted(replies: pl.DataFrame) -> pl.Series:
    return quotations(replies.get_column("text"), replies.get_column("said"))


_BARE, _PROSE = pl.col("bare"), pl.col("prose")
_READABILITY: Final = readability(_PROSE, pl.col("prose_words"), pl.col("sentences"))
FACTORS: Final[Mapping[str, Factor]] = {
    "words": Factor(_by(words(unmarked(pl.col("text")))), "word", "words"),
    "sentences": Factor(_by(pl.col("sentences")), "sentence", "sentences"),
    "list_items": Factor(_by(_BARE.str.count_matches(_MARK)), "list item", "list items"),
    "headings": Factor(_by(_BARE.str.count_matches(r"(?m)^ {0,3}#{1,6}[ \t]+\S")), "heading", "headings"),
    "code_blocks": Factor(
        _by((pl.col("text").str.count_matches(_FENCE) + 1) // 2), "code block", "code blocks"
    ),
    "table_rows": Factor(
        _by(_BARE.str.count_matches(_ROW) - _BARE.str.count_matches(_RULE)), "table row", "table rows"
    ),
    "constraints_met": Factor(_constraints_met, "constraint", "constraints", 1),
    "refusal": Factor(_declines, "refusal", "refusals", -1),
    "quotations": Factor(_quoted, "quotation of the request", "quotations of the request"),
    "readability": Factor(_by(_READABILITY), "grade of reading", "grades of reading"),
    "numbers": Factor(_by(_PROSE.str.count_matches(_NUMBER)), "number", "numbers"),
    "questions": Factor(_by(_PROSE.str.count_matches(_ASKED)), "question back", "questions back"),
}
"""The closed table of factors, in the order in which a rationale names them; formulas: docs/reference/factors.md."""


def factor_rationales(pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `rationales`, kind `factors`, one for each pair in which some factor differs, sorted by id.

    `factors` holds what could be measured of both sides, in the order of `FACTORS`; `favours` names the side that a
    factor with a direction speaks for, and is null where the sides are equal and where neither direction is a virtue.
    A refusal speaks for neither side where the request looks harmful. `text` names only what differs, never a place.
    Linear in the text; a pair that stands there twice counts once.
    """
    once = pairs.sort("id", "conversation_id").unique("id", keep="first", maintain_order=True)
    made = [_rationales(block) for block in once.iter_slices(_BLOCK_PAIRS)]
    return pl.concat([empty("rationales"), *made]).sort("id")


def factor_counts(rationales: pl.DataFrame) -> dict[str, int]:
    """How many pairs are `<name>.concordant` (the chosen side has more), `.discordant` (less) and `.tied`, by factor.

    Counts of parts add up. A pair in which nothing at all differs has no rationale, so it is in no count.
    """
    measured = rationales.filter(pl.col("kind") == "factors").select("factors")
    listed = measured.explode("factors", empty_as_null=False, keep_nulls=False).unnest("factors")
    more, less = pl.col("chosen") > pl.col("rejected"), pl.col("chosen") < pl.col("rejected")
    way = pl.when(more).then(pl.lit(WAYS[0])).when(less).then(pl.lit(WAYS[1])).otherwise(pl.lit(WAYS[2]))
    rows = listed.select("name", way=way).group_by("name", "way").len()
    found = {f"{name}.{way}": count for name, way, count in rows.iter_rows()}
    return {key: found.get(key, 0) for name in FACTORS for key in _keys(name)}


def factor_agreement(counts: Mapping[str, int]) -> pl.DataFrame:
    """How far each measured factor goes with the label: factor, pairs, concordant, discordant, tied, tau.

    tau = (concordant - discordant) / (concordant + discordant), of Kendall's type (PROFILE, eq. 14): 1 where the chosen
    side always has more, -1 where it always has less. Ties are left out of it, which the card leaves open; where all
    are tied it is null.

    Args:
        counts: of `factor_counts`, summed over parts.
    """
    told = [(name, *(counts.get(key, 0) for key in _keys(name))) for name in FACTORS]
    schema = pl.Schema({"factor": pl.String, **{way: pl.Int64() for way in WAYS}})
    more, less = pl.col("concordant"), pl.col("discordant")
    tau = pl.when(more + less > 0).then((more - less) / (more + less))
    rows = pl.DataFrame(told, schema=schema, orient="row").with_columns(
        pairs=pl.sum_horizontal(WAYS), tau=tau
    )
    return rows.filter(pl.col("pairs") > 0).select("factor", "pairs", *WAYS, "tau")


def _keys(name: str) -> list[str]:
    return [f"{name}.{way}" for way in WAYS]


# Measuring


def _rationales(pairs: pl.DataFrame) -> pl.DataFrame:
    asked = _asked(pairs)
    sides = {side: _replies(asked, pairs.get_column(side)) for side in ("chosen", "rejected")}
    numbers = {
        f"{name}/{side}": factor.measure(replies).cast(pl.Float64)
        for name, factor in FACTORS.items()
        for side, replies in sides.items()
    }
    facts = asked.select("harmful", wanted=pl.col("programs").list.len()).with_columns(**numbers)
    told = facts.select(
        factors=pl.concat_list(_factor(name) for name in FACTORS).list.drop_nulls(),
        text=pl.concat_list(_clause(name) for name in FACTORS).list.drop_nulls().list.join("; "),
    )
    rows = pl.concat([pairs.select("conversation_id", "split", pair_id="id"), told], how="horizontal")
    named = conform(rows, "rationales").filter(pl.col("text") != "")
    whole = named.with_columns(
        kind=pl.lit("factors"),
        method=pl.lit("rules"),
        text=pl.lit("The better reply: ") + pl.col("text") + pl.lit("."),
        evidence=pl.lit([], dtype=named.schema["evidence"]),
    )
    keys = [pl.col(key) for key in ("pair_id", "kind", "text")]
    return whole.with_columns(content_ids(whole, "rationales", keys))


def _asked(pairs: pl.DataFrame) -> pl.DataFrame:
    """What users say before the replies: `said` (all of it), `programs` of the last turn's constraints, `harmful`."""
    turns = pl.col("prompt").list.eval(pl.when(_ROLE == "user").then(_CONTENT)).list.drop_nulls()
    asked = pairs.select(said=turns.list.join("\n"), request=turns.list.last().fill_null(""))
    found = {text: [one.program for one in constraints_in(text)] for text in asked["request"].unique()}
    programs = pl.Series([found[text] for text in asked["request"]], dtype=pl.List(pl.String))
    harmful = pl.col("request").str.to_lowercase().str.contains(context()["harmful"])
    return asked.select("said", harmful=harmful, programs=programs)


def _replies(asked: pl.DataFrame, side: pl.Series) -> pl.DataFrame:
    """`asked` with the `text` of a reply, `bare` (without fenced code) and `prose` (that without marks of lines)."""
    spoken = pl.col("side").list.eval(pl.when(_ROLE == "assistant").then(_CONTENT)).list.drop_nulls()
    texts = asked.with_columns(side=side).with_columns(text=spoken.list.join("\n")).drop("side")
    bare = texts.with_columns(bare=without_code(pl.col("text"))).with_columns(prose=unmarked(_BARE))
    return bare.with_columns(prose_words=words(_PROSE), sentences=sentences(_PROSE))


def _factor(name: str) -> pl.Expr:
    chosen, rejected = _both(name)
    told = pl.struct(name=pl.lit(name), chosen=chosen, rejected=rejected, favours=_favours(name))
    return pl.when(chosen.is_not_null() & rejected.is_not_null()).then(told)


def _favours(name: str) -> pl.Expr:
    chosen, rejected = _both(name)
    direction = FACTORS[name].direction
    if direction is None:
        return pl.lit(None, pl.String)
    better = (chosen - rejected) * direction
    side = pl.when(better > 0).then(pl.lit("chosen")).when(better < 0).then(pl.lit("rejected"))
    return pl.when(~pl.col("harmful")).then(side) if name == "refusal" else side


def _both(name: str) -> tuple[pl.Expr, pl.Expr]:
    return pl.col(f"{name}/chosen"), pl.col(f"{name}/rejected")


def _clause(name: str) -> pl.Expr:
    """What a factor adds to the text; null where the sides are equal in it, or it could not be measured."""
    chosen, rejected = _both(name)
    known = {"constraints_met": _constraints_clause, "refusal": _refusal_clause, "readability": _grade_clause}
    said = known.get(name, lambda one, other: _count_clause(FACTORS[name], one, other))(chosen, rejected)
    return pl.when(chosen != rejected).then(said)


def _count_clause(factor: Factor, chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    unit = pl.when(chosen == 1).then(pl.lit(factor.one)).otherwise(pl.lit(factor.many))
    return pl.format("{} {} against {}", chosen.cast(pl.Int64), unit, rejected.cast(pl.Int64))


def _constraints_clause(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    wanted = pl.col("wanted")
    one, other = ((share * wanted).round().cast(pl.Int64) for share in (chosen, rejected))
    unit = pl.when(wanted == 1).then(pl.lit("constraint")).otherwise(pl.lit("constraints"))
    return pl.format(
        "meets {} of {} {} of the request where the weaker reply meets {}", one, wanted, unit, other
    )


def _refusal_clause(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    declines = pl.lit("declines where the weaker reply answers")
    return (
        pl.when(chosen > rejected).then(declines).otherwise(pl.lit("answers where the weaker reply declines"))
    )


def _grade_clause(chosen: pl.Expr, rejected: pl.Expr) -> pl.Expr:
    return pl.format("a readability index of {} against {}", chosen, rejected)
