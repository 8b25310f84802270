"""Votes become verdicts: per judge over both orders and all samples, then over the panel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import polars as pl

from tilth.schemas import ConfigError
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import BY_JUDGE, VERDICTS, checked, sign

_ONE: Final = ("item_id", "judge")
_COUNTED: Final = {"wins": "win", "losses": "loss", "ties": "tie", "failed": "failed"}
_OUTCOMES: Final = ("win", "loss", "tie", "inconsistent", "failed")
# Sums of floats differ in their last bits with the order of what is added; no verdict may hang on those.
_ROUNDING: Final = 1e-9


def by_judge(votes: pl.DataFrame, aggregation: Aggregation) -> pl.DataFrame:
    """One verdict per item and judge, as `BY_JUDGE`, sorted; neither the order of rows nor other items change one.

    A sample that failed in one order is skipped in the other one too. (FairEval, arXiv 2305.17926, skips it alone, and
    its means then lean to the order with more valid samples.) Per order, mean scores decide where all samples that
    count have scores, else the most frequent verdict (none: tie). Without a sample that is valid in both orders the
    verdict is failed: it never rests on one order. Raises `BadInput` for votes that cannot be meant (`checked`).
    """
    votes = checked(votes)
    asked = (pl.col("first").eq(first).any().alias(f"asked_{first}") for first in (0, 1))
    counts = (pl.col("verdict").eq(value).sum().alias(name) for name, value in _COUNTED.items())
    rows = votes.group_by(_ONE).agg(*asked, *counts)
    orders = _orders(votes, aggregation)
    for first in (0, 1):
        said = orders.filter(pl.col("first") == first).drop("first")
        rows = rows.join(
            said.rename(lambda name, n=first: name if name in _ONE else f"{name}_{n}"), on=_ONE, how="left"
        )
    return _in_both_orders(rows, aggregation).sort(_ONE)


def _orders(votes: pl.DataFrame, aggregation: Aggregation) -> pl.DataFrame:
    """What each judge said of each item in each order: `sign`, mean scores or null, whether the orders balance."""
    valid = votes.filter(pl.col("verdict") != "failed")
    paired = pl.col("first").n_unique().over(*_ONE, "sample_index") == 2
    balanced = valid.with_columns(balanced=paired).with_columns(any=pl.col("balanced").any().over(_ONE))
    counted = balanced.filter(pl.col("balanced") | ~pl.col("any"))
    scored = counted.with_columns(scored=pl.col("score_a").is_not_null().all().over(_ONE))
    orders = scored.group_by(*_ONE, "first").agg(
        *(pl.when("scored").then(name).mean().alias(name) for name in ("score_a", "score_b")),
        most=_most(sign("verdict")),
        balanced=pl.col("balanced").any(),
    )
    by_scores = _sign_of(pl.col("score_a") - pl.col("score_b"), aggregation.tie_margin)
    return orders.with_columns(sign=pl.coalesce(by_scores, "most")).drop("most")


def _most(signs: pl.Expr) -> pl.Expr:
    """The most frequent of the signs; 0 where two are as frequent."""
    wins, losses, ties = ((signs == value).sum() for value in (1, -1, 0))
    return _cases(wins > pl.max_horizontal(losses, ties), losses > pl.max_horizontal(wins, ties))


def _sign_of(difference: pl.Expr, margin: float) -> pl.Expr:
    """Whether a difference is above or below the margin; null for null."""
    line = margin + _ROUNDING
    return pl.when(difference.is_not_null()).then(_cases(difference > line, difference < -line))


def _cases(win: pl.Expr, loss: pl.Expr) -> pl.Expr:
    return pl.when(win).then(1).when(loss).then(-1).otherwise(0).cast(pl.Int8)


def _in_both_orders(rows: pl.DataFrame, aggregation: Aggregation) -> pl.DataFrame:
    first, second = pl.col("sign_0"), pl.col("sign_1")
    both = pl.when(pl.col("balanced_0") & pl.col("balanced_1"))
    means = {
        name: both.then((pl.col(f"{name}_0") + pl.col(f"{name}_1")) / 2) for name in ("score_a", "score_b")
    }
    agreed = pl.when(first == second).then(_word(first)).otherwise(pl.lit("inconsistent"))
    verdict = agreed
    if aggregation.rule == "mean":
        verdict = pl.coalesce(
            _word(_sign_of(means["score_a"] - means["score_b"], aggregation.tie_margin)), agreed
        )
    said = {
        f"verdict_{name}_first": pl.coalesce(
            _word(pl.col(f"sign_{n}")), pl.when(f"asked_{n}").then(pl.lit("failed"))
        )
        for n, name in enumerate("ab")
    }
    settled = rows.with_columns(**means, **said, verdict=pl.coalesce(both.then(verdict), pl.lit("failed")))
    return settled.select(pl.col(name).cast(kind) for name, kind in BY_JUDGE.items())


def _word(value: pl.Expr) -> pl.Expr:
    return value.replace_strict({1: "win", -1: "loss", 0: "tie"}, default=None, return_dtype=pl.String)


# The panel


def by_panel(votes: pl.DataFrame, aggregation: Aggregation, weights: Mapping[str, float]) -> pl.DataFrame:
    """One verdict per item, as `VERDICTS`, sorted by item; `weights` names the whole panel.

    A verdict needs more than half of the panel's weight; a judge without votes on an item counts as failed. Else the
    item is failed when half of the weight or more is, else inconsistent, as is one whose mean scores say otherwise:
    a margin always agrees with its verdict. Scores are weighted means over the judges that have them. `needs_person`:
    the share of items with the highest entropy (BPDE; FairEval, arXiv 2305.17926, section 3.3), rounded up; of equal
    ones those with the narrower margin; items without any valid vote come last. Raises `ConfigError` for a judge that
    the panel does not have, `BadInput` for votes that cannot be meant.
    """
    one = by_judge(votes, aggregation)
    unknown = sorted(set(one.get_column("judge")) - set(weights))
    if unknown:
        raise ConfigError("judges without a weight", found=", ".join(unknown), wanted=", ".join(weights))
    weight = pl.col("judge").replace_strict(dict(weights), return_dtype=pl.Float64)
    said = one.with_columns(weight=weight, conflict=_conflict())
    shares = ((pl.col("verdict") == verdict).alias(verdict) for verdict in _OUTCOMES)
    items = said.group_by("item_id").agg(
        *(pl.col("weight").filter(said).sum().alias(_share(said.meta.output_name())) for said in shares),
        *(pl.col(name).sum() for name in _COUNTED),
        *(_weighted(name) for name in ("score_a", "score_b")),
        pl.col("conflict").max(),  # true before false; null where all are null
    )
    whole = math.fsum(weights.values())
    absent = whole - pl.sum_horizontal(_share(verdict) for verdict in _OUTCOMES)
    settled = items.with_columns(
        pl.col(_share("failed")) + absent, margin=pl.col("score_a") - pl.col("score_b"), bpde=_entropy()
    ).with_columns(verdict=_of_panel(whole, aggregation.tie_margin))
    return _with_person(settled, aggregation.person_share)


def _share(verdict: str) -> str:
    return f"weight_{verdict}"


def _conflict() -> pl.Expr:
    """Whether a judge says otherwise in the other order; null where it said nothing valid in one of them."""
    sides = pl.col("verdict_a_first"), pl.col("verdict_b_first")
    known = pl.all_horizontal(side.is_in(("win", "loss", "tie")) for side in sides)
    return pl.when(known).then(sides[0] != sides[1])


def _weighted(name: str) -> pl.Expr:
    weight = pl.col("weight").filter(pl.col(name).is_not_null())
    mean = (pl.col(name).drop_nulls() * weight).sum() / weight.sum()
    return pl.when(weight.len() > 0).then(mean).alias(name)


def _entropy() -> pl.Expr:
    """BPDE: the entropy of win, loss and tie among the valid votes, in nats; null without any."""
    valid = pl.sum_horizontal("wins", "losses", "ties")
    terms = [
        pl.when(pl.col(name) > 0).then(-(pl.col(name) / valid) * (pl.col(name) / valid).log()).otherwise(0.0)
        for name in ("wins", "losses", "ties")
    ]
    return pl.when(valid > 0).then(terms[0] + terms[1] + terms[2])


def _of_panel(whole: float, tie_margin: float) -> pl.Expr:
    half, margin = whole / 2, pl.col("margin")
    rounding = _ROUNDING * whole
    against = {
        "win": margin <= _ROUNDING,
        "loss": margin >= -_ROUNDING,
        "tie": margin.abs() > tie_margin + _ROUNDING,
        "inconsistent": pl.lit(value=False),
    }
    decided = [
        pl.when((pl.col(_share(verdict)) > half + rounding) & ~contradicted.fill_null(value=False)).then(
            pl.lit(verdict)
        )
        for verdict, contradicted in against.items()
    ]
    failed = pl.when(pl.col(_share("failed")) >= half - rounding).then(pl.lit("failed"))
    return pl.coalesce(*decided, failed, pl.lit("inconsistent"))


def _with_person(items: pl.DataFrame, share: float) -> pl.DataFrame:
    count = math.ceil(share * items.height - _ROUNDING)
    ranked = items.sort(
        pl.col("bpde").round(9),
        pl.col("margin").abs().round(9),
        "item_id",
        descending=[True, False, False],
        nulls_last=True,
    ).with_columns(needs_person=pl.int_range(pl.len()) < count)
    return ranked.select(pl.col(name).cast(kind) for name, kind in VERDICTS.items()).sort("item_id")
