"""Rated pairs: the best over a worse one, never a tie, never equal texts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, conform
from tilth.schemas.contracts import measure
from tilth.schemas.ids import content_id
from tilth.transforms.pairs.rated import RatedPairs, rated_pairs


def rated(scores: Sequence[float], texts: Sequence[str] | None = None, prompt: str = "p") -> pl.DataFrame:
    """Rows of `ratings` of one prompt."""
    rows: list[dict[str, Any]] = [
        {
            "id": content_id("rating", prompt, str(n)),
            "prompt_id": content_id("prompt", prompt),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": texts[n] if texts else f"reply {n}"}],
            "model": f"m{n}",
            "attributes": [{"name": "helpfulness", "rating": score}],
            "rating": score,
            "response_id": content_id("response", prompt, str(n)),
            "judgment_ids": [content_id("judgment", prompt, str(n))],
            "conversation_id": content_id("conversation", prompt),
            "method": "model",
            "split": "train",
        }
        for n, score in enumerate(scores)
    ]
    return conform(pl.DataFrame(rows), "ratings")


def _sides(pairs: pl.DataFrame) -> list[tuple[str, str]]:
    return sorted((row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs.to_dicts())


def test_the_best_is_chosen_over_the_worst() -> None:
    """With `worst` it is the lowest rating; scores, models and judgments are those of the two sides."""
    found = rated_pairs(rated([3, 5, 1, 4]), RatedPairs("worst")).kept
    assert _sides(found) == [("reply 1", "reply 2")]
    row = found.row(0, named=True)
    assert (row["chosen_score"], row["rejected_score"], row["margin"], row["origin"]) == (5, 1, 4, "rated")
    assert row["models"] == {"chosen": "m1", "rejected": "m2"}
    assert set(row["judgment_ids"]) == {content_id("judgment", "p", n) for n in "12"}
    assert {name for name, count in measure("pairs", found).counts.items() if count} == set()


def test_all_pairs_are_those_far_enough_apart() -> None:
    """With `all`, each two replies whose ratings differ by the margin are a pair, the better one chosen."""
    found = rated_pairs(rated([3, 5, 3, 4]), RatedPairs("all", min_margin=1)).kept
    wanted = [("reply 1", f"reply {n}") for n in (0, 2, 3)] + [("reply 3", f"reply {n}") for n in (0, 2)]
    assert _sides(found) == sorted(wanted)


@pytest.mark.slow
def test_the_rejected_side_is_drawn_evenly() -> None:
    """Over many prompts each of the three others is drawn about as often, and the seed decides."""
    table = pl.concat([rated([1, 5, 2, 3], prompt=f"p{n}") for n in range(600)])
    drawn = [_sides(rated_pairs(table, RatedPairs(seed=seed)).kept) for seed in (0, 0, 1)]
    counts = Counter(rejected for _, rejected in drawn[0])
    assert set(counts) == {"reply 0", "reply 2", "reply 3"}
    assert all(150 < count < 250 for count in counts.values())
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_draw_does_not_hang_on_who_else_is_there() -> None:
    """Taking away a reply that is in no pair changes no pair."""
    table = pl.concat([rated([1, 5, 2, 3], prompt=f"p{n}") for n in range(50)])
    pairs = rated_pairs(table, RatedPairs()).kept
    used = pairs.get_column("judgment_ids").explode().to_list()
    fewer = table.filter(pl.col("judgment_ids").list.first().is_in(used))
    assert fewer.height == 100
    assert rated_pairs(fewer, RatedPairs()).kept.equals(pairs)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (rated([4, 4, 4]), "tie"),
        (rated([4, 3.6]), "tie"),
        (rated([4]), "no_candidate"),
        (rated([5, 1], ["same", "SAME "]), "identical_sides"),
    ],
)
def test_a_prompt_without_a_pair_is_set_aside_once(table: pl.DataFrame, reason: str) -> None:
    """Ties, gaps below the margin, lone replies and equal texts are no pairs, and each says why."""
    found = rated_pairs(table, RatedPairs(min_margin=0.5))
    assert found.kept.is_empty()
    assert found.dropped.get_column("reason").to_list() == [reason]


def test_equal_texts_are_one_reply() -> None:
    """Two ratings of one text count as their mean, so a text never beats itself, nor a mean that it shares."""
    found = rated_pairs(rated([5, 1, 2], ["same", " Same", "other"]), RatedPairs("all")).kept
    assert found.select("chosen_score", "rejected_score").rows() == [(3.0, 2.0)]
    assert found.get_column("judgment_ids").list.len().item() == 3


def test_a_margin_is_met_in_decimals() -> None:
    """4.1 over 3.6 is a margin of .5, though it is less in binary."""
    assert rated_pairs(rated([4.1, 3.6]), RatedPairs(min_margin=0.5)).kept.height == 1


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([1.0, 2.0, 3.5, 5.0]), min_size=1, max_size=5), min_size=1, max_size=4),
    st.sampled_from(["random", "worst", "all"]),
    st.randoms(),
)
def test_no_order_of_rows_and_no_repeat_changes_a_pair(
    worlds: list[list[float]], rejected: Any, order: random.Random
) -> None:
    """Chosen is always rated higher, each prompt has a pair or a reason, and only ids decide."""
    table = pl.concat([rated(scores, prompt=f"p{n}") for n, scores in enumerate(worlds)])
    rows = list(range(table.height)) * 2
    order.shuffle(rows)
    found, moved = (rated_pairs(one, RatedPairs(rejected)) for one in (table, table[rows]))
    assert found.kept.equals(moved.kept)
    assert found.dropped.equals(moved.dropped)
    truth = {(f"p{n}", f"reply {m}"): s for n, scores in enumerate(worlds) for m, s in enumerate(scores)}
    for row in found.kept.iter_rows(named=True):
        prompt, chosen, rejected_ = (row[name][0]["content"] for name in ("prompt", "chosen", "rejected"))
        assert truth[prompt, chosen] > truth[prompt, rejected_]
    assert found.kept.get_column("prompt_id").n_unique() + found.dropped.height == len(worlds)


def test_replies_of_two_conversations_are_not_compared() -> None:
    """The same prompt in another conversation, perhaps of another split, is another set of replies."""
    other = rated([1.0]).with_columns(
        conversation_id=pl.lit(content_id("else")), response_id=pl.lit(content_id("r"))
    )
    assert rated_pairs(pl.concat([rated([5.0]), other]), RatedPairs()).kept.is_empty()


def test_settings_that_cannot_be_meant_are_refused() -> None:
    """An unknown choice or a margin below 0 is an error, not a default."""
    with pytest.raises(ConfigError, match="rejected"):
        RatedPairs("median")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="margin"):
        RatedPairs(min_margin=-1.0)
