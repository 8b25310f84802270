"""Probabilities that people agree: learned on gold, measured on unseen items, refused where there is too little."""

from __future__ import annotations

import random
from typing import Any, Literal

import polars as pl
import pytest

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.judging.calibration import calibrate
from tilth.transforms.judging.votes import VERDICTS


def world(items: int, *, scored: bool = True, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Verdicts whose margin m in 1 to 9 is right with probability .5 + m / 20, each said with all votes; and gold."""
    lot = random.Random(seed)
    rows, gold = [], []
    for n in range(items):
        margin, wins = lot.randint(1, 9), lot.random() < 0.5
        right = lot.random() < 0.5 + margin / 20
        votes = (10 + margin, 10 - margin) if not scored else (6, 0)
        rows.append(
            {
                "item_id": f"i{n}",
                "verdict": "win" if wins else "loss",
                "margin": (margin if wins else -margin) if scored else None,
                "wins": votes[not wins],
                "losses": votes[wins],
                "ties": 0,
            }
        )
        gold.append((f"i{n}", "win" if wins == right else "loss"))
    empty: dict[str, Any] = dict(VERDICTS)
    frame = pl.DataFrame(
        rows, schema_overrides={name: kind for name, kind in empty.items() if name in rows[0]}
    )
    return frame, pl.DataFrame(gold, schema=["item_id", "gold"], orient="row")


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_the_planted_probabilities_are_learned(method: Literal["isotonic", "platt"]) -> None:
    """Judges that seem certain and are right in three of four: the error falls, the map gives what was planted."""
    made = calibrate(*world(2000), method)
    assert (made.n, made.signal) == (2000, "margin")
    assert made.ece_before == pytest.approx(made.brier_before, abs=1e-9)
    assert made.ece_before == pytest.approx(0.25, abs=0.03)
    assert made.ece_after < 0.05
    assert made.brier_after < made.brier_before - 0.03
    assert made.probability([1, 5, 9]) == pytest.approx([0.55, 0.75, 0.95], abs=0.1)
    assert sum(one.n for one in made.after) == 2000
    assert [one.said for one in made.before] == [1.0]


def test_votes_serve_where_there_are_no_scores() -> None:
    """Without margins the share of votes for the verdict is the signal, and is calibrated already when it is true."""
    made = calibrate(*world(2000, scored=False))
    assert made.signal == "share"
    assert made.ece_before < 0.05
    assert made.probability([0.55, 0.95]) == pytest.approx([0.55, 0.95], abs=0.1)


def test_order_and_sides_change_nothing() -> None:
    """Permuted rows, and a and b swapped, give the same calibration."""
    verdicts, gold = world(300)
    made = calibrate(verdicts, gold)
    assert calibrate(verdicts.sample(fraction=1, shuffle=True, seed=1), gold[::-1]) == made
    other = {"win": "loss", "loss": "win"}
    swapped = verdicts.with_columns(
        margin=-pl.col("margin"),
        wins="losses",
        losses="wins",
        verdict=pl.col("verdict").replace_strict(other),
    )
    assert calibrate(swapped, gold.with_columns(pl.col("gold").replace_strict(other))) == made


def test_too_little_gold_is_refused() -> None:
    """Under fifty decided gold items there is an error that says how many there are; undecided ones do not count."""
    verdicts, gold = world(60)
    assert calibrate(verdicts, gold).n == 60
    with pytest.raises(BadInput, match="49 items"):
        calibrate(verdicts, gold[:49])
    with pytest.raises(BadInput, match="0 items"):
        calibrate(verdicts.with_columns(verdict=pl.lit("inconsistent")), gold)
    assert calibrate(verdicts, gold[:20], at_least=20).n == 20
    with pytest.raises(ConfigError, match="isotonic or platt"):
        calibrate(verdicts, gold, "histogram")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_judges_that_are_always_right(method: Literal["isotonic", "platt"]) -> None:
    """Where people agree with everything the probability is 1, and no fit fails."""
    verdicts, gold = world(80)
    made = calibrate(verdicts, verdicts.select("item_id", gold="verdict"), method)
    assert made.probability([0, 3, 100]) == [1, 1, 1]
    assert made.brier_after == 0
    tied = calibrate(verdicts, gold.with_columns(gold=pl.lit("tie")), method)
    assert tied.probability([3]) == [0]


def test_what_was_learned_by_heart_does_not_count() -> None:
    """Where margins tell nothing, errors on unseen items are those of a coin, however well a map fits its own."""
    lot = random.Random(2)
    verdicts, gold = world(150)
    blind = verdicts.with_columns(
        margin=pl.Series([lot.uniform(1, 9) for _ in range(150)]), verdict=pl.lit("win")
    )
    coin = gold.with_columns(gold=pl.Series([lot.choice(["win", "loss"]) for _ in range(150)]))
    assert calibrate(blind, coin).brier_after > 0.249
