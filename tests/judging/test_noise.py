"""Self-consistency and accuracy without flips, to the digit of the worked figures."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest

from tilth.transforms.judging.aggregate import by_judge
from tilth.transforms.judging.noise import (
    Accuracy,
    accuracy,
    consistency,
    denoised,
    in_both_orders,
    towards_gold,
)
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import VOTES


def runs(*items: list[str | None]) -> pl.DataFrame:
    """Runs of a judge, a list per item."""
    rows = [(f"i{n}", verdict) for n, some in enumerate(items) for verdict in some]
    return pl.DataFrame(rows, schema={"item_id": pl.String, "verdict": pl.String}, orient="row")


def votes(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """`VOTES` without scores from item, first, sample and verdict."""
    return pl.DataFrame([(i, "j", f, n, v, None, None) for i, f, n, v in rows], schema=VOTES, orient="row")


def test_runs_one_one_one_nought_one() -> None:
    """Of five runs four agree: (.8 * .75 + .2 * 0) = .6; runs without a verdict do not count."""
    five: list[str | None] = ["win", "win", "win", "loss", "win"]
    assert consistency(runs(five)) == (1, pytest.approx(0.6))
    assert consistency(runs([*five, None, "failed"])) == (1, pytest.approx(0.6))
    assert consistency(runs(five, ["tie", "tie"], ["win"])) == (2, pytest.approx(0.8))


def test_one_run_says_nothing_of_noise() -> None:
    """Without an item that was judged twice self-consistency is null, and so is its noise."""
    assert consistency(runs(["win"], ["loss"])) == (0, None)
    assert consistency(runs(["win"])).noise is None
    assert consistency(runs(["win", "loss"])).noise == 1


def test_accuracy_without_flips() -> None:
    """acc .7 with noise .1 was .75; near a coin, or without a measure, there is nothing to correct."""
    assert denoised(0.7, 0.1) == pytest.approx(0.75)
    assert denoised(0.7, 0) == 0.7
    assert [denoised(0.7, e) for e in (0.46, 0.5, 0.54, None)] == [None] * 4
    assert denoised(0.7, 0.44) is not None
    assert denoised(None, 0.1) is None


def test_accuracy_counts_where_the_preferred_reply_stood() -> None:
    """A judge that always says what is shown first is right only there; a tie in one order still leans to the other."""
    biased = [(i, f, 0, "win" if f == 0 else "loss") for i in "wxyz" for f in (0, 1)]
    gold = pl.DataFrame({"item_id": list("wxyz"), "gold": ["win", "loss", "loss", "tie"]})
    towards = towards_gold(by_judge(votes(*biased), Aggregation()), gold)
    assert towards.rows() == [("w", 1, -1), ("x", 1, -1), ("y", 1, -1)]
    found = accuracy(towards)
    assert (found.n, found.both, found.shown_first, found.shown_second) == (3, 0, 1, 0)
    leaning = towards.with_columns(shown_second=pl.lit(0, pl.Int8))
    assert accuracy(leaning).both == 1
    failed = towards.with_columns(shown_second=pl.lit(None, pl.Int8))
    assert accuracy(failed) == Accuracy(0, None, None, None, None)


@pytest.mark.slow
def test_the_random_order_follows_from_the_item() -> None:
    """`random` is the same whatever the order of rows and whichever items stand beside; about half take each order."""
    names = [f"item {n}" for n in range(2000)]
    towards = pl.DataFrame({"item_id": names, "shown_first": 1, "shown_second": -1})
    drawn = {name: accuracy(towards.filter(item_id=name)).random for name in names}
    mixed = towards.sample(fraction=1, shuffle=True, seed=1)
    assert accuracy(mixed).random == pytest.approx(sum(value or 0 for value in drawn.values()) / 2000)
    assert 0.45 < (accuracy(towards).random or 0) < 0.55
    assert accuracy(towards, seed=1).random != accuracy(towards).random


def test_samples_that_disagree_between_orders_are_no_runs() -> None:
    """A sample counts as a run of both orders only where both say win or both say loss."""
    rows = [
        ("i", 0, 0, "win"),
        ("i", 1, 0, "win"),
        ("i", 0, 1, "win"),
        ("i", 1, 1, "loss"),
        ("i", 0, 2, "loss"),
    ]
    rows += [("i", 1, 2, "loss"), ("i", 0, 3, "win"), ("i", 1, 3, "failed"), ("i", 0, 4, "win")]
    made = in_both_orders(votes(*rows)).get_column("verdict").to_list()
    assert sorted(made, key=str) == [None, None, None, "loss", "win"]


def test_planted_flips_are_undone() -> None:
    """A judge means the right thing on 80 % of items and flips 10 % of its runs: with e = .1, .74 becomes .8 again."""
    lot = random.Random(3)
    rows: list[tuple[Any, ...]] = []
    for n in range(3000):
        means = "win" if n % 10 < 8 else "loss"
        for first in (0, 1):
            for sample in range(3):
                flipped = {"win": "loss", "loss": "win"}[means]
                rows.append((f"i{n}", first, sample, flipped if lot.random() < 0.1 else means))
    made = votes(*rows)
    first = made.filter(first=0, sample_index=0)
    right = (first.get_column("verdict") == "win").mean()
    # Two runs agree when both or neither flipped: .81 + .01. The paper's e is 1 - p_consist, about two flips' worth.
    assert consistency(made.filter(first=0)).p == pytest.approx(0.82, abs=0.01)
    assert isinstance(right, float)
    assert denoised(right, 0.1) == pytest.approx(0.8, abs=0.02)
