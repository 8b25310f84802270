"""Siblings: ranks, scores and thumbs on replies to one prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from tilth.schemas import ConfigError
from tilth.transforms.pairs import PairPolicy, Ruled, sibling_pairs

POLICY = PairPolicy()


def siblings(build: Any, *given: tuple[str, Mapping[str, float]], **fields: Any) -> pl.DataFrame:
    """One record of replies, each with its reactions by kind."""
    rows = [
        {
            "id": f"path {at}",
            "say": ["Q", text],
            "record_id": "r",
            "owned_from": min(at, 1),
            "reactions": [build.reaction(1, kind, value) for kind, value in reactions.items()],
            **fields,
        }
        for at, (text, reactions) in enumerate(given)
    ]
    return build.logged(*rows)


def preferred(ruled: Ruled) -> set[tuple[str, str]]:
    rows = ruled.kept.iter_rows(named=True)
    return {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows}


RANKED = [("a", {"rank": 0}), ("b", {"rank": 1}), ("c", {"rank": 2}), ("d", {"rank": 2})]


@pytest.mark.parametrize(
    ("compared", "expected", "ties"),
    [
        ("all", {("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")}, 1),
        ("best_worst", {("a", "c"), ("a", "d")}, 0),
        ("adjacent", {("a", "b"), ("b", "c"), ("b", "d")}, 1),
    ],
)
def test_ranks_give_pairs_as_the_policy_says(
    build: Any, compared: Any, expected: set[Any], ties: int
) -> None:
    """The lower rank is chosen, equal ranks that would be compared are ties, and every pair comes once."""
    ruled = sibling_pairs(siblings(build, *RANKED), replace(POLICY, rank_pairs=compared))
    assert preferred(ruled) == expected
    assert ruled.kept.height == len(expected)
    assert ruled.dropped.get_column("reason").to_list() == ["tie"] * ties
    assert set(ruled.kept.get_column("origin")) == {"human_rank"}


def test_a_rank_is_the_negative_of_its_score(build: Any) -> None:
    """Margins are gaps of ranks, and the pair stands where the chosen reply stands."""
    (row,) = sibling_pairs(siblings(build, ("b", {"rank": 2}), ("a", {"rank": 0})), POLICY).kept.iter_rows(
        named=True
    )
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (0, -2, 2)
    assert row["conversation_id"] == "path 1"


def test_gaps_under_the_policy_are_ties(build: Any) -> None:
    """`min_rank_gap` and `min_score_gap` turn small differences into ties."""
    assert preferred(sibling_pairs(siblings(build, *RANKED), replace(POLICY, min_rank_gap=2))) == {
        ("a", "c"),
        ("a", "d"),
    }
    scored = siblings(build, ("a", {"score": 4.5}), ("b", {"score": 4.0}), ("c", {"score": 1.0}))
    assert preferred(sibling_pairs(scored, replace(POLICY, min_score_gap=0.5))) == {("a", "c"), ("b", "c")}
    assert preferred(sibling_pairs(scored, POLICY)) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_equal_scores_are_never_a_preference(build: Any) -> None:
    """Replies of one score give a tie and no pair, and a policy without margins is refused."""
    ruled = sibling_pairs(siblings(build, ("a", {"score": 3}), ("b", {"score": 3})), POLICY)
    assert ruled.kept.is_empty()
    assert ruled.dropped.get_column("reason").to_list() == ["tie"]
    with pytest.raises(ConfigError, match="margins"):
        PairPolicy(min_rank_gap=0)


def test_opposed_thumbs_give_a_pair(build: Any) -> None:
    """Net approval beats net disapproval; replies that nobody or everybody likes are not compared."""
    ruled = sibling_pairs(
        siblings(
            build,
            ("liked", {"thumbs_up": 9, "thumbs_down": 1}),
            ("also liked", {"thumbs_up": 1}),
            ("disliked", {"thumbs_down": 2}),
            ("even", {"thumbs_up": 2, "thumbs_down": 2}),
            ("unseen", {}),
        ),
        POLICY,
    )
    assert preferred(ruled) == {("liked", "disliked"), ("also liked", "disliked")}
    assert set(ruled.kept.get_column("origin")) == {"reaction"}
    assert sorted(ruled.kept.get_column("margin")) == [3, 10]


@pytest.mark.parametrize(
    ("one", "other"),
    [({"rank": 0}, {}), ({"rank": 0}, {"score": 5}), ({"score": float("nan")}, {"score": 5}), ({}, {})],
)
def test_a_missing_reaction_is_never_guessed(
    build: Any, one: Mapping[str, float], other: Mapping[str, float]
) -> None:
    """Ranks are compared with ranks and scores with scores; what is missing or not a number gives nothing."""
    ruled = sibling_pairs(siblings(build, ("a", one), ("b", other)), POLICY)
    assert ruled.kept.is_empty()
    assert ruled.dropped.is_empty()


def test_a_reply_with_two_ranks_has_none(build: Any) -> None:
    """Conflicting ranks of one reply are no rank."""
    both = [build.reaction(1, "rank", 0.0), build.reaction(1, "rank", 2.0)]
    rows = [
        {"id": "x", "say": ["Q", "a"], "record_id": "r", "reactions": both},
        {
            "id": "y",
            "say": ["Q", "b"],
            "record_id": "r",
            "owned_from": 1,
            "reactions": [build.reaction(1, "rank", 1.0)],
        },
    ]
    assert sibling_pairs(build.logged(*rows), POLICY).kept.is_empty()


def test_a_sibling_set_that_paths_share_is_compared_once(build: Any) -> None:
    """Paths that go on after the siblings repeat them; only the path that owns a reply counts."""
    rank = [build.reaction(1, "rank", 0.0)], [build.reaction(1, "rank", 1.0)]
    rows = [
        {"id": "1", "say": ["Q", "a", "go on", "x"], "record_id": "r", "reactions": rank[0]},
        {"id": "2", "say": ["Q", "a", "go on", "y"], "record_id": "r", "owned_from": 3, "reactions": rank[0]},
        {"id": "3", "say": ["Q", "b"], "record_id": "r", "owned_from": 1, "reactions": rank[1]},
    ]
    ruled = sibling_pairs(build.logged(*rows), POLICY)
    assert preferred(ruled) == {("a", "b")}
    assert (ruled.kept.height, ruled.dropped.height) == (1, 0)


def test_equal_prompts_of_other_records_or_messages_are_not_siblings(build: Any) -> None:
    """Ranks of two rankings are not comparable, even if the prompts read the same."""
    one = {"say": ["Q", "a"], "reactions": [build.reaction(1, "rank", 0.0)]}
    other = {"say": ["Q", "b"], "reactions": [build.reaction(1, "rank", 1.0)]}
    apart = build.logged({"id": "1", **one, "record_id": "r"}, {"id": "2", **other, "record_id": "s"})
    assert sibling_pairs(apart, POLICY).kept.is_empty()
    twice = build.logged(
        {"id": "1", **one, "record_id": "r", "message_ids": ["m1", "m2"]},
        {"id": "2", **other, "record_id": "r", "message_ids": ["m3", "m4"]},
    )
    assert sibling_pairs(twice, POLICY).kept.is_empty()


def test_reactions_to_user_turns_and_identical_replies_give_no_pair(build: Any) -> None:
    """Ranks of prompts are not about replies, and two replies that read the same carry no preference."""
    users = [
        {
            "id": str(at),
            "say": [f"Q{at}", "a"],
            "record_id": "r",
            "reactions": [build.reaction(0, "rank", float(at))],
        }
        for at in range(2)
    ]
    assert sibling_pairs(build.logged(*users), POLICY).kept.is_empty()
    same = sibling_pairs(siblings(build, ("Same", {"rank": 0}), (" same\n", {"rank": 1})), POLICY)
    assert same.kept.is_empty()
    assert same.dropped.get_column("reason").to_list() == ["identical_sides"]


def test_pairs_name_the_reactions_that_they_rest_on(build: Any) -> None:
    """With feedback at hand, `feedback_ids` are the reactions to both replies and nothing else."""
    conversations = siblings(build, ("a", {"thumbs_up": 1}), ("b", {"thumbs_down": 1}))
    thumb = {"message_index": 1, "target_index": 1, "method": "reaction"}
    feedback = build.signals(
        {"conversation_id": "path 0", "polarity": "positive", "id": "up", **thumb},
        {"conversation_id": "path 1", "polarity": "negative", "id": "down", **thumb},
        {"conversation_id": "path 1", "polarity": "negative", "id": "words", **thumb, "method": "rules"},
        {"conversation_id": "path 7", "polarity": "negative", "id": "elsewhere", **thumb},
    )
    assert sibling_pairs(conversations, POLICY, feedback).kept.get_column("feedback_ids").to_list() == [
        ["down", "up"]
    ]
    assert sibling_pairs(conversations, POLICY).kept.get_column("feedback_ids").to_list() == [[]]


def test_replies_of_equal_text_count_once(build: Any) -> None:
    """Equal pairs and equal dropped candidates of one record are written once, so that ids stay unique."""
    liked, disliked = ("good", {"thumbs_up": 1}), ("poor", {"thumbs_down": 1})
    ruled = sibling_pairs(siblings(build, liked, disliked, disliked), POLICY)
    assert ruled.kept.height == 1
    ties = sibling_pairs(siblings(build, ("a", {"rank": 0}), ("b", {"rank": 0}), ("b", {"rank": 0})), POLICY)
    assert ties.dropped.is_unique().all()
    assert set(ties.dropped.get_column("reason")) == {"tie", "identical_sides"}
