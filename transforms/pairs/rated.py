"""Ratings become pairs: the best reply of a prompt over another, a worse one (UltraFeedback, Tulu 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.transforms.hygiene.hashing import mixed, text_hashes
from tilth.transforms.pairs.candidates import Ruled, normalised, quarantined, rule_pairs

GROUP: Final = ["prompt_id", "conversation_id"]
_SLACK: Final = 1e-9  # 4.1 - 3.6 is below 0.5 in binary
_DIGITS: Final = 9
_WITHOUT: Final = {
    Reason.NO_CANDIDATE: "one reply alone was rated",
    Reason.IDENTICAL_SIDES: "the replies differ at most in case and white space",
    Reason.TIE: "no reply is rated enough below the best",
    Reason.JUDGES_FAILED: "fewer than two replies have every score",
}


@dataclass(frozen=True, slots=True)
class RatedPairs:
    """How ratings of one prompt become pairs.

    Args:
        rejected: `random`, drawn among all that are worse by enough (Tulu 3 and Zephyr draw among all others, ties
            included); `worst`; or `all`: every two replies that are far enough apart, not the best alone.
        min_margin: smallest difference of ratings that is a preference; above 0 it must be in any case.
        seed: draws, from the ids of prompt and reply.
    """

    rejected: Literal["random", "worst", "all"] = "random"
    min_margin: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rejected not in ("random", "worst", "all"):
            raise ConfigError(
                "the rejected side of a pair", found=self.rejected, wanted="random, worst or all"
            )
        if not 0 <= self.min_margin < float("inf"):
            raise ConfigError("the margin of rated pairs", found=self.min_margin, wanted="0 or more")


def rated_pairs(ratings: pl.DataFrame, policy: RatedPairs) -> Ruled:
    """Rows of `pairs` of origin `rated`; a prompt without any is one row of `quarantine`.

    Replies of one prompt and conversation are compared; of equal texts (case and white space aside) there is one, rated
    with their mean. Of several best replies, one is drawn. A pair's scores are the ratings.

    Args:
        ratings: rows of the table.
        policy: what is rejected, and from which margin on.
    """
    replies = distinct(ratings).with_columns(_lot(policy.seed))
    best = replies.sort("rating", "lot", descending=[True, False]).unique(
        GROUP, keep="first", maintain_order=True
    )
    better = replies if policy.rejected == "all" else best
    both = better.join(replies, on=GROUP, suffix="_other")
    gap = pl.col("rating") - pl.col("rating_other")
    apart = both.filter((gap > 0) & (gap >= policy.min_margin - _SLACK))
    order = {"random": ["lot_other"], "worst": ["rating_other", "lot_other"], "all": []}[policy.rejected]
    if order:
        apart = apart.sort(order).unique(GROUP, keep="first", maintain_order=True)
    choices = apart.select(
        chosen_id="response_id",
        rejected_id="response_id_other",
        chosen_score="rating",
        rejected_score="rating_other",
    )
    ruled = rule_pairs(sides(choices, replies, "rated"), [])
    left = without_pair(ratings, apart, Reason.TIE)
    return Ruled(ruled.kept, pl.concat([ruled.dropped, left]))


def distinct(ratings: pl.DataFrame) -> pl.DataFrame:
    """`ratings` with equal texts of a prompt as one row: the smallest `response_id`, the mean rating.

    `copies` holds the response ids that it stands for, `judgment_ids` those of all of them.
    """
    rows = ratings.unique("response_id", keep="first").sort("response_id")
    merged = (
        rows.with_columns(_text=normalised("completion"))
        .group_by(*GROUP, "_text", maintain_order=True)
        .agg(
            pl.exclude("rating", "judgment_ids").first(),
            copies=pl.col("response_id"),
            rating=pl.col("rating").mean().round(_DIGITS),
            judgment_ids=pl.col("judgment_ids").explode().unique().sort(),
        )
    )
    return merged.drop("_text")


def _lot(seed: int) -> pl.Expr:
    """A number of each reply that no other reply changes: whom a draw falls on does not hang on who else is there."""
    name = pl.concat_str([pl.col("prompt_id"), pl.col("response_id")], separator="\0")
    return name.map_batches(lambda names: mixed(text_hashes(names), seed), return_dtype=pl.UInt64).alias(
        "lot"
    )


def sides(choices: pl.DataFrame, replies: pl.DataFrame, origin: str) -> pl.DataFrame:
    """`choices` (`chosen_id`, `rejected_id`, their scores, and what else is kept) as candidates for `rule_pairs`."""
    about = [*GROUP, "prompt", "split", "model", "completion", "judgment_ids"]
    chosen = replies.select(*about, chosen_id="response_id")
    rejected = replies.select("model", "completion", "judgment_ids", rejected_id="response_id")
    both = choices.join(chosen, on="chosen_id").join(rejected, on="rejected_id", suffix="_other")
    return both.with_columns(
        source=pl.format("responses#id={}", "chosen_id"),
        origin=pl.lit(origin),
        method=pl.lit("model"),
        calls_tools=pl.lit(value=False),
        chosen="completion",
        rejected="completion_other",
        models=pl.struct(chosen="model", rejected="model_other"),
        judgment_ids=pl.col("judgment_ids").list.set_union("judgment_ids_other").list.sort(),
    )


def without_pair(ratings: pl.DataFrame, paired: pl.DataFrame, otherwise: Reason) -> pl.DataFrame:
    """One row of `quarantine` for each prompt of `ratings` that is not in `paired`, with why it can have no pair."""
    texts = normalised("completion").n_unique()
    seen = ratings.group_by(GROUP).agg(
        pl.col("prompt").first(), pl.col("response_id").n_unique().alias("replies"), texts.alias("texts")
    )
    left = seen.join(paired, on=GROUP, how="anti")
    reason = (
        pl.when(pl.col("replies") < 2)
        .then(pl.lit(Reason.NO_CANDIDATE.value))
        .when(pl.col("texts") < 2)
        .then(pl.lit(Reason.IDENTICAL_SIDES.value))
        .otherwise(pl.lit(otherwise.value))
    )
    told = left.with_columns(
        reason=reason, id="prompt_id", source=pl.format("conversations#id={}", "conversation_id")
    )
    details = {why.value: text for why, text in _WITHOUT.items()}
    detail = pl.col("reason").replace_strict(details, return_dtype=pl.String)
    return quarantined(told.with_columns(detail=detail), "pair", ["conversation_id", "prompt"])
