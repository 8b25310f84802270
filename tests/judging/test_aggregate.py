"""Votes become verdicts that neither order, ties, failures nor other items change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.judging.aggregate import by_judge, by_panel
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import BY_JUDGE, VERDICTS, VOTES

BOTH: Final = Aggregation()
MEAN: Final = Aggregation(rule="mean")
SWAPPED: Final = {
    "win": "loss",
    "loss": "win",
    "tie": "tie",
    "failed": "failed",
    "inconsistent": "inconsistent",
}
FAIREVAL: Final = [(9, 7), (8, 8), (6, 9)]


def said(
    item: str, judge: str, first: int, said: Sequence[str | tuple[float, float] | None]
) -> list[tuple[Any, ...]]:
    """Rows of `VOTES`, one a sample: a verdict, the two scores, or None for a failed vote."""
    rows: list[tuple[Any, ...]] = []
    for n, one in enumerate(said):
        if isinstance(one, tuple):
            verdict = "win" if one[0] > one[1] else "loss" if one[0] < one[1] else "tie"
            rows.append((item, judge, first, n, verdict, *one))
        else:
            rows.append((item, judge, first, n, one or "failed", None, None))
    return rows


def votes(*rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    return pl.DataFrame([row for some in rows for row in some], schema=VOTES, orient="row")


def verdict(first: list[Any], second: list[Any], how: Aggregation = BOTH) -> str:
    """The verdict of one judge that said this with a shown first, and that with b shown first."""
    made = by_judge(votes(said("i", "j", 0, first), said("i", "j", 1, second)), how)
    return made.get_column("verdict").item()


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ("win", "win", "win"),
        ("loss", "loss", "loss"),
        ("tie", "tie", "tie"),
        ("win", "loss", "inconsistent"),
        ("win", "tie", "inconsistent"),
        ("tie", "loss", "inconsistent"),
        ("win", None, "failed"),
        (None, "tie", "failed"),
        (None, None, "failed"),
    ],
)
def test_a_verdict_stands_in_both_orders(first: str | None, second: str | None, wanted: str) -> None:
    """A side wins when it wins in both orders; one failed order fails the item, and is neither a tie nor a loss."""
    assert verdict([first], [second]) == wanted
    assert verdict([first], [second], MEAN) == wanted


def test_one_order_decides_nothing() -> None:
    """A verdict never rests on one order: without votes of the other the judge has failed, and what it said is kept."""
    made = by_judge(votes(said("i", "j", 1, ["win", "win"])), BOTH).row(0, named=True)
    assert (made["verdict"], made["verdict_a_first"], made["verdict_b_first"]) == ("failed", None, "win")


def test_the_worked_example_of_fair_eval() -> None:
    """Scores (9,7), (8,8), (6,9) and the same swapped: the mean decides, 23/3 against 24/3."""
    swapped = votes(said("i", "j", 0, FAIREVAL), said("i", "j", 1, FAIREVAL))
    made = by_panel(swapped, MEAN, {"j": 1}).row(0, named=True)
    assert made["score_a"] == pytest.approx(23 / 3)
    assert made["score_b"] == pytest.approx(8)
    assert (made["verdict"], made["wins"], made["losses"], made["ties"]) == ("loss", 2, 2, 2)
    assert made["bpde"] == pytest.approx(math.log(3))
    leaning = votes(said("i", "j", 0, FAIREVAL), said("i", "j", 1, [(b, a) for a, b in FAIREVAL]))
    assert by_panel(leaning, MEAN, {"j": 1}).row(0, named=True)["verdict"] == "tie"
    assert by_panel(leaning, BOTH, {"j": 1}).row(0, named=True)["verdict"] == "inconsistent"


def test_entropy_of_four_wins_a_loss_and_a_tie() -> None:
    """BPDE of (4, 1, 1) of six votes is .868 nats; failed votes take no part, and without valid ones it is null."""
    first, second = ["win", "win", "loss", None], ["win", "win", "tie", None]
    made = by_panel(votes(said("i", "j", 0, first), said("i", "j", 1, second)), BOTH, {"j": 1}).row(
        0, named=True
    )
    assert made["bpde"] == pytest.approx(0.868, abs=5e-4)
    assert made["failed"] == 2
    none = by_panel(votes(said("i", "j", 0, [None])), BOTH, {"j": 1}).row(0, named=True)
    assert (none["bpde"], none["conflict"], none["margin"], none["verdict"]) == (None, None, None, "failed")


def test_a_failed_sample_is_skipped_in_both_orders() -> None:
    """The counterpart of a failed sample does not count: unbalanced means would lean to one order."""
    first: list[Any] = [(9, 1), (9, 1), (2, 8)]
    assert verdict(first, [None, None, (2, 8)]) == "loss"
    assert verdict(first, [None, None, (2, 8)], MEAN) == "loss"
    assert verdict([(9, 1), None], [None, (9, 1)]) == "failed"


def test_scores_decide_only_where_all_votes_have_them() -> None:
    """One vote without scores: the most frequent verdict decides in both orders, and equal counts are a tie."""
    made = by_judge(votes(said("i", "j", 0, [(9, 1), "loss", "loss"]), said("i", "j", 1, ["loss"] * 3)), BOTH)
    assert made.select("verdict", "score_a").row(0) == ("loss", None)
    assert verdict([(9, 1), (4, 5), (4, 5)], ["loss"] * 3) == "loss"
    assert verdict(["win", "loss"], ["win", "loss"]) == "tie"
    assert verdict(["win", "tie", "loss", "win"], ["win", "win", "tie", "loss"]) == "win"


def test_a_margin_of_ties() -> None:
    """Mean scores that differ by no more than `tie_margin` are a tie, also where floats are not exact."""
    assert verdict([(8.3, 8.0)], [(8.3, 8.0)], Aggregation(tie_margin=0.3)) == "tie"
    assert verdict([(8.4, 8.0)], [(8.4, 8.0)], Aggregation("mean", tie_margin=0.3)) == "win"


def panel(
    weights: dict[str, float], said_by: dict[str, list[Any]], how: Aggregation = BOTH
) -> dict[str, Any]:
    """The panel's verdict where each judge says the same in both orders."""
    rows = [said("i", judge, first, what) for judge, what in said_by.items() for first in (0, 1)]
    return by_panel(votes(*rows), how, weights).row(0, named=True)


def test_a_panel_needs_more_than_half_of_all_weight() -> None:
    """Judges that failed or were silent keep their weight; half is not more than half."""
    three = {"a": 1.0, "b": 1.0, "c": 1.0}
    assert panel(three, {"a": ["win"], "b": ["win"], "c": ["loss"]})["verdict"] == "win"
    assert panel(three, {"a": ["win"], "b": ["loss"], "c": ["tie"]})["verdict"] == "inconsistent"
    assert panel(three, {"a": ["win"], "b": ["win"]})["verdict"] == "win"
    assert panel(three, {"a": ["win"], "b": [None]})["verdict"] == "failed"
    assert panel({"a": 1, "b": 1}, {"a": ["win"]})["verdict"] == "failed"
    assert (
        panel({"a": 0.1, "b": 0.2, "c": 0.3}, {"a": ["win"], "b": ["win"], "c": ["loss"]})["verdict"]
        == "inconsistent"
    )
    assert panel({"a": 2.5, "b": 1, "c": 1}, {"a": ["loss"], "b": ["win"], "c": ["win"]})["verdict"] == "loss"


def test_a_margin_agrees_with_its_verdict() -> None:
    """Two judges barely prefer a, one much prefers b: the mean says b, so the panel's verdict is inconsistent."""
    made = panel({"a": 1, "b": 1, "c": 1}, {"a": [(6, 5)], "b": [(6, 5)], "c": [(1, 9)]})
    assert made["margin"] == pytest.approx(-2)
    assert made["verdict"] == "inconsistent"
    tied = panel({"a": 1, "b": 1, "c": 1}, {"a": [(5, 5)], "b": [(5, 5)], "c": [(1, 9)]})
    assert tied["verdict"] == "inconsistent"


def test_conflict_is_known_only_where_both_orders_spoke() -> None:
    """One judge that says otherwise in the other order is a conflict; a failed order says nothing."""
    rows = [
        said("x", "j", 0, ["win"]),
        said("x", "j", 1, ["tie"]),
        said("y", "j", 0, ["win"]),
        said("y", "j", 1, [None]),
    ]
    rows += [said("z", "j", 0, ["win"]), said("z", "j", 1, ["win"])]
    made = by_panel(votes(*rows), BOTH, {"j": 1})
    assert made.select("item_id", "conflict").rows() == [("x", True), ("y", None), ("z", False)]


def test_a_person_sees_the_most_uncertain() -> None:
    """The share with the highest entropy, rounded up; of equal entropy the narrower margin; never by place."""
    rows = [said(f"sure{n}", "j", first, [(9, 1)]) for n in range(5) for first in (0, 1)]
    rows += [said("torn", "j", 0, ["win"]), said("torn", "j", 1, ["loss"])]
    rows += [said("close", "j", first, [(6, 5)]) for first in (0, 1)]
    rows += [said("dead", "j", first, [None]) for first in (0, 1)]
    chosen = {
        share: by_panel(votes(*rows), Aggregation(person_share=share), {"j": 1})
        .filter("needs_person")["item_id"]
        .to_list()
        for share in (0.0, 0.1, 0.25, 1.0)
    }
    assert chosen[0.0] == []
    assert chosen[0.1] == ["torn"]
    assert chosen[0.25] == ["close", "torn"]
    assert len(chosen[1.0]) == 8


def test_unknown_judges_and_broken_votes_are_refused() -> None:
    """A judge without a weight, a vote twice, an odd verdict and scores against the verdict: errors with counts."""
    whole = votes(said("i", "j", 0, [(9, 1)]), said("i", "j", 1, [(9, 1)]))
    with pytest.raises(ConfigError, match="j"):
        by_panel(whole, BOTH, {"k": 1})
    broken = {
        "twice": pl.concat([whole, whole[:1]]),
        "unknown verdict": whole.with_columns(verdict=pl.lit("A")),
        "contradict": whole.with_columns(verdict=pl.lit("tie")),
        "half a pair": whole.with_columns(score_b=pl.lit(None, pl.Float64)),
        "failed, and scored": whole.with_columns(verdict=pl.lit("failed")),
        "no numbers": whole.with_columns(score_a=pl.lit(float("nan"))),
        "neither 0 nor 1": whole.with_columns(first=pl.lit(2)),
        "not named": whole.with_columns(judge=pl.lit(None, pl.String)),
    }
    for words, frame in broken.items():
        with pytest.raises(BadInput, match=words):
            by_judge(frame, BOTH)


def test_no_votes_are_no_verdicts() -> None:
    """An empty frame gives empty frames of the right schema."""
    assert by_judge(pl.DataFrame(schema=VOTES), BOTH).schema == BY_JUDGE
    assert by_panel(pl.DataFrame(schema=VOTES), BOTH, {"j": 1}).schema == VERDICTS


one_vote = st.one_of(
    st.sampled_from(["win", "loss", "tie", None]),
    st.tuples(st.integers(1, 10), st.sampled_from([1, 2.5, 7, 9.1])),
)
one_judge = st.tuples(st.lists(one_vote, max_size=3), st.lists(one_vote, max_size=3))
world = st.dictionaries(
    st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(["large", "mid", "small"])),
    one_judge,
    min_size=1,
    max_size=9,
)
rules = st.builds(
    Aggregation, rule=st.sampled_from(["both_orders", "mean"]), tie_margin=st.sampled_from([0.0, 0.5, 2.0])
)
WEIGHTS: Final = {"large": 0.3, "mid": 0.2, "small": 0.1}


def frame(made: dict[tuple[str, str], Any]) -> pl.DataFrame:
    return votes(*(said(*key, first, some) for key, both in made.items() for first, some in enumerate(both)))


def mirrored(rows: pl.DataFrame) -> pl.DataFrame:
    """The same votes with a and b swapped."""
    return rows.with_columns(
        first=1 - pl.col("first"),
        verdict=pl.col("verdict").replace_strict(SWAPPED),
        score_a=pl.col("score_b"),
        score_b=pl.col("score_a"),
    )


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(world, rules, st.randoms(use_true_random=False))
def test_permuted_rows_change_nothing(made: dict[tuple[str, str], Any], how: Aggregation, lot: Any) -> None:
    """Whatever the order of rows, every verdict is the same, and so is who goes to a person."""
    rows = frame(made)
    order = list(range(rows.height))
    lot.shuffle(order)
    assert by_panel(rows[order], how, WEIGHTS).equals(by_panel(rows, how, WEIGHTS))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(world, rules)
def test_swapped_replies_swap_the_verdict(made: dict[tuple[str, str], Any], how: Aggregation) -> None:
    """With a and b swapped throughout, every verdict is mirrored, and entropy, conflict and selection stay."""
    one, other = by_panel(frame(made), how, WEIGHTS), by_panel(mirrored(frame(made)), how, WEIGHTS)
    assert one["verdict"].replace_strict(SWAPPED).to_list() == other["verdict"].to_list()
    same = ["item_id", "bpde", "conflict", "needs_person"]
    assert one.select(same).equals(other.select(same))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(world, world, rules)
def test_other_items_change_nothing(
    made: dict[tuple[str, str], Any], others: dict[tuple[str, str], Any], how: Aggregation
) -> None:
    """Items that come on top leave every other item's verdict, scores and entropy alone."""
    more = frame({(f"more {item}", judge): both for (item, judge), both in others.items()})
    alone, together = (by_panel(rows, how, WEIGHTS) for rows in (frame(made), pl.concat([more, frame(made)])))
    kept = together.join(alone.select("item_id"), on="item_id", maintain_order="right").drop("needs_person")
    assert kept.equals(alone.drop("needs_person"))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(world, rules)
def test_every_margin_agrees_with_its_verdict(made: dict[tuple[str, str], Any], how: Aggregation) -> None:
    """A win has a margin above 0, a loss one below, a tie one within the margin of ties; where there is one."""
    for item in by_panel(frame(made), how, WEIGHTS).iter_rows(named=True):
        if item["margin"] is not None:
            win, loss = item["margin"] > 0, item["margin"] < 0
            tie = abs(item["margin"]) <= how.tie_margin + 1e-6
            assert {"win": win, "loss": loss, "tie": tie}.get(item["verdict"], True)
