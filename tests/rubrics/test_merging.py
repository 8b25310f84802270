"""Merging criteria: what says the same is said once, whatever the order, and nothing else is lost."""

from __future__ import annotations

import re
from random import Random
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError
from tilth.transforms.rubrics.criteria import criteria_rows, program_json
from tilth.transforms.rubrics.likeness import grams, likeness, nearest_elsewhere, words
from tilth.transforms.rubrics.merging import Merging, merged

LIMIT: Final = program_json("max_words", {"limit": 100})
OTHER: Final = program_json("max_words", {"limit": 200})


def criteria(*rows: dict[str, Any]) -> pl.DataFrame:
    plain = {
        "prompt_id": "p",
        "weight": 1.0,
        "kind": "principle",
        "check": "judge",
        "source": "model",
        "program": None,
        "tags": [],
        "feedback_ids": [],
    }
    kinds = {"tags": pl.List(pl.String), "feedback_ids": pl.List(pl.String), "program": pl.String}
    return criteria_rows(
        pl.DataFrame([{**plain, **row} for row in rows], schema_overrides=kinds, strict=False)
    )


def texts(rows: pl.DataFrame) -> list[str]:
    return rows["description"].to_list()


def reasons(rows: pl.DataFrame) -> list[str]:
    return sorted(rows["reason"])


def test_white_space_and_case_make_no_other_criterion() -> None:
    """RubricHub's released key looks for a doubled backslash, never collapses white space, and keeps both of these."""
    one, other = "Names  the\ncapital.", "names the capital."
    broken = {re.sub(r"\\s+", " ", text.lower()) for text in (one, other)}
    assert len(broken) == 2  # what the released code does
    found = merged(criteria({"description": one, "weight": 3.0}, {"description": other, "weight": 5.0}))
    assert texts(found.kept) == ["names the capital."]
    assert found.kept["weight"].to_list() == [5.0]
    assert texts(merged(criteria({"description": one})).kept) == ["Names the capital."]
    assert reasons(found.dropped) == ["duplicate"]


def test_near_duplicates_unite_what_they_rest_on() -> None:
    """The one with a program stays, with all feedback and tags and the greatest weight; other prompts stay."""
    spoken = {"description": "Uses at most 100 words in the reply text", "weight": 2.0, "feedback_ids": ["b"]}
    coded = {
        "description": "Uses at most 100 words in the reply text.",
        "weight": 1.0,
        "program": LIMIT,
        "check": "program",
        "feedback_ids": ["a"],
        "tags": ["constraint"],
    }
    found = merged(criteria(spoken, coded, {**spoken, "prompt_id": "q"}))
    (kept,) = found.kept.filter(pl.col("prompt_id") == "p").to_dicts()
    assert (kept["program"], kept["weight"]) == (LIMIT, 2.0)
    assert (kept["feedback_ids"], kept["tags"]) == (["a", "b"], ["constraint"])
    assert found.kept.filter(pl.col("prompt_id") == "q").height == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"description": "Uses at most 100 words"}, {"description": "Uses at most 200 words"}),
        (
            {"description": "Recommends to take the aspirin tablet with a glass of water"},
            {"description": "Never recommends to take the aspirin tablet with a glass of water"},
        ),
        (
            {"description": "Recommends the aspirin tablet", "weight": 1.0},
            {"description": "Recommends the aspirin tablets", "weight": -1.0},
        ),
        (
            {
                "description": "Tells the reader where the train to Delmouth leaves and how to buy a ticket for it"
            },
            {
                "description": "Tells the reader where the bus to Delmouth leaves and how to buy a ticket for it"
            },
        ),
        (
            {"description": "Keeps to the length that was asked for here", "program": LIMIT},
            {"description": "Keeps to the length that was asked for there", "program": OTHER},
        ),
    ],
)
def test_what_differs_in_sense_stays_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Numbers, negations, signs, programs and an exchanged word make two criteria of texts that are nearly equal."""
    assert merged(criteria(one, other), Merging(max_likeness=0.3)).kept.height == 2


def test_endings_and_small_words_make_no_other_criterion() -> None:
    """What differs in inflection and function words alone is one criterion, at a likeness that allows it."""
    rows = [
        {"description": text}
        for text in ("Cites the source of every figure", "Cites a source of every figures")
    ]
    assert merged(criteria(*rows), Merging(max_likeness=0.3)).kept.height == 1


def test_equal_programs_are_one_criterion() -> None:
    """However they are worded."""
    rows = [
        {"description": text, "program": LIMIT, "check": "program"} for text in ("Is short.", "100 words.")
    ]
    assert merged(criteria(*rows)).kept.height == 1


def test_a_criterion_that_is_wanted_and_a_mistake_is_neither() -> None:
    """Equal words with both signs contradict each other: both are set aside, and none is guessed."""
    found = merged(
        criteria(
            {"description": "Apologises."},
            {"description": "apologises.", "weight": -2.0},
            {"description": "x"},
        )
    )
    assert texts(found.kept) == ["x"]
    assert reasons(found.dropped) == ["contradictory", "contradictory"]


def test_what_is_no_criterion_is_set_aside() -> None:
    """No text, a weight of 0, and weights that are no numbers go, with the reason; others are clamped."""
    odd = [
        {"description": text, "weight": weight}
        for text, weight in [
            ("  ", 1.0),
            ("zero", 0.0),
            ("nan", float("nan")),
            ("inf", float("inf")),
            ("heavy", -40.0),
        ]
    ]
    found = merged(criteria(*odd, {"description": "none", "weight": None}))
    assert found.kept.select("description", "weight").rows() == [("heavy", -10.0)]
    assert reasons(found.dropped) == ["empty"] + ["no_criterion"] * 4


def test_the_heaviest_stay_and_one_of_them_is_wanted() -> None:
    """A cap keeps by |weight|, but never mistakes alone."""
    rows = [("a", 1.0), ("b", -9.0), ("c", -8.0), ("d", 2.0)]
    given_rows = criteria(*({"description": text, "weight": weight} for text, weight in rows))
    found = merged(given_rows, Merging(max_criteria=2))
    assert texts(found.kept) == ["d", "b"]
    assert reasons(found.dropped) == ["too_large", "too_large"]


@pytest.mark.parametrize(
    "config", [{"max_likeness": 0.0}, {"max_criteria": -1}, {"max_weight": float("inf")}]
)
def test_settings_are_checked(config: dict[str, Any]) -> None:
    """Bounds that make no sense are refused."""
    with pytest.raises(ConfigError):
        Merging(**config)


rows_of_criteria = st.lists(
    st.fixed_dictionaries(
        {
            "prompt_id": st.sampled_from(["p", "q"]),
            "description": st.sampled_from(
                [
                    "Names the river",
                    "names  the river",
                    "Names the long river",
                    "Never names the river",
                    "Is kind",
                    " ",
                ]
            ),
            "weight": st.sampled_from([1.0, 2.0, -1.0, 0.0]),
            "program": st.sampled_from([None, None, LIMIT, OTHER]),
            "feedback_ids": st.sampled_from([[], ["a"], ["b"]]),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(rows_of_criteria, st.integers(0, 3), st.randoms(use_true_random=False))
def test_order_decides_nothing_and_merging_twice_changes_nothing(
    rows: list[dict[str, Any]], cap: int, draw: Random
) -> None:
    """Permuted rows give equal frames; every row is kept or set aside once; what is merged stays as it is."""
    config = Merging(max_likeness=0.6, max_criteria=cap)
    found = merged(criteria(*rows), config)
    mixed = draw.sample(rows, len(rows))
    again = merged(criteria(*mixed), config)
    assert found.kept.equals(again.kept)
    assert found.dropped.equals(again.dropped)
    assert found.kept.height + found.dropped.height == len(rows)
    assert merged(found.kept, config).kept.equals(found.kept)
    said = found.kept.select("prompt_id", pl.col("description").str.to_lowercase())
    assert said.n_unique() == said.height


# Likeness


def test_likeness_by_hand() -> None:
    """2 of 4 words, 1 of 3 pairs of words: (1/2 + 1/3) / 2; single words have no pairs; nothing is like nothing."""
    one, other = grams(words("names the capital")), grams(words("names the river"))
    assert likeness(one, other) == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert likeness(grams(["a"]), grams(["a"])) == 1.0
    assert likeness(grams([]), grams([])) == 0.0


@settings(deadline=None)  # scipy is loaded by the first example
@given(st.lists(st.tuples(st.lists(st.sampled_from("abcde"), max_size=5), st.integers(0, 2)), max_size=8))
def test_the_matrix_is_the_measure(rows: list[tuple[list[str], int]]) -> None:
    """Blocks of a sparse matrix find what comparing one by one finds."""
    tokens, groups = [one for one, _ in rows], [group for _, group in rows]
    known = [grams(one) for one in tokens]
    expected = [
        max((likeness(a, b) for b, h in zip(known, groups, strict=True) if h != g), default=0.0)
        for a, g in zip(known, groups, strict=True)
    ]
    assert nearest_elsewhere(tokens, groups).tolist() == pytest.approx(expected)
