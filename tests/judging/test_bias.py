"""Planted biases come back within their intervals; what cannot be known is null."""

from __future__ import annotations

import random
from typing import Any, Final

import polars as pl
import pytest
from scipy.stats import binomtest

from tilth.transforms.judging.aggregate import by_judge
from tilth.transforms.judging.bias import Share, difference, flags, length, paired_difference, position, share
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import FACTS, VOTES

NO_GOLD: Final = pl.DataFrame(schema={"item_id": pl.String, "gold": pl.String})


def votes(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """`VOTES` without scores from item, first, sample and verdict."""
    return pl.DataFrame([(i, "j", f, n, v, None, None) for i, f, n, v in rows], schema=VOTES, orient="row")


def judged(items: int, first_share: float, samples: int = 1, seed: int = 0) -> pl.DataFrame:
    """A judge that prefers what is shown first on this share of items' orders, else reply a; every tenth vote fails."""
    lot = random.Random(seed)
    rows: list[tuple[Any, ...]] = []
    for item in range(items):
        for first in (0, 1):
            follows = lot.random() < first_share
            for sample in range(samples):
                verdict = ("win" if first == 0 else "loss") if follows else "win"
                rows.append((f"i{item:05}", first, sample, "failed" if lot.random() < 0.1 else verdict))
    return votes(rows)


@pytest.mark.parametrize(("won", "n"), [(0, 10), (3, 10), (10, 10), (487, 2000)])
def test_wilson_is_scipys(won: int, n: int) -> None:
    """Of independent votes the interval is Wilson's as scipy has it."""
    found = share([1.0] * won + [0.0] * (n - won), [1.0] * n)
    wanted = binomtest(won, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx(
        (wanted.low, wanted.high), abs=1e-3 if 0 < won < n else 1e-12
    )
    assert found.n == n


def test_votes_that_repeat_each_other_count_once() -> None:
    """Ten equal samples of 50 items are no 500 votes: the interval is that of 50."""
    one = share([1.0] * 30 + [0.0] * 20, [1.0] * 50)
    ten = share([10.0] * 30 + [0.0] * 20, [10.0] * 50)
    assert (ten.low, ten.high) == pytest.approx((one.low, one.high), abs=0.01)
    assert share([10.0] * 50, [10.0] * 50).low == pytest.approx(share([1.0] * 50, [1.0] * 50).low)


def test_nothing_to_count_is_null() -> None:
    """A share of nothing is null, not 0."""
    assert (
        share([], [])
        == share([0], [0])
        == flags(NO_GOLD, pl.col("gold").is_null())
        == Share(None, None, None, 0)
    )
    assert difference(share([], []), share([1], [1])).value is None
    assert paired_difference([], []) == Share(None, None, None, 0)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("planted", [0.0, 0.3, 1.0])
def test_a_planted_position_bias_is_recovered(planted: float, samples: int) -> None:
    """A judge that follows the first place on a share s of votes prefers it in (1 + s) / 2 of them; ties and failures
    do not blur that."""
    made = judged(1000, planted, samples)
    found = position(made, by_judge(made, Aggregation()), NO_GOLD).first_preferred
    assert found.low is not None
    assert found.high is not None
    assert found.low <= (1 + planted) / 2 <= found.high
    assert found.high - found.low < 0.08


@pytest.mark.slow
def test_the_interval_covers_as_it_says() -> None:
    """Over 100 judges with the same bias, 95 % intervals hold the planted share in 90 to 100 %."""
    held = 0
    for seed in range(100):
        made = judged(60, 0.4, 2, seed)
        found = position(made, by_judge(made, Aggregation()), NO_GOLD).first_preferred
        held += (found.low or 0) <= 0.7 <= (found.high or 0)
    assert held >= 90


def test_one_order_is_no_evidence_of_bias() -> None:
    """Where a sample failed in one order, or one order was not asked, the other one does not count."""
    rows = [
        ("x", 0, 0, "win"),
        ("x", 1, 0, "failed"),
        ("y", 0, 0, "win"),
        ("z", 0, 0, "tie"),
        ("z", 1, 0, "loss"),
    ]
    found = position(votes(rows), by_judge(votes(rows), Aggregation()), NO_GOLD)
    assert (found.first_preferred.value, found.first_preferred.n) == (1, 1)
    assert (found.conflict.value, found.conflict.n) == (1, 1)


def test_accuracy_by_place_and_without_flips() -> None:
    """acc_A - acc_B is 1 for a judge that follows the first place; without repeated samples no flips are known."""
    gold = pl.DataFrame({"item_id": [f"i{n:05}" for n in range(100)], "gold": ["win", "loss"] * 50})
    for samples, wanted in ((1, None), (2, 1.0)):
        rows = [
            (i, f, n, ("win", "loss")[f]) for i in gold["item_id"] for f in (0, 1) for n in range(samples)
        ]
        found = position(votes(rows), by_judge(votes(rows), Aggregation()), gold)
        assert found.accuracy_difference.value == 1
        assert (found.accuracy_difference.low or 0) < 1
        assert found.denoised == wanted


def lengthy(chars: list[tuple[int | None, int | None, str | None]]) -> pl.DataFrame:
    rows = [(f"i{n}", gold, a, b) for n, (a, b, gold) in enumerate(chars)]
    return pl.DataFrame(rows, schema=FACTS, orient="row")


def test_a_judge_that_only_looks_at_length() -> None:
    """It prefers the longer reply always, is right only where people do, and agrees with the baseline."""
    facts = lengthy(
        [(9, 1, "win"), (1, 9, "loss"), (9, 1, "loss"), (5, 5, "win"), (9, 1, "tie"), (None, 3, "win")]
    )
    verdicts = ["win", "loss", "win", "tie", "win", "loss"]
    made = votes([(f"i{n}", f, k, v) for n, v in enumerate(verdicts) for f in (0, 1) for k in (0, 1)])
    found = length(made, by_judge(made, Aggregation()), facts)
    assert (found.longer_preferred.value, found.longer_preferred.n) == (1, 4)
    assert found.gold_longer.value == pytest.approx(2 / 3)
    assert (found.right_where_longer.value, found.right_elsewhere.value) == (1, 0)
    assert (found.accuracy_difference.value, found.denoised) == (1, 1)
    assert found.baseline == pytest.approx(2 / 5)
    assert found.baseline_kappa == pytest.approx((0.4 - 0.36) / (1 - 0.36))


def test_without_lengths_nothing_is_said_of_length() -> None:
    """No lengths: every figure is null."""
    made = judged(5, 0.5)
    found = length(made, by_judge(made, Aggregation()), pl.DataFrame(schema=FACTS))
    assert (found.longer_preferred.value, found.baseline, found.baseline_kappa, found.denoised) == (None,) * 4
    assert found.accuracy_difference.n == 0


def test_paired_differences_never_claim_to_be_exact() -> None:
    """Even where all items agree, an interval has a width, and it holds the difference."""
    same = paired_difference([True] * 10, [True] * 10)
    assert same.value == 0
    assert (same.low or 0) < 0 < (same.high or 0)
    split = paired_difference([True] * 300 + [False] * 200, [True] * 200 + [False] * 300)
    assert split.value == pytest.approx(0.2)
    assert (split.low or 0) > 0.15
