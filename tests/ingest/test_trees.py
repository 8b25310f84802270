"""OASST trees: paths, owned turns, ranks and emojis, lost messages, and the order and place of rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.transforms.ingest import ReadConfig, expand, plan, read
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.ingest.shapes import oasst

Write = Callable[..., Path]


def message(id_: str, parent: str | None, tree: str = "t", **more: object) -> dict[str, Any]:
    """A message row: ids that begin with u are the user's."""
    role = "prompter" if id_.startswith("u") else "assistant"
    row = {
        "message_id": id_,
        "parent_id": parent,
        "message_tree_id": tree,
        "role": role,
        "text": f"says {id_}",
    }
    return {**row, "user_id": f"by-{id_}", "lang": "en", "created_date": "2023-02-07T17:29:24+00:00", **more}


TREE = [
    message("u1", None),
    message("a1", "u1", rank=1, emojis={"name": ["+1", "-1", "heart", "_skip_reply"], "count": [9, 1, 2, 4]}),
    message("a2", "u1", rank=0),
    message("u2", "a1"),
    message("a3", "u2"),
    message("a4", "u2"),
]


def test_every_path_is_a_conversation(jsonl: Write, ingest: Any) -> None:
    """Root-to-leaf paths come depth first, best rank first, each owning the turns no earlier path has."""
    found = ingest(jsonl(TREE))
    assert found.conversations["message_ids"].to_list() == [
        ["u1", "a2"],
        ["u1", "a1", "u2", "a3"],
        ["u1", "a1", "u2", "a4"],
    ]
    assert found.conversations["owned_from"].to_list() == [0, 1, 3]
    assert found.conversations["record_rows"].to_list() == [6, 0, 0]
    assert (found.conversations["record_id"].n_unique(), found.conversations["id"].n_unique()) == (1, 3)
    assert set(found.conversations["source_id"]) == {"t"}


def test_ranks_and_emojis_stand_on_every_path(jsonl: Write, ingest: Any) -> None:
    """A shared turn's rank and emojis are on each path that holds it; marks of the workflow are not."""
    found = ingest(jsonl(TREE))
    shared = [(1, "rank", 1.0), (1, "thumbs_up", 9.0), (1, "thumbs_down", 1.0), (1, "emoji", 2.0)]
    assert found.reactions == [[(1, "rank", 0.0)], shared, shared]


def test_users_of_a_tree(jsonl: Write, ingest: Any) -> None:
    """The first user turn's writer is the user, writers of later user turns are the others."""
    kept = ingest(jsonl(TREE), user_salt="s").conversations.row(1, named=True)
    assert kept["user_key"] == user_key("by-u1", "s")
    assert kept["other_user_keys"] == [user_key("by-u2", "s")]


def test_lost_messages_take_what_is_below_them(jsonl: Write, ingest: Any) -> None:
    """A deleted, broken or missing message orphans what is below it; each row is accounted for once."""
    rows = [
        *TREE,
        message("a5", "u1", deleted=True),
        message("u3", "a5"),
        message("a6", "nobody"),
        message("a7", "u1", text=" "),
        message("a8", "u1", text="a\0b"),
        message("a1", "u1"),
        message("c1", "c2"),
        message("c2", "c1"),
        {**message("a9", "u1"), "message_tree_id": None},
        message("u9", None, tree="alone"),
    ]
    found = ingest(jsonl(rows))
    assert found.conversations.height == 3
    assert sorted(found.reasons) == sorted(
        [
            "deleted_message",
            "empty_message",
            "nul_character",
            "duplicate",
            "not_a_conversation",
            "no_assistant_turn",
        ]
        + 4 * ["orphan_message"]
    )
    assert found.rows_in == len(rows)


def test_path_that_does_not_alternate_loses_its_own_rows(jsonl: Write, ingest: Any) -> None:
    """A path that cannot go on costs the rows that no other path has."""
    found = ingest(jsonl([*TREE, message("a10", "a4"), message("a11", "a10")]))
    assert found.conversations["message_ids"].to_list() == [["u1", "a2"], ["u1", "a1", "u2", "a3"]]
    assert (found.reasons, found.quarantine["source_rows"].to_list()) == (["roles_do_not_alternate"], [3])


def test_merging_turns_of_a_path(jsonl: Write, ingest: Any) -> None:
    """With `merge`, a joined turn is shared only with a path that joins the same messages."""
    found = ingest(jsonl([*TREE, message("a10", "a4"), message("a11", "a4")]), on_consecutive="merge")
    assert found.texts[2] == ["says u1", "says a1", "says u2", "says a4\nsays a10"]
    assert found.conversations["owned_from"].to_list() == [0, 1, 3, 3]


def nest(rows: Sequence[dict[str, Any]], id_: str) -> dict[str, Any]:
    """The same tree, nested."""
    (own,) = [row for row in rows if row["message_id"] == id_]
    return {**own, "replies": [nest(rows, row["message_id"]) for row in rows if row["parent_id"] == id_]}


def test_nested_trees_give_the_same_conversations(jsonl: Write, ingest: Any) -> None:
    """A nested tree is one source row and gives the conversations of its message rows; its losses cost no row."""
    flat = ingest(jsonl(TREE)).conversations
    rows = [*TREE, message("a5", "u1", deleted=True)]
    tree = {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": nest(rows, "u1")}
    found = ingest(jsonl([tree, {**tree, "prompt": nest(rows[:1], "u1")}]))
    assert found.conversations.drop("record_rows").equals(flat.drop("record_rows"))
    assert found.rows_in == 2
    losses = dict(found.quarantine.select("reason", "source_rows").iter_rows())
    assert losses == {"deleted_message": 0, "no_assistant_turn": 1}


def test_a_tree_may_lie_in_several_files(jsonl: Write, tmp_path: Path) -> None:
    """All message files of one source are one task, so that a tree is found wherever its rows are."""
    jsonl(TREE[:3], "a.jsonl")
    jsonl(TREE[3:], "b.jsonl")
    (task,) = plan(expand([str(tmp_path)]))
    (batch,) = read(task)
    assert batch.conversations.height == 3
    assert batch.rows_in == 6


def test_spilled_trees_are_the_same(jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees that are gathered through files on disk are the same as those gathered in memory."""
    rows = [{**row, "message_tree_id": f"t{n}"} for n in range(40) for row in TREE] + [
        message("a6", "nobody")
    ]
    random.Random(1).shuffle(rows)
    (task,) = plan(expand([str(jsonl(rows))]))
    (held,) = read(task)
    monkeypatch.setattr("tilth.transforms.ingest.trees.GATHER_BYTES", 2_000)
    (spilled,) = read(task)
    assert spilled.rows_in == held.rows_in == len(rows)
    assert spilled.conversations.sort("id").equals(held.conversations.sort("id"))
    assert not spilled.conversations.equals(held.conversations), "the rows were not spilled"


TREES = st.lists(
    st.tuples(st.integers(0, 30), st.booleans(), st.booleans(), st.integers(0, 3)), min_size=1, max_size=14
)


@settings(max_examples=150, deadline=None)
@given(TREES, st.randoms(use_true_random=False), st.sampled_from(["quarantine", "merge"]))
def test_rows_of_a_tree_are_all_accounted_for(shape: Any, chance: random.Random, on_consecutive: Any) -> None:
    """Each row of any forest is kept or lost once, each kept turn is owned once, and order does not matter."""
    rows = []
    for n, (parent, user, deleted, rank) in enumerate(shape):
        above = None if n == 0 else (rows[parent % n]["message_id"] if parent < 28 else "nobody")
        rows.append(message(f"{'u' if user else 'a'}{n}", above, deleted=deleted, rank=rank or None))
    config = ReadConfig(on_consecutive=on_consecutive)
    grown = oasst.grow("t", rows, config)
    lost = [row for loss in grown.losses for row in loss.rows]
    kept = grown.record.rows if grown.record else 0
    assert len(lost) == len(set(lost))
    assert len(lost) + kept == len(rows)
    if grown.record:
        owned = [turn.key for c in grown.record.conversations for turn in c.turns[c.owned_from :]]
        assert len(owned) == len(set(owned))
        assert {key for c in grown.record.conversations for key in (turn.key for turn in c.turns)} == set(
            owned
        )
    again = oasst.grow("t", chance.sample(rows, len(rows)), config)
    assert (again.record and again.record.conversations) == (grown.record and grown.record.conversations)


def test_batches_hold_whole_records(jsonl: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small batches are, the paths of one tree are in one of them."""
    monkeypatch.setattr("tilth.transforms.ingest.batches.BATCH_ROWS", 4)
    monkeypatch.setattr("tilth.transforms.ingest.batches._TREES_AT_ONCE", 1)
    rows = [{**row, "message_tree_id": f"t{n}"} for n in range(7) for row in TREE]
    (task,) = plan(expand([str(jsonl(rows))]))
    batches = list(read(task))
    assert len(batches) == 7
    assert all(batch.conversations["record_id"].n_unique() == 1 for batch in batches)
    assert pl.concat([batch.conversations for batch in batches]).height == 21
