"""Choosing under constraints: a mixture of judges that a reply must pass, beside the reward that it may earn.

CGPO (arXiv 2409.20370). Two deliberate differences from the draft trainer in TRL (never released): what violates is
masked with infinity and not with zero, since zero beats every negative reward; and there is no gate on the KL
divergence, since logged data hold no log-probabilities.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from tilth.schemas import BadInput, Reason
from tilth.transforms.judging.rewards import finite, once

FALLBACK_WEIGHT: Final = 0.5  # of the baseline reply, sigma(0)
_KEY: Final = ["prompt_id", "response_id"]


class Chosen(NamedTuple):
    """What was chosen per prompt, and prompts without a choice: `prompt_id`, `reason` (a `Reason`), `detail`."""

    rows: pl.DataFrame
    skipped: pl.DataFrame


def all_true(checks: pl.DataFrame) -> pl.DataFrame:
    """`prompt_id`, `response_id`, `satisfied`: -1 if any judge failed, else 1 if all passed, else 0 (AllTrue).

    Args:
        checks: `prompt_id`, `response_id`, `judge`, `passed` (1, 0, or -1 where the judge failed).

    Raises:
        BadInput: for another value, a null, or two values of one judge.
    """
    passed = pl.col("passed")
    strange = checks.filter(~passed.is_in([1, 0, -1]).fill_null(value=False)).height
    if strange:
        raise BadInput(
            "what judges of constraints said", found=f"{strange} other values", wanted="1, 0 or -1"
        )
    rows = once(checks.select(*_KEY, "judge", pl.col("passed").cast(pl.Int32)), [*_KEY, "judge"])
    return rows.group_by(_KEY).agg(satisfied=passed.min()).sort(_KEY)


def constrained(samples: pl.DataFrame, checks: pl.DataFrame, baselines: pl.DataFrame) -> pl.DataFrame:
    """`samples` with `calibrated` = sigma(reward - baseline), `satisfied`, and `constrained`: their product.

    `constrained` is 0 for a violator and null where a judge failed, or where a reward or the prompt's baseline is
    missing. A sample that no judge looked at counts as failed.

    Args:
        samples: `prompt_id`, `response_id`, `reward`.
        checks: what `all_true` reads.
        baselines: `prompt_id`, `baseline_id`, `baseline_reward`, one a prompt (the logged or reference reply).
    """
    rows = once(samples.select(*_KEY, reward=finite("reward")), _KEY)
    named = once(baselines.select("prompt_id", "baseline_reward"), ["prompt_id"])
    joined = rows.join(named, on="prompt_id", how="left", maintain_order="left")
    judged = joined.join(all_true(checks), on=_KEY, how="left", maintain_order="left")
    calibrated = 1 / (1 + (-(pl.col("reward") - finite("baseline_reward"))).exp())
    satisfied = pl.col("satisfied").fill_null(-1)
    value = pl.when(satisfied >= 0).then(pl.col("calibrated") * satisfied)
    known = judged.with_columns(calibrated=calibrated, satisfied=satisfied).with_columns(constrained=value)
    return known.drop("baseline_reward")


def constrained_pairs(samples: pl.DataFrame) -> Chosen:
    """One pair a prompt: the best that satisfies, over the worst that violates (CODPO).

    Where all satisfy, the worst of them is rejected; where none does, the prompt is skipped. Samples whose judges
    failed are in no pair. Replies of equal reward are chosen between by the smaller id. The margin is that of
    `constrained`, so it is positive also where a violator earned the higher reward.

    Returns:
        `prompt_id`, `chosen_id`, `rejected_id`, `chosen_score`, `rejected_score`.
    """
    usable = samples.filter(pl.col("constrained").is_not_null())
    best = _first(usable.filter(pl.col("satisfied") == 1), -pl.col("reward"))
    worst = _first(usable, "satisfied", "reward")  # violators come first, whatever they earned
    both = best.join(worst, on="prompt_id", suffix="_other")
    pairs = both.select(
        "prompt_id",
        chosen_id="response_id",
        rejected_id="response_id_other",
        chosen_score="constrained",
        rejected_score="constrained_other",
    )
    apart = pairs.filter(pl.col("chosen_score") > pl.col("rejected_score"))
    return Chosen(apart.sort("prompt_id"), _skipped(samples, apart))


def _first(rows: pl.DataFrame, *order: str | pl.Expr) -> pl.DataFrame:
    """The first row of each prompt by `order`, then by id."""
    return rows.sort(*order, "response_id").unique("prompt_id", keep="first", maintain_order=True)


def _skipped(samples: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    satisfied, value = pl.col("satisfied"), pl.col("constrained")
    known = value.is_not_null()
    seen = samples.group_by("prompt_id").agg(
        usable=known.sum(),
        satisfying=(known & (satisfied == 1)).sum(),
        violating=(known & (satisfied == 0)).sum(),
    )
    left = seen.join(pairs, on="prompt_id", how="anti")
    none, alone = pl.col("usable") == 0, pl.col("usable") == 1
    reason = (
        pl.when(none)
        .then(pl.lit(Reason.JUDGES_FAILED.value))
        .when(pl.col("satisfying") == 0)
        .then(pl.lit(Reason.CONSTRAINT_VIOLATED.value))
        .when(alone)
        .then(pl.lit(Reason.NO_CANDIDATE.value))
        .otherwise(pl.lit(Reason.TIE.value))
    )
    detail = pl.format("{} of the usable replies satisfy, {} violate", "satisfying", "violating")
    return left.select("prompt_id", reason=reason, detail=detail).sort("prompt_id")


def weighted_replies(samples: pl.DataFrame, checks: pl.DataFrame, baselines: pl.DataFrame) -> Chosen:
    """One reply a prompt to fine-tune on, with its weight in (0, 1): the best that satisfies (CRRAFT).

    Where none satisfies, the baseline with weight 0.5 if it passes its judges itself; else the prompt is skipped.

    Args:
        samples: what `constrained` returns.
        checks: what `all_true` reads, of baselines too.
        baselines: as for `constrained`.

    Returns:
        `prompt_id`, `response_id`, `weight`.
    """
    best = _first(samples.filter(pl.col("constrained") > 0), -pl.col("reward"))
    own = best.select(*_KEY, weight="constrained")
    named = once(baselines.select("prompt_id", response_id="baseline_id"), ["prompt_id"])
    passing = named.join(all_true(checks).filter(pl.col("satisfied") == 1), on=_KEY, how="semi")
    asked = passing.join(samples, on="prompt_id", how="semi").join(own, on="prompt_id", how="anti")
    rows = pl.concat([own, asked.select(*_KEY, weight=pl.lit(FALLBACK_WEIGHT))])
    return Chosen(rows.sort("prompt_id"), _skipped(samples, rows))
