"""Pass rates of a policy's own replies: which prompts and criteria would teach it something.

Source: InfiMed-ORBIT (arXiv 2510.15859, section 3.3, pass@k). The filters buy compute, not quality: in the
paper's comparison no setting scored above none, and the strict sample filter cost about six points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.transforms.pairs.candidates import DROPPED
from tilth.transforms.rubrics.criteria import CRITERIA

RATES: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "criterion_id": pl.String,
        "pass_rate": pl.Float64,  # the share of the replies that meet it, [0, 1]
        "rollouts": pl.Int32,  # how many replies were graded by it
    }
)
MEANS: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "mean": pl.Float64,  # over replies and criteria, [0, 1]
        "rollouts": pl.Int32,  # how many replies were graded
    }
)
_DIGITS: Final = (
    9  # sums of shares in another order differ in the last bit, which would be a threshold missed
)


@dataclass(frozen=True, slots=True)
class PassRates:
    """Thresholds of the filters; the paper's names in brackets.

    Args:
        low: smallest mean of a prompt's grades (tau_low). 0 keeps prompts that every reply fails, as the paper's
            settings do.
        high: largest mean (tau_high): .75, or .5 for the paper's strict setting.
        criterion: a criterion that this share of replies meets, or more, is dropped (tau_r): .25, .5 or .75. Above 1
            drops none.
        min_score: a reply meets a criterion when this share of the judges says so (tau_s, which the paper holds
            against the one judge's 0 or 1: with one judge, all values say the same).
        min_rollouts: with fewer graded replies nothing is dropped.
    """

    low: float = 0.0
    high: float = 0.75
    criterion: float = 0.75
    min_score: float = 0.5
    min_rollouts: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            found = f"low={self.low}, high={self.high}"
            raise ConfigError("pass rates of prompts", found=found, wanted="0 to 1, low not above high")
        if not (self.criterion > 0 and 0 < self.min_score <= 1 and self.min_rollouts >= 1):
            found = (
                f"criterion={self.criterion}, min_score={self.min_score}, min_rollouts={self.min_rollouts}"
            )
            raise ConfigError("pass rates", found=found, wanted="above 0; above 0 and up to 1; 1 or more")


class Filtered(NamedTuple):
    """`CRITERIA` with their `pass_rate`, and rows of `quarantine` without `id`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def pass_rates(grades: pl.DataFrame, min_score: float = 0.5) -> pl.DataFrame:
    """`RATES`: of each criterion of `GRADES`, the share of replies that `min_score` of the judges say meet it.

    What could not be told takes no part: it is no pass and no fail. Several grades of one judge count as their mean.
    """
    cells = _cells(grades)
    passed = (pl.col("share") >= min_score - 10.0**-_DIGITS).mean()
    rates = cells.group_by("prompt_id", "criterion_id").agg(pass_rate=passed, rollouts=pl.len())
    return _fit(rates, RATES).sort("prompt_id", "criterion_id")


def sample_means(grades: pl.DataFrame) -> pl.DataFrame:
    """`MEANS`: of each prompt of `GRADES`, the mean over replies and criteria of the share of judges who say met.

    To the paper's letter: a mistake that is made counts as a pass here and in `pass_rates`, so a prompt whose every
    reply makes every mistake has mean 1.
    """
    by_prompt = _cells(grades).group_by("prompt_id")
    means = by_prompt.agg(
        mean=pl.col("share").mean().round(_DIGITS), rollouts=pl.col("response_id").n_unique()
    )
    return _fit(means, MEANS).sort("prompt_id")


def pass_filtered(criteria: pl.DataFrame, grades: pl.DataFrame, config: PassRates) -> Filtered:
    """Criteria that would teach the policy something.

    A prompt is kept when its mean over all its grades is in [`low`, `high`]; of a kept prompt, a criterion is kept when
    its pass rate is below `criterion`. Set aside are: criteria of prompts above `high`, and those at or above
    `criterion` (`saturated`, the detail says which); criteria of prompts below `low` (`not_discriminating`); and what
    is left of a prompt without a criterion of positive weight, with a row for the prompt (`no_criterion`). What was
    graded in fewer than `min_rollouts` replies is kept.

    Args:
        criteria: `CRITERIA`.
        grades: `GRADES` of the policy's replies by these criteria; those by others take no part.
        config: the thresholds.
    """
    known = grades.join(
        criteria, left_on=["prompt_id", "criterion_id"], right_on=["prompt_id", "id"], how="semi"
    )
    rates = pass_rates(known, config.min_score).rename({"criterion_id": "id", "pass_rate": "rate"})
    means = sample_means(known).select("prompt_id", "mean", replies="rollouts")
    rated = criteria.join(rates, on=["prompt_id", "id"], how="left", maintain_order="left")
    told = rated.join(means, on="prompt_id", how="left", maintain_order="left")
    judged = told.with_columns(*_objections(config), pass_rate="rate").with_columns(_reason())
    marked = _scorable(judged)
    kept = marked.filter(pl.col("reason").is_null())
    dropped = _dropped(marked.filter(pl.col("reason").is_not_null()), config)
    return Filtered(kept.select(CRITERIA.names()), dropped)


def _fit(rows: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    return rows.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _cells(grades: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `criterion_id`, `response_id`, and the `share` of judges who say that it is met."""
    told = grades.filter(pl.col("met").is_not_null())
    cell = ["prompt_id", "criterion_id", "response_id"]
    by_judge = told.group_by(*cell, "judge").agg(pl.col("met").mean())
    return by_judge.group_by(cell).agg(share=pl.col("met").mean())


def _objections(config: PassRates) -> list[pl.Expr]:
    """Whether a criterion is of a prompt `below`, of a prompt `above`, or met too `often`."""
    many, graded = (
        (pl.col(name) >= config.min_rollouts).fill_null(False) for name in ("replies", "rollouts")
    )
    return [
        (many & (pl.col("mean") < config.low)).alias("below"),
        (many & (pl.col("mean") > config.high)).alias("above"),
        (graded & (pl.col("rate") >= config.criterion)).alias("often"),
    ]


def _reason() -> pl.Expr:
    """`reason`, null for what is kept."""
    hard = pl.when("below").then(pl.lit(Reason.NOT_DISCRIMINATING.value))
    return hard.when(pl.col("above") | pl.col("often")).then(pl.lit(Reason.SATURATED.value)).alias("reason")


def _scorable(marked: pl.DataFrame) -> pl.DataFrame:
    """`marked`, with `no_criterion` for what is left of a prompt that has no criterion of positive weight left."""
    scorable = (pl.col("reason").is_null() & (pl.col("weight") > 0)).any().over("prompt_id")
    rest = pl.when(pl.col("reason").is_null() & ~scorable).then(pl.lit(Reason.NO_CRITERION.value))
    return marked.with_columns(reason=pl.coalesce("reason", rest), scorable=scorable)


def _dropped(rows: pl.DataFrame, config: PassRates) -> pl.DataFrame:
    criteria = rows.select(
        "reason",
        key=pl.format("rubrics#prompt={}&criterion={}", "prompt_id", "id"),
        detail=_detail(config),
        payload=pl.struct("description", "weight", "rate", "mean").struct.json_encode(),
    )
    prompts = (
        rows.filter(~pl.col("scorable"))
        .unique("prompt_id")
        .select(
            reason=pl.lit(Reason.NO_CRITERION.value),
            key=pl.format("rubrics#prompt={}", "prompt_id"),
            detail=pl.lit("no criterion of positive weight is left"),
            payload=pl.struct("prompt_id").struct.json_encode(),
        )
    )
    fixed = {"source": pl.lit("rubrics"), "stage": pl.lit("pass_rates"), "source_rows": pl.lit(0)}
    return _fit(pl.concat([criteria, prompts]).with_columns(**fixed), DROPPED).sort("key")


def _detail(config: PassRates) -> pl.Expr:
    mean, rate = (pl.col(name).round(4) for name in ("mean", "rate"))
    return (
        pl.when("below")
        .then(pl.format("the mean {} of its prompt is below {}", mean, pl.lit(config.low)))
        .when("above")
        .then(pl.format("the mean {} of its prompt is above {}", mean, pl.lit(config.high)))
        .when("often")
        .then(pl.format("{} of the replies meet it: {} or more", rate, pl.lit(config.criterion)))
        .otherwise(pl.lit("a mistake, in a rubric that wants nothing more"))
    )
