"""Thumbs as feedback."""

from __future__ import annotations

import polars as pl
import pytest

from tilth.schemas import polars_schema
from tilth.transforms.feedback import mine, observe_reactions


def conversations(
    *reactions: tuple[int, str, float | None], name: str = "c", owned_from: int = 0
) -> pl.DataFrame:
    """One conversation of four turns with `reactions` (message index, kind, value)."""
    schema = polars_schema("conversations")
    row = {
        "id": name,
        "record_id": "r",
        "messages": [{"role": role, "content": role} for role in ("user", "assistant") * 2],
        "owned_from": owned_from,
        "language": "de",
        "split": "train",
        "reactions": [
            {"message_index": at, "kind": kind, "value": value, "at": None} for at, kind, value in reactions
        ],
    }
    return pl.DataFrame([row], schema={name: schema[name] for name in row})


def test_a_thumb_is_a_row_about_its_reply() -> None:
    """One row with the kind as its label, the reply as both indices and no evidence, in any language."""
    row = observe_reactions(conversations((1, "thumbs_down", 1.0))).row(0, named=True)
    assert (row["polarity"], row["labels"], row["message_index"], row["target_index"]) == (
        "negative",
        ["thumbs_down"],
        1,
        1,
    )
    assert (row["evidence"], row["method"], row["strength"], row["split"]) == ([], "reaction", 0.5, "train")


def test_the_majority_wins_and_more_votes_weigh_more() -> None:
    """Opposed thumbs are netted; the lead sets the strength."""
    found = observe_reactions(
        conversations((1, "thumbs_up", 5.0), (1, "thumbs_down", 2.0), (3, "thumbs_up", 1.0))
    )
    assert found.select("message_index", "polarity", "strength").rows() == [
        (1, "positive", 0.875),
        (3, "positive", 0.5),
    ]


@pytest.mark.parametrize(
    "reactions",
    [
        [(1, "thumbs_up", 1.0), (1, "thumbs_down", 1.0)],
        [(1, "thumbs_up", 0.0)],
        [(1, "thumbs_up", None)],
        [(0, "thumbs_up", 1.0)],
        [(9, "thumbs_up", 1.0)],
        [(1, "rank", 1.0)],
        [],
    ],
    ids=["tie", "nobody", "unknown", "on a user turn", "out of range", "a rank", "none"],
)
def test_what_says_nothing_gives_no_row(reactions: list[tuple[int, str, float | None]]) -> None:
    """Ties, empty votes, reactions on no reply and other kinds give no row, and the columns stay."""
    found = observe_reactions(conversations(*reactions))
    assert found.is_empty()
    assert found.schema == mine(conversations()).feedback.schema


def test_paths_of_a_tree_share_the_id() -> None:
    """The same reaction seen on two paths has one id, and one owner."""
    thumb = (1, "thumbs_up", 1.0)
    both = pl.concat([conversations(thumb, name="a"), conversations(thumb, name="b", owned_from=2)])
    found = observe_reactions(both)
    assert found.get_column("id").n_unique() == 1
    assert found.get_column("owned").to_list() == [True, False]
