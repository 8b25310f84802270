"""Choosing under constraints: no violator is chosen, no failed reply is used, no tie is a pair."""

from __future__ import annotations

import random
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.judging.constrained import (
    Chosen,
    all_true,
    constrained,
    constrained_pairs,
    weighted_replies,
)

_CHECKS = {"prompt_id": pl.String, "response_id": pl.String, "judge": pl.String, "passed": pl.Int32}
_SAMPLES = {"prompt_id": pl.String, "response_id": pl.String, "reward": pl.Float64}
_WORLDS = st.lists(
    st.tuples(st.sampled_from([-2.0, -1.0, 0.2, 0.5, 3.0, None]), st.sampled_from([1, 0, -1, None])),
    min_size=1,
    max_size=6,
)
World = Sequence[tuple[float | None, int | None]]


def _samples(world: World) -> pl.DataFrame:
    rows = [("p", f"r{n}", reward) for n, (reward, _) in enumerate(world)]
    return pl.DataFrame(rows, schema=_SAMPLES, orient="row")


def _checks(world: World, baseline: int | None = None) -> pl.DataFrame:
    said = [(f"r{n}", passed) for n, (_, passed) in enumerate(world)] + [("b", baseline)]
    rows = [("p", id_, "safety", passed) for id_, passed in said if passed is not None]
    return pl.DataFrame(rows, schema=_CHECKS, orient="row")


def _baselines(reward: float | None = 0.0) -> pl.DataFrame:
    return pl.DataFrame(
        {"prompt_id": ["p"], "baseline_id": ["b"], "baseline_reward": [reward]},
        schema_overrides={"baseline_reward": pl.Float64},
    )


def _known(world: World) -> pl.DataFrame:
    return constrained(_samples(world), _checks(world), _baselines())


def _sides(chosen: Chosen) -> list[tuple[str, str]]:
    return chosen.rows.select("chosen_id", "rejected_id").rows()


def _reasons(chosen: Chosen) -> list[str]:
    return chosen.skipped.get_column("reason").to_list()


def test_violators_are_masked_with_infinity() -> None:
    """With rewards -1, -2, .5, .2 and only the first two allowed: chosen 0, rejected 3 (the draft took 2 and 0)."""
    assert _sides(constrained_pairs(_known([(-1.0, 1), (-2.0, 1), (0.5, 0), (0.2, 0)]))) == [("r0", "r3")]


def test_where_all_satisfy_the_worst_is_rejected() -> None:
    """Without a violator, the lowest reward of all is the rejected side."""
    assert _sides(constrained_pairs(_known([(-1.0, 1), (-2.0, 1), (0.5, 1), (0.2, 1)]))) == [("r2", "r1")]


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        ([(1.0, 0), (2.0, 0)], "constraint_violated"),
        ([(1.0, 1), (1.0, 1)], "tie"),
        ([(1.0, 1)], "no_candidate"),
        ([(1.0, -1), (2.0, None)], "judges_failed"),
        ([(None, 1), (1.0, 1)], "no_candidate"),
    ],
)
def test_a_prompt_without_a_pair_says_why(world: World, reason: str) -> None:
    """Each prompt is in a pair or set aside with its reason."""
    found = constrained_pairs(_known(world))
    assert found.rows.is_empty()
    assert _reasons(found) == [reason]


def test_the_calibrated_reward_of_the_baseline_is_a_half() -> None:
    """sigma(0) = .5; a violator earns 0, and what no judge looked at or a failed one did earns nothing known."""
    known = _known([(0.0, 1), (0.0, 0), (0.0, -1), (0.0, None)])
    assert known.get_column("calibrated").to_list() == [0.5] * 4
    assert known.get_column("constrained").to_list() == [0.5, 0.0, None, None]


def test_without_a_baseline_nothing_is_calibrated() -> None:
    """A missing baseline reward is no reward of zero."""
    world: World = [(1.0, 1), (2.0, 0)]
    known = constrained(_samples(world), _checks(world), _baselines(None))
    assert _reasons(constrained_pairs(known)) == ["judges_failed"]


@pytest.mark.parametrize(("said", "wanted"), [([1, 1], 1), ([1, 0], 0), ([0, -1], -1), ([1, -1], -1)])
def test_all_judges_must_pass(said: list[int], wanted: int) -> None:
    """One failure makes the whole unknown, one violation makes it violated."""
    rows = [("p", "r", f"j{n}", passed) for n, passed in enumerate(said)]
    found = all_true(pl.DataFrame(rows, schema=_CHECKS, orient="row"))
    assert found.get_column("satisfied").to_list() == [wanted]


@pytest.mark.parametrize("said", [2, None])
def test_other_verdicts_are_refused(said: int | None) -> None:
    """What is neither 1, 0 nor -1 is not taken for one of them."""
    with pytest.raises(BadInput, match="constraints"):
        all_true(pl.DataFrame([("p", "r", "j", said)], schema=_CHECKS, orient="row"))


@pytest.mark.slow
@settings(deadline=None)
@given(_WORLDS, st.randoms())
def test_no_violator_is_chosen_and_no_failed_reply_is_used(world: World, order: random.Random) -> None:
    """In any world: chosen passed, neither side failed, the margin is above 0, and the order of rows is nothing."""
    known = _known(world)
    shuffled = list(range(len(world))) * 2
    order.shuffle(shuffled)
    found, moved = constrained_pairs(known), constrained_pairs(known[shuffled].unique())
    assert found.rows.equals(moved.rows)
    assert found.skipped.equals(moved.skipped)
    assert found.rows.height + found.skipped.height == 1
    verdicts = {f"r{n}": passed for n, (_, passed) in enumerate(world)}
    for _, chosen, rejected, high, low in found.rows.iter_rows():
        assert verdicts[chosen] == 1
        assert verdicts[rejected] in (0, 1)
        assert high > low


@pytest.mark.slow
@settings(deadline=None)
@given(_WORLDS, st.sampled_from([1, 0, -1, None]))
def test_what_is_trained_on_satisfies(world: World, baseline: int | None) -> None:
    """The weighted reply satisfies its judges; the baseline is taken only where no sample does, at .5."""
    found = weighted_replies(_known(world), _checks(world, baseline), _baselines())
    allowed = [reward for reward, passed in world if passed == 1 and reward is not None]
    assert found.rows.height + found.skipped.height == 1
    if allowed:
        assert found.rows.get_column("weight").item() == pytest.approx(
            1 / (1 + 2.718281828459045 ** -max(allowed))
        )
    elif baseline == 1:
        assert found.rows.row(0) == ("p", "b", 0.5)
    else:
        assert found.rows.is_empty()
