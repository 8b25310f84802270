"""Duplicates and splits over a whole run."""

from __future__ import annotations

import random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, polars_schema
from tilth.transforms.hygiene import SplitConfig, assign, keys, mixed, text_hashes

HALVES = SplitConfig(validation=0.25, test=0.25)


def logged(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of `conversations`; `say` is a list of texts, and each row is a record of its own unless it says so."""
    return pl.DataFrame(
        [row_of(at, **row) for at, row in enumerate(rows)], schema=polars_schema("conversations")
    )


def row_of(at: int, say: list[str], **fields: Any) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(say)]
    name = f"r{at}"
    row = {"id": name, "record_id": name, "record_rows": 1, "source": "s", "source_id": name, "owned_from": 0}
    return {**row, "messages": messages, **fields}


def assigned(*rows: dict[str, Any], config: SplitConfig = HALVES) -> pl.DataFrame:
    return assign(keys(logged(*rows)), config)


def reasons(*rows: dict[str, Any]) -> list[str | None]:
    return assigned(*rows).get_column("reason").to_list()


A, B = ["hello", "hi"], ["hello", "hi", "bye", "goodbye"]


def test_a_record_that_is_logged_twice_is_kept_once() -> None:
    """Same id and content, or same content where there is no id, is a duplicate; also in another source."""
    assert sorted(map(str, reasons({"say": A, "source_id": "x"}, {"say": A, "source_id": "x"}))) == [
        "None",
        "duplicate",
    ]
    assert sorted(map(str, reasons({"say": A, "source_id": None}, {"say": A, "source_id": None}))) == [
        "None",
        "duplicate",
    ]
    twice = reasons({"say": A, "source_id": "x"}, {"say": A, "source_id": "x", "source": "copy of s"})
    assert sorted(map(str, twice)) == ["None", "duplicate"]


def test_equal_talks_under_different_ids_are_two_observations() -> None:
    """Two users may have the same exchange; an id on one side only proves nothing either."""
    assert reasons({"say": A, "source_id": "x"}, {"say": A, "source_id": "y"}) == [None, None]
    assert reasons({"say": A, "source_id": "x"}, {"say": A, "source_id": None}) == [None, None]


def test_of_a_log_that_grows_the_longest_state_is_kept() -> None:
    """One id with different content in one source keeps the longest; in two sources it is two records."""
    grown = reasons(
        {"say": A, "source_id": "x"}, {"say": B, "source_id": "x"}, {"say": A[:1], "source_id": "x"}
    )
    assert grown == ["conflicting_duplicate", None, "conflicting_duplicate"]
    assert reasons({"say": A, "source_id": "x"}, {"say": B, "source_id": "x", "source": "t"}) == [None, None]
    assert reasons({"say": A, "source_id": None}, {"say": B, "source_id": None}) == [None, None]


def test_a_reaction_that_was_added_later_is_not_lost() -> None:
    """Of two states of equal length the one with more reactions is kept."""
    thumb = [{"message_index": 1, "kind": "thumbs_up", "value": 1.0, "at": None}]
    found = reasons({"say": A, "source_id": "x"}, {"say": A, "source_id": "x", "reactions": thumb})
    assert found == ["conflicting_duplicate", None]


def tree(name: str, *paths: list[str], **fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "say": say,
            "record_id": name,
            "source_id": name,
            "record_rows": 4 * (not at),
            "owned_from": at,
            **fields,
        }
        for at, say in enumerate(paths)
    ]


def test_all_conversations_of_a_record_share_its_fate() -> None:
    """A tree that is logged twice is dropped whole, and its paths are not duplicates of each other."""
    once = tree("t", A, ["hello", "hey"])
    assert reasons(*once) == [None, None]
    other = [{**row, "record_id": "t again"} for row in reversed(tree("t", A, ["hello", "hey"]))]
    found = reasons(*once, *other)
    assert sorted(map(str, {tuple(found[:2]), tuple(found[2:])})) == [
        "('duplicate', 'duplicate')",
        "(None, None)",
    ]


@pytest.mark.parametrize("second", [B, A])
def test_records_that_share_a_record_id_are_still_two_records(second: list[str]) -> None:
    """Where the record id comes from the source's id, each opening row (`record_rows` > 0) is its own record."""
    found = reasons(*tree("t", A, ["hello", "hey"]), *tree("t", second, ["hello", "hey"]))
    assert sorted(map(str, {tuple(found[:2]), tuple(found[2:])}))[-1] == "(None, None)"
    assert found.count(None) == 2


def test_rows_stay_in_line_with_their_keys() -> None:
    """The result has a row per conversation, in order: kept rows have a split, dropped rows a reason."""
    rows = [{"say": A, "source_id": str(n % 5)} for n in range(20)]
    found = assigned(*rows)
    assert found.columns == ["keep", "reason", "split"]
    assert found.height == 20
    assert found.get_column("keep").sum() == 5
    assert (found.get_column("keep") == found.get_column("split").is_not_null()).all()
    assert (found.get_column("keep") == found.get_column("reason").is_null()).all()


def test_nothing_gives_nothing() -> None:
    """A run without conversations has no assignments."""
    assert assigned().height == 0


people = st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=40)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(people, st.integers(0, 5))
def test_nothing_of_one_user_is_in_two_splits(users: list[list[int]], seed: int) -> None:
    """Users, their records and whoever shares a record with them are in one split, however they are linked."""
    rows = [
        {
            "say": [f"q{at}", "a"],
            "user_key": str(known[0]) if known else None,
            "other_user_keys": list(map(str, known[1:])),
        }
        for at, known in enumerate(users)
    ]
    config = SplitConfig(validation=0.3, test=0.3, seed=seed)
    found = assigned(*rows, config=config).get_column("split").to_list()
    homes: dict[int, set[str]] = {}
    for split, known in zip(found, users, strict=True):
        for key in known:
            homes.setdefault(key, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_the_outcome_does_not_depend_on_the_order_of_rows(seed: int) -> None:
    """Permuted keys get the same verdicts and splits, with duplicates, growing logs and shared users."""
    rng = random.Random(seed)
    rows = [
        {
            "say": [f"q{rng.randrange(4)}", "a"] * rng.randint(1, 3),
            "source_id": rng.choice([None, f"id{rng.randrange(6)}"]),
            "user_key": rng.choice([None, f"u{rng.randrange(9)}"]),
            "other_user_keys": rng.choice([None, [f"u{rng.randrange(9)}"]]),
        }
        for _ in range(rng.randint(1, 30))
    ]
    compact = keys(logged(*rows)).with_row_index("row")
    shuffled = compact.sample(fraction=1.0, shuffle=True, seed=seed)
    one = compact.hstack(assign(compact.drop("row"), HALVES))
    two = shuffled.hstack(assign(shuffled.drop("row"), HALVES)).sort("row")
    assert one.select("row", "keep", "reason", "split").equals(two.select("row", "keep", "reason", "split"))


def test_shares_are_met_and_seeds_differ() -> None:
    """Of many users about the configured share is held out, and another seed holds out others."""
    compact = keys(logged(*({"say": [f"q{n}", "a"], "user_key": f"u{n}"} for n in range(4000))))
    counts = dict(assign(compact, SplitConfig()).get_column("split").value_counts().iter_rows())
    assert 150 < counts["test"] < 250
    assert 150 < counts["validation"] < 250
    one, two = (assign(compact, SplitConfig(seed=seed)).get_column("split") for seed in (0, 1))
    assert (one != two).sum() > 400


@pytest.mark.parametrize("seed", range(8))
def test_a_group_larger_than_a_held_out_split_is_trained_on(seed: int) -> None:
    """Crowd work that ties nearly all records together never ends up as the test split."""
    rows = [{"say": [f"q{n}", "a"], "user_key": f"u{n}", "other_user_keys": ["moderator"]} for n in range(40)]
    rows += [{"say": [f"p{n}", "a"], "user_key": f"v{n}"} for n in range(40)]
    config = SplitConfig(validation=0.45, test=0.45, seed=seed)
    assert set(assigned(*rows, config=config).get_column("split")[:40]) == {"train"}


def test_impossible_shares_are_refused() -> None:
    """Nothing left to train on, or a negative share, is a configuration error."""
    with pytest.raises(ConfigError, match="shares"):
        SplitConfig(validation=0.5, test=0.5)
    with pytest.raises(ConfigError, match="shares"):
        SplitConfig(test=-0.1)


def test_hashes_are_the_same_everywhere() -> None:
    """The hashes that splits rest on are pinned: a new library version must not move a user to another split."""
    assert text_hashes(pl.Series(["", "Ünï", None])).to_list() == [
        3244421341483603138,
        2122030051220064277,
        None,
    ]
    assert mixed(pl.Series([0, 1], dtype=pl.UInt64), 0).to_list() == [
        16294208416658607535,
        10451216379200822465,
    ]
    assert (
        mixed(pl.Series([1], dtype=pl.UInt64), -3).to_list()
        != mixed(pl.Series([1], dtype=pl.UInt64), 3).to_list()
    )
