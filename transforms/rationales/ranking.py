"""Scores and ranks of rationales, and which of two contexts a reader is given.

Source: RR and RATD (arXiv 2308.04711), where a trained model scores how relevant and true a rationale is, and rules
combine a rationale that a model wrote with one that was retrieved. Here the scorer is anything that gives a number.
"""

from __future__ import annotations

import math
import re
from typing import Final, Literal

import polars as pl

from tilth.schemas import ConfigError

Rule = Literal["concatenation", "over_threshold", "written_if_good", "retrieved_if_good", "default_highest"]
RULES: Final[tuple[Rule, ...]] = (
    "concatenation",
    "over_threshold",
    "written_if_good",
    "retrieved_if_good",
    "default_highest",
)
SCORES: Final = pl.Schema({"id": pl.String, "score": pl.Float64})
_TOKEN: Final = re.compile(
    r"\w{4,}"
)  # words of four letters and more: a list of stop words would be English only
_CONTEXTS: Final = ("written", "retrieved")
_WRITTEN, _RETRIEVED, _BOTH = pl.lit("written"), pl.lit("retrieved"), pl.lit("both")
_SIDES: Final = ("prompt", "chosen", "rejected")


def overlap_scores(rationales: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """How much of each rationale is about its pair, as `SCORES`: the share of its distinct words of four letters and
    more that stand in the request or a reply, [0, 1]; null without such words.

    A stand-in for a trained scorer, with which only what is beside the point can be told from the rest: it cannot tell
    right from wrong, nor for which side a rationale speaks, and copying scores best. (Even the paper's trained scorer
    gives .26 to rationales that hold the answer and .17 to those that do not.)

    Args:
        rationales: `id`, `pair_id`, `text`; one score an id.
        pairs: rows of the table; a rationale whose pair is not among them scores null.
    """
    content = pl.element().struct.field("content").fill_null("")
    said = pl.concat_str([pl.col(side).list.eval(content).list.join("\n") for side in _SIDES], separator="\n")
    texts = pairs.select(pair_id="id", said=said).unique("pair_id", keep="any")
    rows = (
        rationales.select("id", "pair_id", "text")
        .unique("id", keep="any")
        .join(texts, on="pair_id", how="left")
    )
    scored = [(id, _overlap(text, said)) for id, text, said in rows.select("id", "text", "said").iter_rows()]
    return pl.DataFrame(scored, schema=SCORES, orient="row").sort("id")


def _overlap(text: str, said: str | None) -> float | None:
    words = _words(text)
    return len(words & _words(said)) / len(words) if words and said is not None else None


def _words(text: str) -> set[str]:
    return set(_TOKEN.findall(text.casefold()))


def ranked(rationales: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """`rationales` with `score`, and `rank` among those of their pair: 1 for the highest, ties by id, each rank once.

    A rationale without a score (not in `scores`, null or NaN) has none and no rank. Rows keep their order; what these
    columns held before is replaced.

    Args:
        rationales: `id` and `pair_id`, and anything else.
        scores: `SCORES`; raises `polars.exceptions.ComputeError` where an id has two.
    """
    plain = rationales.drop("score", "rank", strict=False).with_row_index("at")
    scored = plain.join(scores.select(*SCORES), on="id", how="left", validate="m:1")
    told = scored.with_columns(pl.col("score").fill_nan(None)).sort(
        "score", "id", descending=[True, False], nulls_last=True
    )
    place = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("pair_id")
    rank = pl.when(pl.col("score").is_not_null()).then(place)
    return told.with_columns(rank=rank).sort("at").drop("at")


def combined(rows: pl.DataFrame, rule: Rule, threshold: float = 0.5, separator: str = "\n\n") -> pl.DataFrame:
    """`rows` with the `text` that a reader is given, and `which` that is: written, retrieved or both; null for neither.

    A context is good when its score is over `threshold`; without a score it is not. The rules:

    - concatenation: both, whatever the scores;
    - over_threshold: those that are good, both where neither is;
    - written_if_good: the written one where it is good, else the retrieved one; retrieved_if_good the other way round;
    - default_highest: those that are good; where neither is, that of the highest score among the written one, the
      retrieved one and both, in this order where scores tie (no score is lowest).

    Both means the written one, `separator`, the retrieved one. Where a rule names a context that is not there, the
    other is given. The paper tuned thresholds for each data set (.0005 to .9; .75 and .9 for default_highest), because
    scores of different sources are not on one scale: so should you.

    Args:
        rows: `written`, `retrieved` (null or blank for none), `written_score`, `retrieved_score`, and `both_score`, of
            the two together, which only default_highest reads.
        rule: one of `RULES`; raises `ConfigError` for another.
        threshold: on the scale of the scores.
        separator: between two contexts.
    """
    if rule not in RULES:
        raise ConfigError("rule of combining contexts", found=rule, wanted=", ".join(RULES))
    there = [pl.col(name).str.strip_chars().fill_null("") != "" for name in _CONTEXTS]
    written, retrieved = (_score(name) > threshold for name in _CONTEXTS)
    one = pl.when(written & ~retrieved).then(_WRITTEN).when(retrieved & ~written).then(_RETRIEVED)
    meant = {
        "concatenation": _BOTH,
        "over_threshold": one.otherwise(_BOTH),
        "written_if_good": pl.when(written).then(_WRITTEN).otherwise(_RETRIEVED),
        "retrieved_if_good": pl.when(retrieved).then(_RETRIEVED).otherwise(_WRITTEN),
        "default_highest": one.when(written & retrieved).then(_BOTH).otherwise(_highest(rows)),
    }
    return _given(rows.with_columns(which=_at_hand(meant[rule], *there)), separator)


def _score(name: str) -> pl.Expr:
    """A context's score; the lowest there is where it has none."""
    return pl.col(f"{name}_score").fill_nan(None).fill_null(-math.inf)


def _highest(rows: pl.DataFrame) -> pl.Expr:
    written, retrieved = (_score(name) for name in _CONTEXTS)
    both = _score("both") if "both_score" in rows.columns else pl.lit(-math.inf)
    first = pl.when(written >= pl.max_horizontal(retrieved, both)).then(_WRITTEN)
    return first.when(retrieved >= both).then(_RETRIEVED).otherwise(_BOTH)


def _at_hand(meant: pl.Expr, written: pl.Expr, retrieved: pl.Expr) -> pl.Expr:
    """What is meant where both contexts are there, else the one that is."""
    alone = pl.when(written).then(_WRITTEN).when(retrieved).then(_RETRIEVED)
    return pl.when(written & retrieved).then(meant).otherwise(alone)


def _given(rows: pl.DataFrame, separator: str) -> pl.DataFrame:
    which = pl.col("which")
    both = pl.when(which == "both").then(pl.concat_str(_CONTEXTS, separator=separator))
    alone = [pl.when(which == name).then(pl.col(name)) for name in _CONTEXTS]
    return rows.with_columns(text=pl.coalesce(both, *alone))
