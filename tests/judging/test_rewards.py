"""Rewards: transforms to the digit, and joined by id alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.judging.rewards import calibrated, centred, reference_rewards, summed, transformed

_SCHEMA = {"prompt_id": pl.String, "response_id": pl.String, "property": pl.String, "reward": pl.Float64}
_REWARDS = st.floats(-50, 50).map(lambda value: round(value, 3))


def _rewards(values: Sequence[float | None], prompt: str = "p", of: str = "helpful") -> pl.DataFrame:
    rows = [(prompt, f"r{n}", of, value) for n, value in enumerate(values)]
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _references(value: float, of: str = "helpful") -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": ["p"], "property": [of], "reference": [value]})


def test_centring_gives_the_worked_figures() -> None:
    """At the reference -0.6931, far above it 0, ten below it -10.00005, and a thousand below no overflow."""
    values = centred(_rewards([3.0, 1003.0, -7.0, -997.0]), _references(3.0)).get_column("utility").to_list()
    assert values == pytest.approx([-math.log(2), 0.0, -10.0000454, -1000.0], abs=1e-7)


def test_a_reference_is_of_its_own_property_and_prompt() -> None:
    """Without a reference of its own a reward is not centred, whatever references there are of others."""
    other = _references(1.0, "harmless")
    elsewhere = _references(1.0).with_columns(prompt_id=pl.lit("q"))
    found = centred(_rewards([3.0]), pl.concat([other, elsewhere]))
    assert found.get_column("utility").to_list() == [None]


def test_the_reference_is_a_quantile_per_prompt() -> None:
    """Each prompt has its own reference, the 85th percentile of its own samples; missing rewards count nowhere."""
    base = pl.concat([_rewards([*range(11), None, math.nan]), _rewards([5.0], prompt="q")])
    assert reference_rewards(base).rows() == [("p", "helpful", 8.5), ("q", "helpful", 5.0)]


@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20))
def test_a_sum_is_never_above_its_terms(one: float, other: float) -> None:
    """Summing log-probabilities is a logical AND: the sum is at most the smallest of them."""
    both = pl.concat([_rewards([one]), _rewards([other], of="harmless")])
    utilities = centred(both, pl.concat([_references(0), _references(0, "harmless")]))
    total = summed(utilities, {"helpful": 1, "harmless": 1}).get_column("utility").item()
    assert total <= min(utilities.get_column("utility")) + 1e-12


def test_weights_multiply_and_a_missing_property_is_no_zero() -> None:
    """A response that lacks one property has no sum; others are not touched by it."""
    both = pl.concat([_rewards([0.0, 0.0]), _rewards([0.0, None], of="harmless")])
    utilities = centred(both, pl.concat([_references(0), _references(0, "harmless")]))
    total = summed(utilities, {"helpful": 1, "harmless": 2}).rows()
    assert total == [("p", "r0", pytest.approx(-3 * math.log(2))), ("p", "r1", None)]
    with pytest.raises(ConfigError, match="weights"):
        summed(utilities, {"helpful": 0.0})


@pytest.mark.parametrize(("reward", "wanted"), [(2.0, 0.5), (6.0, 1.0), (0.5, 0.0), (None, None)])
def test_calibration_gives_the_worked_figures(reward: float | None, wanted: float | None) -> None:
    """Over rollouts 1, 2, 2, 5: 2 is at .5, 6 at 1, .5 at 0, and what has no reward has no place."""
    found = calibrated(_rewards([reward]), _rewards([1, 2, 2, 5])).get_column("calibrated").item()
    assert found == wanted


def test_a_prompt_without_rollouts_is_not_calibrated() -> None:
    """Rollouts of another prompt, or rewards of another property, are not taken instead."""
    other = pl.concat([_rewards([1.0], prompt="q"), _rewards([1.0], of="harmless")])
    assert calibrated(_rewards([2.0]), other).get_column("calibrated").to_list() == [None]


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(_REWARDS, min_size=1, max_size=8), st.randoms())
def test_rows_in_another_order_or_twice_change_nothing(values: list[float], random: object) -> None:
    """What a response gets depends on ids alone."""
    rows, base = _rewards(values), _rewards([-1.0, 0.0, 0.0, 7.0])
    order = list(range(len(values))) * 2
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis has no type for it
    moved = calibrated(rows[order], base[::-1]).sort("response_id")
    assert moved.equals(calibrated(rows, base).sort("response_id"))
    assert (
        centred(rows[order], _references(1.0))
        .sort("response_id")
        .equals(centred(rows, _references(1.0)).sort("response_id"))
    )


def test_two_rewards_for_one_response_are_refused() -> None:
    """Which of two is meant is not guessed."""
    with pytest.raises(BadInput, match="response_id"):
        calibrated(pl.concat([_rewards([1.0]), _rewards([2.0])]), _rewards([1.0]))


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["identity", "best_of_n", "worst_of_n"]))
def test_transforms_keep_the_order(one: float, other: float, name: str) -> None:
    """No transform makes the worse of two replies the better."""
    frame = pl.DataFrame({"c": [min(one, other), max(one, other)]})
    low, high = frame.select(transformed("c", name)).to_series()  # type: ignore[arg-type]
    assert low <= high


def test_transforms_have_their_formulas() -> None:
    """e^(tC) and -e^(-tC), at t = 10."""
    frame = pl.DataFrame({"c": [0.5]})
    found = frame.select(best=transformed("c", "best_of_n"), worst=transformed("c", "worst_of_n")).row(0)
    assert found == pytest.approx((math.exp(5), -math.exp(-5)))
    with pytest.raises(ConfigError, match="transform"):
        transformed("c", "median")  # type: ignore[arg-type]
