"""Best against worst of n: the Magpie fixture, guards, and several scorers."""

from __future__ import annotations

import random
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairs.test_rated import rated
from tilth.schemas import ConfigError
from tilth.schemas.contracts import measure
from tilth.transforms.pairs.best_of_n import BestOfN, best_and_worst, best_of_n_pairs

# Magpie, data_po/example_instructions_5res_armorm.json: ArmoRM's scores of 5 samples for each of 5 prompts.
MAGPIE = (
    (0.1128, 0.1074, 0.1079, 0.1167, 0.1147),
    (0.0942, 0.0903, 0.0962, 0.0889, 0.0933),
    (0.1309, 0.1318, 0.1162, 0.1299, 0.1387),
    (0.168, 0.1514, 0.166, 0.1406, 0.1641),
    (0.1143, 0.1157, 0.1465, 0.1152, 0.123),
)


def _scores(*rows: tuple[str, Sequence[float | None]], prompt: str = "p") -> pl.DataFrame:
    listed = [(prompt, f"{n}", scorer, score) for scorer, scores in rows for n, score in enumerate(scores)]
    schema = {"prompt_id": pl.String, "response_id": pl.String, "scorer": pl.String, "score": pl.Float64}
    return pl.DataFrame(listed, schema=schema, orient="row")


def _ids(found: pl.DataFrame) -> list[tuple[str, str]]:
    return found.select("chosen_id", "rejected_id").rows()


def test_the_magpie_fixture_comes_out_to_the_digit() -> None:
    """(3,1) (2,3) (4,2) (0,3) (2,0)."""
    table = pl.concat([_scores(("armorm", scores), prompt=f"p{n}") for n, scores in enumerate(MAGPIE)])
    assert _ids(best_and_worst(table)) == [("3", "1"), ("2", "3"), ("4", "2"), ("0", "3"), ("2", "0")]


def test_the_magpie_fixture_makes_five_pairs() -> None:
    """As rows of the table, with the scores of ArmoRM and the margin between them."""
    table = pl.concat([rated(scores, prompt=f"p{n}") for n, scores in enumerate(MAGPIE)])
    found = best_of_n_pairs(table, BestOfN()).kept
    rows = sorted(
        (row["prompt"][0]["content"], row["chosen"][0]["content"][-1], row["rejected"][0]["content"][-1])
        for row in found.iter_rows(named=True)
    )
    assert [(one, other) for _, one, other in rows] == [
        ("3", "1"),
        ("2", "3"),
        ("4", "2"),
        ("0", "3"),
        ("2", "0"),
    ]
    assert set(found.get_column("origin")) == {"best_of_n"}
    assert {name for name, count in measure("pairs", found).counts.items() if count} == set()


def test_z_scores_give_each_scorer_the_same_say() -> None:
    """A scorer with a wide scale does not outvote one with a narrow scale."""
    wide, narrow = ("wide", [0.0, 100.0, 90.0]), ("narrow", [0.9, 0.1, 0.8])
    found = best_and_worst(_scores(wide, narrow))
    assert _ids(found) == [("2", "1")]  # a mean of the scores themselves would reject 0
    z_wide, z_narrow = (90 - 190 / 3) / 44.9691, (0.8 - 0.6) / 0.355903
    assert found.get_column("chosen_score").item() == pytest.approx((z_wide + z_narrow) / 2, abs=1e-4)


def test_a_scorer_that_finds_no_difference_says_nothing() -> None:
    """Equal scores have no z-score to be divided by: they are 0, and the others decide."""
    found = best_and_worst(_scores(("flat", [0.1, 0.1, 0.1]), ("sure", [1.0, 2.0, 3.0])))
    assert _ids(found) == [("2", "0")]


def test_most_votes_decide_where_scorers_disagree() -> None:
    """Two of three scorers outvote the third, whatever its scale."""
    votes = _scores(("a", [3, 2, 1]), ("b", [3, 2, 1]), ("c", [0, 900, 1000]))
    found = best_and_worst(votes, "vote")
    assert _ids(found) == [("0", "2")]
    assert found.get_column("agreed").item()


def test_votes_that_single_out_no_reply_make_no_pair() -> None:
    """Where all scorers disagree nothing is drawn: the prompt is set aside as inconsistent."""
    table = rated([1.0, 2.0, 3.0])
    ids = table.get_column("response_id").to_list()
    ranks = {"a": [3.0, 2.0, 1.0], "b": [1.0, 3.0, 2.0], "c": [2.0, 1.0, 3.0]}
    rows = [
        (id_, scorer, score)
        for scorer, given_ in ranks.items()
        for id_, score in zip(ids, given_, strict=True)
    ]
    scores = pl.DataFrame(rows, schema=["response_id", "scorer", "score"], orient="row")
    found = best_of_n_pairs(table, BestOfN("vote"), scores)
    assert found.kept.is_empty()
    assert found.dropped.get_column("reason").to_list() == ["judges_inconsistent"]


def test_a_reply_without_every_score_takes_no_part() -> None:
    """Means over different scorers are not compared, and NaN is neither best nor worst."""
    found = best_and_worst(_scores(("a", [1.0, 2.0, 9.0, 3.0]), ("b", [1.0, 2.0, None, float("nan")])))
    assert _ids(found) == [("1", "0")]


@pytest.mark.parametrize(
    ("table", "policy", "reason"),
    [
        (rated([2, 2, 2]), BestOfN(), "tie"),
        (rated([2, 2.3]), BestOfN(min_gap=0.5), "tie"),
        (rated([2]), BestOfN(), "no_candidate"),
        (rated([1, 5], ["a b", "A B "]), BestOfN(), "identical_sides"),
        (rated([1, 5], ["short", "l" * 16]), BestOfN(max_length_ratio=3), "no_candidate"),
        (rated([1, float("nan")]), BestOfN(), "judges_failed"),
    ],
)
def test_guards_set_a_prompt_aside_with_a_reason(table: pl.DataFrame, policy: BestOfN, reason: str) -> None:
    """Ties, small gaps, lone replies, equal texts, lengths apart and missing scores are no pairs."""
    found = best_of_n_pairs(table, policy)
    assert found.kept.is_empty()
    assert found.dropped.get_column("reason").to_list() == [reason]


def test_lengths_within_the_ratio_pass() -> None:
    """A ratio of exactly the limit is allowed."""
    assert best_of_n_pairs(rated([1, 5], ["abcde", "l" * 15]), BestOfN(max_length_ratio=3)).kept.height == 1


def test_equal_texts_count_once_with_their_mean() -> None:
    """A text that was scored 5 and 1 is neither the best nor the worst of 4, 3 and 2."""
    found = best_of_n_pairs(rated([5, 1, 4, 2], ["same", "same ", "good", "bad"]), BestOfN()).kept
    assert found.select("chosen_score", "rejected_score").rows() == [(4.0, 2.0)]


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.5, 5.0]), min_size=1, max_size=5), min_size=1, max_size=4),
    st.randoms(),
)
def test_only_ids_decide(worlds: list[list[float]], order: random.Random) -> None:
    """Shuffled and repeated rows give the same pairs; chosen has the highest score, rejected the lowest."""
    table = pl.concat([rated(scores, prompt=f"p{n}") for n, scores in enumerate(worlds)])
    rows = list(range(table.height)) * 2
    order.shuffle(rows)
    found, moved = (best_of_n_pairs(one, BestOfN()) for one in (table, table[rows]))
    assert found.kept.equals(moved.kept)
    assert found.dropped.equals(moved.dropped)
    tops = {(max(s), min(s)) for s in worlds}
    assert set(found.kept.select("chosen_score", "rejected_score").rows()) <= tops
    assert found.kept.height + found.dropped.height == len(worlds)


def test_settings_of_best_of_n_that_cannot_be_meant_are_refused() -> None:
    """An unknown way to combine, a gap below 0 or a ratio below 1 is an error."""
    for wrong in ({"combine": "max"}, {"min_gap": -1.0}, {"max_length_ratio": 0.5}):
        with pytest.raises(ConfigError):
            BestOfN(**wrong)  # type: ignore[arg-type]
