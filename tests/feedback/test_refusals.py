"""Complaints about right refusals: flagged by rules or model, and no flag is ever lost."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.talks import name, talk, talks
from tilth.schemas import polars_schema
from tilth.transforms.feedback.refusals import flagged

DECLINED = "I'm sorry, but I can't help with that. It would be illegal and against my guidelines."
ROWS = talks(
    talk("How do I make a bomb?", DECLINED, "you are useless", "Sorry.", "still useless", called="refused"),
    talk("Capital of Australia?", "Sydney.", "you are useless", "Sorry.", "still useless", called="failed"),
)


def signal(of: str, turn: int, target: int, **columns: object) -> dict[str, object]:
    """One complaint that a model found."""
    row: dict[str, object] = {"polarity": "negative", "method": "model", "on_refusal": False}
    place = {"conversation_id": name(of), "message_index": turn, "target_index": target}
    return {"id": name(f"{of} {turn} {target} {columns.get('polarity')}"), **row, **place, **columns}


def feedback(*rows: dict[str, object]) -> pl.DataFrame:
    schema = polars_schema("feedback")
    return pl.DataFrame([dict.fromkeys(schema) | row for row in rows], schema=schema)


def flags(*rows: dict[str, object]) -> list[bool]:
    return flagged(feedback(*rows), ROWS).get_column("on_refusal").to_list()


def test_a_refusal_that_the_model_missed_is_found_by_the_rules() -> None:
    """The reply that declined a harmful request is not held against it; the reply that was wrong is."""
    assert flags(signal("refused", 2, 1), signal("failed", 2, 1)) == [True, False]


def test_the_reply_that_is_meant_decides_not_the_one_before_the_turn() -> None:
    """A later turn about the refusal is flagged; one about the reply after it is not."""
    assert flags(signal("refused", 4, 1)) == [True]
    assert flags(signal("refused", 4, 3)) == [False]


def test_a_flag_of_the_model_stands_where_the_rules_see_nothing() -> None:
    """Either of them is enough."""
    assert flags(signal("failed", 2, 1, on_refusal=True)) == [True]


def test_praise_is_never_flagged() -> None:
    """Thanks for a refusal are a reason to keep it."""
    praise = signal("refused", 2, 1, polarity="positive", on_refusal=True)
    assert flags(praise, signal("refused", 4, 1)) == [False, True]
    praise = signal("failed", 2, 1, polarity="positive", on_refusal=True)
    assert flags(praise, signal("failed", 4, 1)) == [False, False]


def test_a_flag_holds_for_every_complaint_about_the_reply_and_for_the_signal_on_every_path() -> None:
    """One user's doubt about a rejection protects the reply from the others; equal ids agree."""
    rows = [signal("failed", 2, 1), signal("failed", 4, 1, on_refusal=True), signal("failed", 4, 3)]
    assert flags(*rows) == [True, True, False]
    elsewhere = [signal("refused", 4, 3) | {"id": rows[0]["id"]}, signal("refused", 2, 3)]
    assert flags(*rows, *elsewhere) == [True, True, False, True, True]


def test_feedback_about_unknown_conversations_and_none_at_all_are_no_error() -> None:
    """What cannot be looked up is left as it is said."""
    assert flags(signal("elsewhere", 2, 1), signal("elsewhere", 4, 3, on_refusal=True)) == [False, True]
    assert flags() == []


SIGNALS = st.builds(
    lambda of, at, polarity, flag, method, shared: signal(
        of, *at, id=name(polarity + shared), polarity=polarity, on_refusal=flag, method=method
    ),
    st.sampled_from(("refused", "failed")),
    st.sampled_from(((2, 1), (4, 1), (4, 3))),
    st.sampled_from(("positive", "negative")),
    st.sampled_from((True, False, None)),
    st.sampled_from(("rules", "model", "reaction")),
    st.sampled_from("abcdef"),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(SIGNALS, max_size=6), st.lists(SIGNALS, max_size=6), st.randoms(use_true_random=False))
def test_no_flag_is_lost_by_merging_in_any_order(
    one: list[dict[str, object]], other: list[dict[str, object]], chance: Any
) -> None:
    """What was flagged alone is flagged together; more rows only add flags; twice is once; order does not matter."""
    alone, together = flags(*one), flags(*one, *other)
    assert all(not before or after for before, after in zip(alone, together, strict=False))
    raised = [bool(row["on_refusal"]) and row["polarity"] == "negative" for row in (*one, *other)]
    assert all(not before or after for before, after in zip(raised, together, strict=True))
    again = flagged(flagged(feedback(*one, *other), ROWS), ROWS)
    assert again.get_column("on_refusal").to_list() == together
    order = list(range(len(together)))
    chance.shuffle(order)
    rows = [*one, *other]
    assert flags(*(rows[at] for at in order)) == [together[at] for at in order]
