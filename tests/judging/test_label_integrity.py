"""Planted winners through the whole way from judges to pairs: no order, tie, failure or bias makes a wrong label.

That holds by construction for judges that err by place: such a judge prefers the worse reply only where it stands
first, and a pair needs the same side to win in both orders. A judge that is wrong about the replies themselves is wrong
in both orders; no protocol can tell, and the last test shows it.
"""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopback import Habits
from loopback.sensible import quality
from scripted import Answered
from scripted.planted import Outcome, Planted, drawn_marks, judged, pairwise, planted, settled
from tilth.schemas import Reason
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.transforms.inference.render import FAILED
from tilth.transforms.judging.aggregate import by_judge
from tilth.transforms.judging.bias import position
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.responses.comparisons import comparison_items

ERRING = Habits(position_bias=0.3, tie_share=0.05, garble_share=0.05)
MARKS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=12)
SHARES = st.sampled_from([0.0, 0.3, 0.7, 1.0])
HABITS = st.builds(Habits, SHARES, SHARES, st.sampled_from([0.0, 0.3]), st.integers(0, 3))
TURNED = {"win": "loss", "loss": "win"}


def text(messages: list[dict[str, str]]) -> str:
    return messages[0]["content"]


def wrong(pairs: pl.DataFrame) -> int:
    """Pairs whose chosen side is not the one with the higher mark."""
    marks = [
        (quality(text(one)), quality(text(two)))
        for one, two in pairs.select("chosen", "rejected").iter_rows()
    ]
    return sum((one or 0) <= (two or 0) for one, two in marks)


def flaws(outcome: Outcome) -> dict[str, int]:
    """What the contracts of pairs and judgments object to."""
    return {
        f"{table}.{flag}": count
        for table, rows in (("pairs", outcome.ruled.kept), ("judgments", outcome.judgments))
        for flag, count in measure(table, rows).counts.items()
        if flag in CONTRACTS[table].defects and count
    }


def labels(outcome: Outcome) -> dict[str, tuple[str, str]]:
    """By conversation: what was chosen and what was rejected."""
    rows = outcome.ruled.kept.select("conversation_id", "chosen", "rejected").iter_rows()
    return {name: (text(chosen), text(rejected)) for name, chosen, rejected in rows}


def verdicts(outcome: Outcome) -> dict[str, str]:
    return dict(outcome.verdicts.select("item_id", "verdict").iter_rows())


def check(world: Planted, outcome: Outcome) -> None:
    """No wrong label, no equal pair, every comparison accounted for once."""
    assert wrong(outcome.ruled.kept) == 0
    assert flaws(outcome) == {}
    assert outcome.judgments.height == outcome.asked.height * len(outcome.answers)
    assert outcome.verdicts.height == world.comparisons.height
    kept, gold = set(outcome.ruled.kept["conversation_id"]), world.gold
    better = world.comparisons.join(gold.filter(pl.col("gold") == "win"), on="item_id")
    assert kept <= set(better["conversation_id"])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(MARKS, HABITS, st.integers(0, 9))
def test_labels_are_right_whatever_the_place_does(
    marks: list[tuple[int, int]], habits: Habits, shuffle: int
) -> None:
    """However strong the bias, however frequent ties and failures: no wrong label, no equal pair, in any row order."""
    world = planted(marks)
    plain, permuted = (judged(world.comparisons, habits, pairwise(), order) for order in (None, shuffle))
    check(world, plain)
    assert permuted.ruled.kept.equals(plain.ruled.kept)
    assert permuted.ruled.dropped.equals(plain.ruled.dropped)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(MARKS, HABITS)
def test_sides_that_are_swapped_swap_the_verdict(marks: list[tuple[int, int]], habits: Habits) -> None:
    """Which side comes first in a comparison decides nothing: a win becomes a loss, everything else stays."""
    world = planted(marks)
    sides = {
        "chosen": "rejected",
        "rejected": "chosen",
        "chosen_id": "rejected_id",
        "rejected_id": "chosen_id",
    }
    turned = world.comparisons.rename(sides)
    renamed = comparison_items(turned).select("conversation_id", item="item_id")
    turned = turned.join(renamed, on="conversation_id").drop("item_id").rename({"item": "item_id"})
    here = verdicts(judged(world.comparisons, habits, pairwise()))
    there = verdicts(judged(turned, habits, pairwise()))
    names = world.comparisons.join(turned.select("conversation_id", other="item_id"), on="conversation_id")
    for item, other in names.select("item_id", "other").iter_rows():
        assert there[other] == TURNED.get(here[item], here[item])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(MARKS, HABITS, st.integers(0, 2**20))
def test_a_failure_takes_its_own_item_and_changes_no_other(
    marks: list[tuple[int, int]], habits: Habits, lost: int
) -> None:
    """Answers that are lost lose the pairs of their items; every label that survives is what it was."""
    world = planted(marks)
    protocol = pairwise("one")
    whole = judged(world.comparisons, habits, protocol)
    said = whole.answers["one"]
    gone = pl.Series([lost >> (n % 20) & 1 == 1 for n in range(said.completions.height)], dtype=pl.Boolean)
    reasons = said.completions.filter(gone).select(
        "id", reason=pl.lit(Reason.TIMED_OUT.value), detail=pl.lit("lost")
    )
    answers = Answered(said.completions.filter(~gone), pl.concat([said.failed, reasons.cast(FAILED)]))
    items = comparison_items(world.comparisons)
    left = settled(world.comparisons, items, whole.requests, whole.asked, {"one": answers}, protocol)
    check(world, left)
    hit = set(whole.asked.join(reasons, on="id", how="semi")["item_id"])
    before, after = verdicts(whole), verdicts(left)
    assert after == {item: "failed" if item in hit else verdict for item, verdict in before.items()}
    assert labels(left).items() <= labels(whole).items()


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(MARKS, HABITS, st.integers(0, 2**12))
def test_other_items_change_nothing(marks: list[tuple[int, int]], habits: Habits, mask: int) -> None:
    """An item is judged by itself: with half of the others gone, the labels of those that stay are the same."""
    world = planted(marks)
    stays = pl.Series(
        [n == 0 or mask >> n & 1 == 1 for n in range(world.comparisons.height)], dtype=pl.Boolean
    )
    some = judged(world.comparisons.filter(stays), habits, pairwise())
    whole = judged(world.comparisons, habits, pairwise())
    assert verdicts(some).items() <= verdicts(whole).items()
    assert labels(some).items() <= labels(whole).items()


def test_equal_prompts_keep_their_own_answers() -> None:
    """Replies to one prompt, and the same replies in several conversations and both ways round, are never mixed up."""
    world = planted(drawn_marks(120, 3))
    outcome = judged(world.comparisons, replace(ERRING, position_bias=0.0), pairwise(), 5)
    check(world, outcome)
    own = {
        row["conversation_id"]: (text(row["chosen"]), text(row["rejected"]))
        for row in world.comparisons.to_dicts()
    }
    assert world.comparisons["prompt_id"].n_unique() < world.comparisons.height
    assert labels(outcome).items() <= own.items()
    by_item = dict(outcome.judgments.group_by("conversation_id").agg(pl.col("id").sort()).iter_rows())
    told = dict(outcome.ruled.kept.select("conversation_id", "judgment_ids").iter_rows())
    assert told == {name: by_item[name] for name in told}


def recovered(world: Planted, outcome: Outcome) -> tuple[float, float, float]:
    """The planted bias as the report sees it, with its interval: of items with a better side, in [-1, 1]."""
    decided = world.gold.filter(pl.col("gold") != "tie")
    votes = votes_of(outcome.judgments).join(decided, on="item_id", how="semi")
    found = position(votes, by_judge(votes, Aggregation()), world.gold).first_preferred
    low, value, high = (2 * (one or 0.0) - 1 for one in (found.low, found.value, found.high))
    return low, value, high


def test_four_hundred_items_with_an_erring_judge() -> None:
    """Bias, ties, garbled answers, equal prompts, permuted rows: 0 wrong labels, 0 equal pairs, the bias is found.

    First-shown replies are preferred in p + (1 - p) / 2 of the decided votes, so the bias p is 2 s - 1.
    """
    world = planted(drawn_marks(400, 1))
    outcome = judged(world.comparisons, ERRING, pairwise(), 7)
    check(world, outcome)
    possible = world.gold.filter(pl.col("gold") == "win").height
    assert 0.35 * possible < outcome.ruled.kept.height < 0.75 * possible
    low, _, high = recovered(world, outcome)
    assert low < ERRING.position_bias < high
    assert high - low < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("bias", [0.0, 0.3, 0.9])
def test_two_thousand_items_with_a_panel_that_errs(bias: float) -> None:
    """B8: three judges and three samples an order change nothing about it: 0 wrong labels, 0 equal pairs."""
    world = planted(drawn_marks(2000, 2))
    habits = replace(ERRING, position_bias=bias)
    alone = judged(world.comparisons, habits, pairwise(), 11)
    check(world, alone)
    low, _, high = recovered(world, alone)
    assert low < bias < high
    check(world, judged(world.comparisons, habits, pairwise("a", "b", "c"), 13))
    check(world, judged(world.comparisons, habits, pairwise(evidences=3, temperature=1.0), 17))


def test_a_judge_that_is_wrong_in_both_orders_is_believed() -> None:
    """What the protocol cannot see: where the worse replies bear the higher marks, every pair is a wrong label."""
    world = planted([(9, 1), (1, 9)] * 10)
    truth = world.gold.with_columns(gold=pl.col("gold").replace(TURNED))
    kept = judged(world.comparisons, Habits(), pairwise()).ruled.kept
    better = world.comparisons.join(truth.filter(pl.col("gold") == "win"), on="item_id")
    assert kept.height == world.gold.filter(pl.col("gold") == "win").height > 0
    assert set(kept["conversation_id"]).isdisjoint(better["conversation_id"])


@pytest.mark.slow
def test_the_rule_of_means_has_no_such_guarantee() -> None:
    """A tie in one order and a preferred place in the other have a mean that prefers the worse reply: `both_orders` is
    the default for that reason.
    """
    world = planted(drawn_marks(400, 1))
    by_mean = judged(world.comparisons, ERRING, pairwise(aggregation=Aggregation("mean")), 7)
    by_both = judged(world.comparisons, ERRING, pairwise(), 7)
    assert wrong(by_mean.ruled.kept) > 0 == wrong(by_both.ruled.kept)
    assert labels(by_both).items() <= labels(by_mean).items()
