"""The best against the worst of a policy's replies to a prompt, by their scores under its rubric."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import Reason
from tilth.transforms.pairs.best_of_n import BestOfN, best_of_n_pairs
from tilth.transforms.pairs.candidates import Ruled, quarantined
from tilth.transforms.pairs.rated import GROUP

ORIGIN: Final = "rubric"


def rubric_pairs(
    responses: pl.DataFrame, scores: pl.DataFrame, judgments: pl.DataFrame, policy: BestOfN
) -> Ruled:
    """Rows of `pairs` of origin `rubric`, at most one a prompt; a prompt without is one row of `quarantine`.

    As `best_of_n_pairs` with one scorer, whose guards hold here too. A prompt that no score is of has no rubric
    (`no_criterion`). A reply that has no score, or that no judgment stands behind, takes no part. `judgment_ids` are
    those of all grades of both sides; the method is `rules` where programs alone graded them.

    Args:
        responses: rows of the table.
        scores: `prompt_id`, `response_id`, `score`, and where known the `reason` of a null one, each reply once;
            replies that are not among `responses` take no part.
        judgments: rows of the table, about criteria; failed ones take no part.
        policy: guards.
    """
    ruled_by = _by_criteria(scores)
    with_rubric = responses.join(ruled_by, on="prompt_id", how="semi")
    graded = judgments.filter(pl.col("verdict") == "rated").explode("response_ids")
    told = graded.group_by(response_id="response_ids").agg(judgment_ids=pl.col("id").unique().sort())
    rows = (
        with_rubric.rename({"id": "response_id"})
        .join(told, on="response_id", how="left", maintain_order="left")
        .join(scores.select("prompt_id", "response_id", "score"), on=["prompt_id", "response_id"], how="left")
        .with_columns(
            rating=pl.when(pl.col("judgment_ids").is_not_null()).then("score"),
            judgment_ids=pl.col("judgment_ids").fill_null(pl.lit([], pl.List(pl.String))),
        )
    )
    ruled = best_of_n_pairs(rows.drop("score"), policy, origin=ORIGIN)
    bare = _without_rubric(responses.join(ruled_by, on="prompt_id", how="anti"))
    return Ruled(_told_how(ruled.kept, graded), pl.concat([ruled.dropped, bare]))


def _by_criteria(scores: pl.DataFrame) -> pl.DataFrame:
    """`scores` but those of replies to prompts that have no criterion."""
    if "reason" not in scores.columns:
        return scores
    return scores.filter(pl.col("reason").ne_missing(Reason.NO_CRITERION.value))


def _told_how(pairs: pl.DataFrame, judgments: pl.DataFrame) -> pl.DataFrame:
    by_model = judgments.filter(pl.col("method") != "rules").get_column("id").unique()
    asked = pl.col("judgment_ids").list.set_intersection(by_model.implode()).list.len() > 0
    method = pl.when(asked).then(pl.lit("model")).otherwise(pl.lit("rules"))
    return pairs.with_columns(method=method)


def _without_rubric(responses: pl.DataFrame) -> pl.DataFrame:
    prompts = responses.unique(GROUP).with_columns(
        id="prompt_id",
        source=pl.format("conversations#id={}", "conversation_id"),
        reason=pl.lit(Reason.NO_CRITERION.value),
        detail=pl.lit("the prompt has no rubric to score replies by"),
    )
    return quarantined(prompts, "pair", ["conversation_id", "prompt"])
