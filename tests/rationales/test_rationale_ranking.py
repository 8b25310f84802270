"""Ranks follow scores and ids alone; each rule of combining contexts gives what the table worked out by hand says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rationales.planted_rows import PAIRS, RATIONALES, as_pairs, as_rationales, pair
from tilth.schemas import ConfigError
from tilth.transforms.rationales.ranking import RULES, SCORES, Rule, combined, overlap_scores, ranked

EGGS: Final = pair("eggs", "How long do I boil an egg?", "Seven minutes, then cold water.", "No idea, sorry.")


def score(text: str) -> float | None:
    return overlap_scores(as_rationales({"id": "r", "pair_id": EGGS["id"], "text": text}), as_pairs(EGGS))[
        "score"
    ].item()


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("seven minutes of cold WATER", 1.0),
        ("Seven minutes; sorry, long novels", 4 / 5),
        ("water water water, whatever", 1 / 2),
        ("nothing beside bananas", 0.0),
        ("an egg", None),
        ("", None),
    ],
)
def test_the_overlap_is_the_share_of_words_that_the_pair_has(text: str, share: float | None) -> None:
    """Distinct words of four letters and more, case aside; a text without such words has no score."""
    assert score(text) == share


def test_a_rationale_without_its_pair_has_no_score() -> None:
    """Nothing is known about it, and nothing is guessed."""
    scores = overlap_scores(
        as_rationales({"id": "r", "pair_id": "gone", "text": "seven minutes"}), as_pairs(EGGS)
    )
    assert scores.rows() == [("r", None)]
    assert scores.schema == SCORES


def test_the_overlap_tells_copies_and_cannot_tell_the_wrong_side() -> None:
    """Its weakness, held in a test so that nobody relies on it: planted copies score highest, and rationales that argue
    for the wrong side score no lower than good ones.
    """
    scores = RATIONALES.join(overlap_scores(RATIONALES, PAIRS), on="id")
    means = dict(scores.group_by("planted").agg(pl.col("score").mean()).iter_rows())
    rounded = [round(means[planted], 2) for planted in (None, "wrong_side", "copy")]
    assert rounded == [0.40, 0.57, 0.94]  # docs/reference/rationales.md names them


ROWS: Final = st.lists(
    st.tuples(st.sampled_from("pqr"), st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, float("nan")]))),
    max_size=9,
)


def scored(rows: Sequence[tuple[str, float | None]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    rationales = as_rationales(
        *({"id": f"r{at}", "pair_id": of, "text": "t"} for at, (of, _) in enumerate(rows))
    )
    return rationales, pl.DataFrame(
        [(f"r{at}", s) for at, (_, s) in enumerate(rows)], schema=SCORES, orient="row"
    )


def test_the_highest_score_ranks_first_and_ties_go_by_id() -> None:
    """Each pair ranks its own from 1; without a score there is no rank."""
    rationales, scores = scored(
        [("p", 0.5), ("p", None), ("q", 0.1), ("p", 0.9), ("p", 0.5), ("p", float("nan"))]
    )
    found = ranked(rationales, scores.filter(pl.col("id") != "r1"))
    assert found.get_column("rank").to_list() == [2, None, 1, 1, 3, None]
    assert found.get_column("score").to_list() == [0.5, None, 0.1, 0.9, 0.5, None]
    assert found.schema["rank"] == pl.Int32


def test_a_rank_replaces_what_stood_there() -> None:
    """Ranking again with other scores gives the new ranks alone."""
    rationales, scores = scored([("p", 0.1), ("p", 0.2)])
    again = ranked(ranked(rationales, scores), scores.with_columns(-pl.col("score")))
    assert again.get_column("rank").to_list() == [1, 2]
    assert again.columns == [*rationales.columns, "score", "rank"]


def test_two_scores_of_one_rationale_are_refused() -> None:
    """Which of the two is meant cannot be told."""
    rationales, scores = scored([("p", 0.1)])
    with pytest.raises(pl.exceptions.ComputeError):
        ranked(rationales, pl.concat([scores, scores]))


@pytest.mark.slow
@settings(deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_rank(rows: list[tuple[str, float | None]], random: Any) -> None:
    """Shuffled rationales and scores rank alike, in the order they came in; ranks of a pair are 1 to n."""
    rationales, scores = scored(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    plain, shuffled = ranked(rationales, scores), ranked(rationales[order], scores[order[::-1]])
    assert shuffled.equals(plain[order])
    for _, group in plain.drop_nulls("rank").group_by("pair_id"):
        assert sorted(group.get_column("rank")) == list(range(1, group.height + 1))
        best_first = group.sort("rank").get_column("score")
        assert best_first.equals(best_first.sort(descending=True))


# Two contexts. W and R are the contexts, W|R both with the separator; the threshold is .5.

CONTEXTS: Final = [
    # scores of W, R and both; then what each of RULES gives
    ((0.9, 0.9, 0.9), ("W|R", "W|R", "W", "R", "W|R")),
    ((0.9, 0.1, 0.9), ("W|R", "W", "W", "W", "W")),
    ((0.1, 0.9, 0.9), ("W|R", "R", "R", "R", "R")),
    ((0.3, 0.2, 0.1), ("W|R", "W|R", "R", "W", "W")),
    ((0.2, 0.3, 0.1), ("W|R", "W|R", "R", "W", "R")),
    ((0.2, 0.3, 0.4), ("W|R", "W|R", "R", "W", "W|R")),
    ((0.2, 0.3, 0.9), ("W|R", "W|R", "R", "W", "W|R")),
    ((0.3, 0.3, 0.3), ("W|R", "W|R", "R", "W", "W")),
    ((0.2, 0.3, 0.3), ("W|R", "W|R", "R", "W", "R")),
    ((0.5, 0.5, None), ("W|R", "W|R", "R", "W", "W")),
    ((None, 0.6, None), ("W|R", "R", "R", "R", "R")),
    ((None, 0.1, None), ("W|R", "W|R", "R", "W", "R")),
    ((None, None, None), ("W|R", "W|R", "R", "W", "W")),
    ((float("nan"), 0.1, 0.2), ("W|R", "W|R", "R", "W", "W|R")),
]


def contexts(
    *scores: tuple[float | None, ...], written: str | None = "W", retrieved: str | None = "R"
) -> pl.DataFrame:
    names = ["written_score", "retrieved_score", "both_score"]
    frame = pl.DataFrame(scores, schema=dict.fromkeys(names, pl.Float64), orient="row")
    texts = {"written": pl.lit(written, pl.String), "retrieved": pl.lit(retrieved, pl.String)}
    return frame.with_columns(**texts)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_gives_what_the_table_says(rule: Rule) -> None:
    """The card's rules, on every pattern of scores over and under the threshold."""
    given = combined(contexts(*(scores for scores, _ in CONTEXTS)), rule, 0.5, "|")
    wanted = [texts[RULES.index(rule)] for _, texts in CONTEXTS]
    assert given.get_column("text").to_list() == wanted
    named = {"W": "written", "R": "retrieved", "W|R": "both"}
    assert given.get_column("which").to_list() == [named[text] for text in wanted]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("written", "retrieved", "text", "which"),
    [("W", None, "W", "written"), (" ", "R", "R", "retrieved"), (None, "", None, None)],
)
def test_what_is_not_there_is_not_given(
    rule: Rule, written: str | None, retrieved: str | None, text: str | None, which: str | None
) -> None:
    """Where one context is missing or blank, every rule gives the other, whatever the scores; of none there is none."""
    rows = contexts(*(scores for scores, _ in CONTEXTS), written=written, retrieved=retrieved)
    given = combined(rows, rule, 0.5, "|")
    assert set(given.get_column("text")) == {text}
    assert set(given.get_column("which")) == {which}


def test_the_score_of_both_is_asked_for_by_one_rule_and_may_be_absent() -> None:
    """Without `both_score`, the better of the two contexts is the default."""
    rows = contexts((0.2, 0.3, 0.4)).drop("both_score")
    assert [combined(rows, rule, 0.5, "|")["text"].item() for rule in RULES] == ["W|R", "W|R", "R", "W", "R"]


def test_an_unknown_rule_is_refused() -> None:
    """The error names the rules there are."""
    rule: Any = "best"
    with pytest.raises(ConfigError, match="default_highest"):
        combined(contexts((0.1, 0.2, 0.3)), rule)
