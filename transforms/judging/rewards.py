"""Rewards made comparable within a prompt, so that several of them can be added and judges of any scale compared.

Frames are long: one row per `prompt_id`, `response_id` and `property` (what the reward is of), joined by these alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import polars as pl

from tilth.schemas import BadInput, ConfigError

Transform = Literal["identity", "best_of_n", "worst_of_n"]

_KEY: Final = ["prompt_id", "response_id", "property"]
_GROUP: Final = ["prompt_id", "property"]


def once(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """`rows` without repeats. Raises `BadInput` where two rows with one key say different things."""
    distinct = rows.unique(maintain_order=True)
    twice = distinct.height - distinct.select(keys).n_unique() if distinct.height else 0
    if twice:
        raise BadInput(
            f"rows with one {', '.join(keys)}",
            found=f"{twice} that say something else",
            wanted="one row each",
        )
    return distinct


def finite(column: str) -> pl.Expr:
    """The values of a column; null where they are not finite."""
    return pl.when(pl.col(column).is_finite()).then(pl.col(column).cast(pl.Float64))


def log_sigmoid(column: pl.Expr) -> pl.Expr:
    """log(1 / (1 + e^-x)) without overflow.

    >>> pl.select(log_sigmoid(pl.lit(-1000.0))).item()
    -1000.0
    """
    return pl.min_horizontal(column, pl.lit(0.0)) - (-column.abs()).exp().log1p()


def reference_rewards(base: pl.DataFrame, quantile: float = 0.85) -> pl.DataFrame:
    """`prompt_id`, `property`, `reference`: a quantile of the base policy's rewards, linearly interpolated.

    Transforming Rewards (arXiv 2402.00742) takes the 85th percentile for helpfulness and the reward of a canned refusal
    for harmlessness; hand the latter over as a base with that one row. Rewards that are missing count nowhere.

    Args:
        base: `prompt_id`, `response_id`, `property`, `reward` of samples of the base policy (8 or more a prompt).
        quantile: in [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise ConfigError("the quantile of a reference reward", found=quantile, wanted="0 to 1")
    rows = once(base.select(*_KEY, reward=finite("reward")), _KEY).filter(pl.col("reward").is_not_null())
    reference = pl.col("reward").quantile(quantile, "linear")
    return rows.group_by(_GROUP).agg(reference=reference).sort(_GROUP)


def centred(rewards: pl.DataFrame, references: pl.DataFrame) -> pl.DataFrame:
    """`rewards` with `utility` = log sigma(reward - reference), at most 0 (log-sigmoid-centred, arXiv 2402.00742).

    -0.6931 (log 1/2) at the reference. Null where the reward or the prompt's reference is missing.
    """
    known = once(references.select(*_GROUP, "reference"), _GROUP)
    joined = once(rewards, _KEY).join(known, on=_GROUP, how="left", maintain_order="left")
    gap = finite("reward") - finite("reference")
    return joined.with_columns(utility=log_sigmoid(gap)).drop("reference")


def summed(utilities: pl.DataFrame, weights: Mapping[str, float]) -> pl.DataFrame:
    """`prompt_id`, `response_id`, `utility`: the weighted sum over properties, log P(good in every respect).

    Null where a property of `weights` is missing for a response: a sum of fewer terms is not comparable. Properties
    without a weight count nowhere. Raises `ConfigError` for weights that are not positive.
    """
    if not weights or not all(0 < weight < float("inf") for weight in weights.values()):
        raise ConfigError("weights of properties", found=dict(weights), wanted="one or more, above 0")
    table = pl.DataFrame({"property": list(weights), "weight": list(weights.values())})
    rows = once(utilities.select(*_KEY, "utility"), _KEY)
    weighed = rows.join(table, on="property", how="left", maintain_order="left")
    term = pl.col("utility") * pl.col("weight")
    whole = term.is_not_null().sum() == len(weights)
    grouped = weighed.group_by("prompt_id", "response_id").agg(utility=pl.when(whole).then(term.sum()))
    return grouped.sort("prompt_id", "response_id")


def calibrated(rewards: pl.DataFrame, base: pl.DataFrame) -> pl.DataFrame:
    """`rewards` with `calibrated` in [0, 1]: the share of base samples with less reward, half of the equal ones.

    C of InfAlign (arXiv 2412.19792): uniform under the base policy, so judges of any scale are comparable, and what a
    prompt is worth in itself is gone. Null where the reward is missing or the prompt has no base sample.
    """
    rows = once(rewards, _KEY)
    samples = once(base.select(*_KEY, "reward"), _KEY).select(*_GROUP, other=finite("reward"))
    against = rows.select(*_KEY, own=finite("reward")).join(samples.drop_nulls("other"), on=_GROUP)
    own, other = pl.col("own"), pl.col("other")
    share = (other < own).mean() + (other == own).mean() / 2
    shares = against.group_by(_KEY).agg(calibrated=share)
    return rows.join(shares, on=_KEY, how="left", maintain_order="left")


def transformed(column: str, transform: Transform, t: float = 10.0) -> pl.Expr:
    """Phi of InfAlign over a calibrated reward: what to maximise for the way in which replies will be drawn.

    `identity` for plain win rate, `best_of_n` e^(tC), `worst_of_n` -e^(-tC). All three grow with C, so they move
    margins and mean rewards, never which of two replies is better.
    """
    if not 0 < t < float("inf"):
        raise ConfigError("t of a transformed reward", found=t, wanted="above 0")
    value = pl.col(column)
    by_name: dict[str, pl.Expr] = {
        "identity": value,
        "best_of_n": (value * t).exp(),
        "worst_of_n": -(value * -t).exp(),
    }
    if transform not in by_name:
        raise ConfigError("the transform of a reward", found=transform, wanted=", ".join(by_name))
    return by_name[transform]
