"""Settling: contradictions, splits, duplicates, and the order of what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import PL_MESSAGES, conform, content_ids, empty
from tilth.transforms.pairs import bucket, settle, spread

PairRow = tuple[str, str, str]  # prompt, chosen, rejected


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pairs(*rows: tuple[PairRow, Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of `pairs` with true ids."""
    if not rows:
        return empty("pairs")
    plain = pl.DataFrame(
        [
            {
                "prompt": said("user", prompt),
                "chosen": said("assistant", chosen),
                "rejected": said("assistant", rejected),
                "origin": "human_rank",
                "margin": 1.0,
                "conversation_id": f"c{at}",
                "feedback_ids": [f"f{at}"],
                "split": "train",
                **fields,
            }
            for at, ((prompt, chosen, rejected), fields) in enumerate(rows)
        ]
    )
    texts = [pl.col(name).list.first().struct.field("content") for name in ("prompt", "chosen", "rejected")]
    return conform(with_ids(plain, "pairs", texts), "pairs")


def unpaired(*rows: tuple[tuple[str, str, bool], Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of `unpaired` with true ids."""
    if not rows:
        return empty("unpaired")
    plain = pl.DataFrame(
        [
            {
                "prompt": said("user", prompt),
                "completion": said("assistant", text),
                "label": label,
                "weight": 0.5,
                "conversation_id": f"u{at}",
                "feedback_ids": [f"f{at}"],
                "split": "train",
                **fields,
            }
            for at, ((prompt, text, label), fields) in enumerate(rows)
        ]
    )
    texts = [pl.col(name).list.first().struct.field("content") for name in ("prompt", "completion")]
    return conform(with_ids(plain, "unpaired", [*texts, pl.col("label").cast(pl.String)]), "unpaired")


def with_ids(frame: pl.DataFrame, kind: str, keys: Sequence[pl.Expr]) -> pl.DataFrame:
    return frame.with_columns(
        content_ids(frame, kind, keys), content_ids(frame, "prompts", keys[:1]).alias("prompt_id")
    )


def rationales(of: pl.DataFrame, *texts: str, **fields: str) -> pl.DataFrame:
    """A rationale per row of `of`."""
    rows = of.select("conversation_id", "split", pair_id="id").with_columns(
        text=pl.Series(texts), **_lits(fields)
    )
    return conform(
        rows.with_columns(content_ids(rows, "rationales", [pl.col("pair_id"), pl.col("text")])), "rationales"
    )


def _lits(fields: dict[str, str]) -> dict[str, pl.Expr]:
    return {name: pl.lit(value) for name, value in fields.items()}


def reasons(dropped: pl.DataFrame) -> list[str]:
    return sorted(dropped.get_column("reason"))


def test_opposite_pairs_are_all_dropped() -> None:
    """One vote against is enough, whatever the origins, and near-identical replies are the same reply."""
    rows = pairs(
        (("p", "a", "b"), {}),
        (("p", "a", "b"), {}),
        (("p", "B ", "A"), {"origin": "observed_recovery"}),
        (("p", "a", "c"), {}),
        (("q", "b", "a"), {}),
    )
    settled = settle(rows, unpaired(), empty("rationales"), 0)
    kept = {
        (row["prompt"][0]["content"], row["rejected"][0]["content"])
        for row in settled.pairs.iter_rows(named=True)
    }
    assert kept == {("p", "c"), ("q", "a")}
    assert reasons(settled.dropped) == ["contradictory"] * 3


def test_the_best_evidence_of_a_repeated_pair_stays() -> None:
    """Ranks come before thumbs before recoveries, then the smallest conversation id; others are duplicates."""
    origins = ["observed_recovery", "reaction", "human_rank", "human_rank"]
    rows = pairs(
        *((("p", "a", "b"), {"origin": o, "conversation_id": f"c{n}"}) for n, o in enumerate(origins))
    )
    settled = settle(rows, unpaired(), empty("rationales"), 0)
    assert settled.pairs.select("origin", "conversation_id").row(0) == ("human_rank", "c2")
    assert reasons(settled.dropped) == ["duplicate"] * 3


def test_labels_both_ways_are_dropped_and_equal_labels_merge() -> None:
    """Two users who disagree leave no label; of two who agree the stronger stays."""
    rows = unpaired(
        (("p", "a", True), {"weight": 0.6}),
        (("p", "a", True), {"weight": 0.9}),
        (("p", "b", True), {"weight": 1.0}),
        (("p", "B", False), {}),
    )
    settled = settle(pairs(), rows, empty("rationales"), 0)
    assert settled.unpaired.get_column("weight").to_list() == [0.9]
    assert reasons(settled.dropped) == ["contradictory", "contradictory", "duplicate"]


def test_a_prompt_stays_in_the_split_of_most_of_its_rows() -> None:
    """No prompt is in two splits, over pairs and labels together; rows are dropped for it, not moved."""
    held_out = {"split": "test"}
    rows = pairs((("p", "a", "b"), held_out), (("q", "a", "b"), held_out), (("q", "a", "c"), {}))
    labels = unpaired((("p", "a", True), {}), (("p", "c", True), {}), (("q", "x", True), held_out))
    settled = settle(rows, labels, empty("rationales"), 0)
    both = pl.concat([frame.select("prompt", "split") for frame in (settled.pairs, settled.unpaired)])
    found = {(row["prompt"][0]["content"], row["split"]) for row in both.iter_rows(named=True)}
    assert found == {("p", "train"), ("q", "test")}
    assert reasons(settled.dropped) == ["split_leak", "split_leak"]
    tied = settle(
        pairs((("p", "a", "b"), held_out), (("p", "a", "c"), {})), unpaired(), empty("rationales"), 0
    )
    assert tied.pairs.get_column("split").to_list() == ["train"]


def test_a_duplicate_in_the_right_split_survives_one_in_the_wrong_split() -> None:
    """The split is settled before duplicates, so a pair is not lost to a copy that had to go."""
    rows = pairs(
        (("p", "a", "b"), {"split": "test", "conversation_id": "a"}),
        (("p", "a", "b"), {"conversation_id": "b"}),
        (("p", "a", "c"), {}),
    )
    settled = settle(rows, unpaired(), empty("rationales"), 0)
    assert settled.pairs.height == 2
    assert reasons(settled.dropped) == ["split_leak"]


def test_rationales_follow_their_pair() -> None:
    """They stay with it, fall with it, and do not carry a user of another split along."""
    rows = pairs(
        (("p", "a", "b"), {}),
        (("q", "a", "b"), {}),
        (("q", "b", "a"), {}),
        (("r", "a", "b"), {"conversation_id": "x"}),
        (("r", "a", "b"), {"conversation_id": "y", "split": "test"}),
    )
    words = rationales(rows, "one", "two", "three", "four", "five")
    settled = settle(rows, unpaired(), words, 0)
    assert sorted(settled.rationales.get_column("text")) == ["four", "one"]
    told = settled.dropped.filter(pl.col("detail").str.starts_with("rationales"))
    assert reasons(told) == ["contradictory", "contradictory", "split_leak"]


def test_a_rationale_without_its_pair_is_an_error() -> None:
    """Silently losing a rationale would hide a fault of the caller."""
    rows = pairs((("p", "a", "b"), {}))
    with pytest.raises(ValueError, match="without its pair"):
        settle(pairs(), unpaired(), rationales(rows, "one"), 0)


def test_equal_words_about_a_pair_come_once() -> None:
    """Two users who say the same of the same pair give one rationale and one duplicate."""
    rows = pairs((("p", "a", "b"), {}), (("p", "a", "b"), {}))
    settled = settle(rows, unpaired(), rationales(rows, "bad", "bad"), 0)
    assert settled.rationales.height == 1
    assert reasons(settled.dropped) == ["duplicate", "duplicate"]


def test_dropped_rows_have_a_source_and_differ() -> None:
    """Every dropped row leads back to its conversation, and no two are the same row of quarantine."""
    rows = pairs(*[(("p", "a", "b"), {})] * 4)
    dropped = settle(rows, unpaired(), empty("rationales"), 0).dropped
    assert dropped.height == 3
    assert dropped.is_unique().all()
    assert dropped.get_column("source").str.contains(r"^conversations#id=c\d$").all()
    assert set(dropped.get_column("stage")) == {"settle"}


def test_order_depends_on_ids_and_seed_only() -> None:
    """Equal rows in another order come out equal; another seed gives another order of the same rows."""
    rows, labels = (
        pairs(*((("p" + str(n), "a", "b"), {"conversation_id": "c"}) for n in range(50))),
        unpaired(*(((str(n % 20), str(n), n % 3 == 0), {"conversation_id": "c"}) for n in range(50))),
    )
    words = rationales(rows, *map(str, range(50)))
    one = settle(rows, labels, words, 1)
    two = settle(rows.reverse(), labels.reverse(), words.reverse(), 1)
    other = settle(rows, labels, words, 2)
    for a, b, c in zip(one[:3], two[:3], other[:3], strict=True):
        assert a.get_column("id").to_list() == b.get_column("id").to_list()
        assert a.get_column("id").to_list() != c.get_column("id").to_list()
        assert a.sort("id").get_column("id").to_list() == c.sort("id").get_column("id").to_list()


def shelf(sizes: list[int]) -> pl.DataFrame:
    """Unpaired rows with `sizes[n]` rows of prompt n; labels alternate."""
    return unpaired(
        *(((str(p), str(n), n % 2 == 0), {}) for p, size in enumerate(sizes) for n in range(size))
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=25), st.integers(0, 9))
def test_rows_of_one_prompt_are_as_far_apart_as_the_bucket_allows(sizes: list[int], seed: int) -> None:
    """With k rows of the commonest prompt among n, gaps are n // k - 1 or more; no neighbours if avoidable."""
    rows = shelf(sizes)
    order = spread(rows, seed).get_column("prompt_id").to_list()
    assert sorted(order) == sorted(rows.get_column("prompt_id"))
    n, k = len(order), max(sizes)
    places: dict[str, list[int]] = {}
    for at, prompt in enumerate(order):
        places.setdefault(prompt, []).append(at)
    gaps = [b - a for found in places.values() for a, b in pairwise(found)]
    assert min(gaps, default=n) >= max(1, n // k - 1)
    if n >= 2 * k - 1:
        assert 1 not in gaps


def test_unpaired_rows_are_not_grouped_by_label() -> None:
    """Neighbours share a label about as often as chance has it, though rows came in grouped."""
    rows = unpaired(*(((str(n), "x", n < 1000), {}) for n in range(2000)))
    labels = spread(rows, 3).get_column("label")
    same = (labels == labels.shift(1)).sum()
    assert 900 < same < 1100
    assert spread(rows.clear(), 3).is_empty()


def test_buckets_are_functions_of_the_prompt() -> None:
    """Pairs and labels of one prompt share a bucket, and all buckets are used."""
    rows = pairs(*(((str(n), "a", "b"), {}) for n in range(200)))
    labels = unpaired(*(((str(n), "z", True), {}) for n in range(200)))
    assert bucket(rows, 7).to_list() == bucket(labels, 7).to_list()
    assert set(bucket(rows, 7)) == set(range(7))
    assert set(bucket(rows, 1)) == {0}
    assert rows.schema["prompt"] == PL_MESSAGES
