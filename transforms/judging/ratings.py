"""Judgments of single replies become one rating a reply: joined by id alone, so no failure moves another's rating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from tilth.schemas import BadInput, Reason, conform, content_ids
from tilth.transforms.judging.rewards import finite
from tilth.transforms.pairs.candidates import Ruled, quarantined

WHOLE: Final = "overall"  # the name of what was rated where a judgment names no attribute
_ABOUT: Final = ("prompt_id", "prompt", "completion", "model", "conversation_id", "split")
# Equal scores in another order give means that differ in the last bit, which would be a preference.
_DIGITS: Final = 9


def ratings(
    judgments: pl.DataFrame,
    responses: pl.DataFrame,
    weights: Mapping[str, float] | None = None,
    optional: Sequence[str] = ("honesty",),
) -> Ruled:
    """Rows of `ratings`, one for each response, and as `quarantine` those that judges failed on (`judges_failed`).

    The rating is the mean over attributes, ignoring those that do not apply (never -1, as in open-instruct's scripts,
    nor 1); an attribute's is the weighted mean over judges of the mean over a judge's samples and orders. A response is
    set aside when a judge that was asked about an attribute has nothing to say of it, because means over other
    attributes or other judges are not comparable with those of its neighbours. A null score is such a silence, but for
    attributes in `optional` it says "does not apply" (UltraFeedback's honesty).

    Args:
        judgments: rows of the table, of kind pointwise or listwise; other kinds and other responses count nowhere.
        responses: rows of the table.
        weights: of judges, 1 where not named.
        optional: attributes that need not apply.
    """
    rated = _by_response(_by_attribute(_by_judge(_scores(judgments), weights or {}, optional)))
    about = responses.unique("id", keep="first", maintain_order=True).select(*_ABOUT, response_id="id")
    known = about.join(rated, on="response_id", how="left", maintain_order="left")
    named = known.with_columns(content_ids(known, "ratings", [pl.col("response_id")]), method=pl.lit("model"))
    failed = pl.col("missing").fill_null(value=True) | pl.col("rating").is_null()
    kept = conform(named.filter(~failed).drop("missing"), "ratings").sort("id")
    return Ruled(kept, _set_aside(named.filter(failed)))


def _scores(judgments: pl.DataFrame) -> pl.DataFrame:
    """One row a judgment and response: `judgment_id`, `response_id`, `attribute`, `judge`, `failed`, `score`."""
    rows = judgments.filter(pl.col("kind") != "pairwise").unique("id", keep="first")
    told = rows.with_columns(
        pl.col("attribute").fill_null(WHOLE), judgment_id="id", failed=pl.col("verdict") == "failed"
    )
    columns = ["judgment_id", "attribute", "judge", "failed"]
    spoke = told.filter(~pl.col("failed"))
    if not spoke.select((pl.col("scores").list.len() == pl.col("response_ids").list.len()).all()).item():
        raise BadInput("scores of a judgment", found="another number", wanted="one for each of its responses")
    scored = spoke.select(*columns, response_id="response_ids", score="scores").explode(
        "response_id", "score"
    )
    silent = told.filter("failed").select(*columns, response_id="response_ids").explode("response_id")
    every = pl.concat([scored, silent], how="diagonal").with_columns(score=finite("score"))
    return every.sort("response_id", "attribute", "judge", "judgment_id")


def _by_judge(scores: pl.DataFrame, weights: Mapping[str, float], optional: Sequence[str]) -> pl.DataFrame:
    spoke = ~pl.col("failed")
    grouped = scores.group_by("response_id", "attribute", "judge", maintain_order=True).agg(
        rating=pl.col("score").mean(), spoke=spoke.any(), judgment_ids=pl.col("judgment_id").filter(spoke)
    )
    weight = pl.col("judge").replace_strict(weights, default=1.0, return_dtype=pl.Float64)
    inapplicable = pl.col("attribute").is_in(list(optional)) & pl.col("spoke")
    return grouped.with_columns(weight=weight, missing=pl.col("rating").is_null() & ~inapplicable)


def _by_attribute(judged: pl.DataFrame) -> pl.DataFrame:
    weight = pl.col("weight").filter(pl.col("rating").is_not_null())
    mean = (pl.col("rating") * pl.col("weight")).sum() / weight.sum()
    return judged.group_by("response_id", "attribute", maintain_order=True).agg(
        rating=pl.when(weight.len() > 0).then(mean).round(_DIGITS),
        missing=pl.col("missing").any(),
        judgment_ids=pl.col("judgment_ids").explode(),
    )


def _by_response(rated: pl.DataFrame) -> pl.DataFrame:
    applies = pl.col("rating").is_not_null()
    return rated.group_by("response_id", maintain_order=True).agg(
        attributes=pl.struct(name="attribute", rating="rating").filter(applies),
        rating=pl.col("rating").mean().round(_DIGITS),
        missing=pl.col("missing").any(),
        judgment_ids=pl.col("judgment_ids").explode().unique().sort(),
    )


def _set_aside(failed: pl.DataFrame) -> pl.DataFrame:
    rated = pl.col("attributes").list.len().fill_null(0)
    rows = failed.with_columns(
        id="response_id",
        source=pl.format("responses#id={}", "response_id"),
        reason=pl.lit(Reason.JUDGES_FAILED.value),
        detail=pl.format("{} attributes were rated, not all that were asked", rated),
    )
    return quarantined(rows, "rate", ["prompt", "completion"])
