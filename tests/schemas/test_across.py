"""Contracts over all rows of a table, or of several, count exactly."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas.across import (
    Apart,
    HeldOut,
    OneSplit,
    Quoted,
    Resolves,
    SameSplit,
    SplitOfFeedback,
    Unique,
    evidence_against,
)

FEW = st.sampled_from("abcde")


def lazy(**columns: Sequence[object]) -> dict[str, pl.LazyFrame]:
    return {"table": pl.LazyFrame(columns)}


@settings(max_examples=40, deadline=None)
@given(st.lists(FEW))
def test_repeated_ids_are_counted(ids: list[str]) -> None:
    """Rows beyond the first of an id are counted."""
    frames = {"table": pl.LazyFrame({"id": ids}, schema={"id": pl.String})}
    assert Unique("m", "id").count("table", frames) == len(ids) - len(set(ids))


def test_ids_that_only_collide_are_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ids with one hash are two ids."""

    def colliding(self: pl.Expr) -> pl.Expr:
        return pl.lit(7, pl.UInt64) + self.str.len_bytes() * 0

    monkeypatch.setattr(pl.Expr, "hash", colliding)
    assert Unique("m", "id").count("table", lazy(id=["a", "b", "c"])) == 0
    assert Unique("m", "id").count("table", lazy(id=["a", "b", "b"])) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(FEW | st.none(), st.sampled_from(["train", "test"]))))
def test_values_in_two_splits_are_counted(rows: list[tuple[str | None, str]]) -> None:
    """A value counts once however often it is spread; null is nobody."""
    frame = pl.LazyFrame(rows, schema={"user_key": pl.String, "split": pl.String}, orient="row")
    spread = [key for key in "abcde" if len({split for user, split in rows if user == key}) > 1]
    assert OneSplit("m", "user_key").count("table", {"table": frame}) == len(spread)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(FEW)), st.sets(FEW))
def test_references_that_lead_nowhere_are_counted(listed: list[list[str]], known: set[str]) -> None:
    """Every reference in every list is looked up."""
    frames = {
        "table": pl.LazyFrame({"ids": listed}, schema={"ids": pl.List(pl.String)}),
        "target": pl.LazyFrame({"id": sorted(known)}, schema={"id": pl.String}),
    }
    lost = [reference for row in listed for reference in row if reference not in known]
    assert Resolves("m", "ids", "target").count("table", frames) == len(lost)


def test_single_references_and_nulls() -> None:
    """A plain column is looked up like a list, and a null leads nowhere."""
    frames = {**lazy(pair_id=["a", "x", None]), "target": pl.LazyFrame({"id": ["a"]})}
    assert Resolves("m", "pair_id", "target").count("table", frames) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(FEW), st.lists(st.tuples(FEW | st.none(), st.sampled_from(["train", "validation", "test"]))))
def test_what_was_trained_on_is_counted(held: list[str], rows: list[tuple[str | None, str]]) -> None:
    """Every row whose value stands in a training row is counted once, however often it stands there."""
    frames = {
        "table": pl.LazyFrame({"prompt_id": held}, schema={"prompt_id": pl.String}),
        "pairs": pl.LazyFrame(rows, schema={"prompt_id": pl.String, "split": pl.String}, orient="row"),
    }
    seen = {value for value, split in rows if split == "train"}
    assert HeldOut("m", "prompt_id", "pairs").count("table", frames) == sum(one in seen for one in held)


def test_no_prompt_is_the_prompt_of_no_pair() -> None:
    """A null among the training rows is nobody's prompt."""
    frames = {**lazy(prompt_id=[None, "a"]), "pairs": pl.LazyFrame({"prompt_id": [None], "split": ["train"]})}
    frames["pairs"] = frames["pairs"].cast({"prompt_id": pl.String})
    assert HeldOut("m", "prompt_id", "pairs").count("table", frames) == 0


def test_no_list_refers_to_nothing() -> None:
    """A row without a list has no references; a null within a list leads nowhere."""
    listed = pl.LazyFrame({"ids": [None, [], ["a", None, "x"]]}, schema={"ids": pl.List(pl.String)})
    frames = {"table": listed, "target": pl.LazyFrame({"id": ["a"]})}
    assert Resolves("m", "ids", "target").count("table", frames) == 2


def test_rows_stand_where_their_conversation_stands() -> None:
    """A row in another split than its conversation, or in none, is counted."""
    rows = lazy(conversation_id=["a", "a", "b", "z"], split=["train", "test", None, "test"])
    frames = {**rows, "conversations": pl.LazyFrame({"id": ["a", "b"], "split": ["train", "test"]})}
    assert SameSplit("m").count("table", frames) == 2


def test_neighbours_are_seen_across_parts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Equal neighbours are counted in the order of rows, over the borders of parts."""
    folder = tmp_path_factory.mktemp("parts")
    keys = [f"p{number}" for number in range(20_000)]
    parts = [keys[:7000], [keys[6999], *keys[7000:9000]], [*keys[9000:], keys[-1]]]
    for number, part in enumerate(parts):
        pl.DataFrame({"prompt_id": part}).write_parquet(folder / f"{number}.parquet", row_group_size=500)
    scanned = pl.scan_parquet([folder / f"{number}.parquet" for number in range(3)])
    assert Apart("m", "prompt_id").count("table", {"table": scanned}) == 2


def test_evidence_is_compared_character_by_character() -> None:
    """Offsets are of characters in the message that is named; a shifted quote is not verbatim."""
    said = [("user", "hi"), ("assistant", "hello"), ("user", "größer 🌱, danke!")]
    talks = pl.DataFrame({"id": ["c"], "messages": [[{"role": r, "content": t} for r, t in said]]})
    quotes = [("danke", 10, 15), ("danke", 11, 16), ("größer", 0, 6)]
    signals = pl.DataFrame(
        {
            "conversation_id": "c",
            "message_index": [2, 2, 1],
            "target_index": [1, 1, 0],
            "method": "rules",
            "evidence": [[{"label": "gratitude", "text": t, "start": s, "end": e}] for t, s, e in quotes],
        }
    )
    assert evidence_against(talks, signals) == {
        "evidence_compared": 3,
        "target_not_assistant": 1,
        "not_said_by_user": 1,
        "evidence_not_in_message": 2,
    }


def test_quotes_stand_in_what_they_cite() -> None:
    """A quote of the wrong reply, or of nothing, is counted; what a user said is compared elsewhere."""
    said = {"prompt": "a deep bed", "chosen": "five (5) cm", "rejected": "on the roof"}
    pairs = {name: [[{"role": "assistant", "content": text}]] for name, text in said.items()}
    cited = [("chosen", "(5) cm"), ("prompt", "deep"), ("rejected", "five"), ("chosen", "six"), ("user", "x")]
    rationales = lazy(
        id=[str(n) for n in range(6)],
        pair_id=["p"] * 6,
        kind=["specific"] * 5 + ["user_complaint"],
        evidence=[[{"side": side, "quote": quote}] for side, quote in [*cited, ("rejected", "nowhere")]],
    )["table"]
    frames = {"table": rationales, "pairs": lazy(id=["p"], **pairs)["table"]}
    assert Quoted("m").count("table", frames) == 3


def test_feedback_of_another_split_is_counted() -> None:
    """A row counts once, however many signals it takes from elsewhere; unknown ones are another check's."""
    feedback = pl.LazyFrame({"id": ["f", "g", "h"], "split": ["train", "test", "test"]})
    listed = [["f"], ["f", "g", "h"], ["lost"], [], None]
    rows = pl.LazyFrame(
        {"id": [*"abcde"], "split": ["train"] * 5, "feedback_ids": listed},
        schema_overrides={"feedback_ids": pl.List(pl.String)},
    )
    assert SplitOfFeedback("m").count("table", {"table": rows, "feedback": feedback}) == 1
