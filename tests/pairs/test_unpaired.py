"""Unpaired labels: which feedback is clear enough, and which is not."""

from __future__ import annotations

from typing import Any

import pytest

from tilth.transforms.feedback.taxonomy import DSAT, SAT
from tilth.transforms.pairs import PairPolicy, unpaired_labels

POLICY = PairPolicy()
TALK = {"id": "c", "say": ["Q", "A", "said of A", "B", "said of B"]}


def said(polarity: str, at: int = 2, **fields: Any) -> dict[str, Any]:
    return {"conversation_id": "c", "message_index": at, "polarity": polarity, **fields}


def labelled(build: Any, *signals: dict[str, Any], **row: Any) -> list[tuple[str, bool, float]]:
    ruled = unpaired_labels(build.logged({**TALK, **row}), build.signals(*signals), POLICY)
    rows = ruled.kept.iter_rows(named=True)
    kept = [(row["completion"][0]["content"], row["label"], row["weight"]) for row in rows]
    return sorted(kept) + [(reason, False, 0) for reason in ruled.dropped.get_column("reason")]


def thumb(polarity: str, **fields: Any) -> dict[str, Any]:
    label = "thumbs_up" if polarity == "positive" else "thumbs_down"
    return said(polarity, 1, target_index=1, method="reaction", labels=[label], dialogue_state=None, **fields)


def test_clear_feedback_labels_the_reply_it_is_about(build: Any) -> None:
    """Praise is true, a complaint is false, and the weight is the strength."""
    given = labelled(build, said("negative", strength=0.7), said("positive", 4, strength=0.8))
    assert given == [("A", False, 0.7), ("B", True, 0.8)]


def test_several_signals_of_one_kind_make_one_label(build: Any) -> None:
    """A thumb and words together give one row with both ids and the larger weight."""
    conversations = build.logged(TALK)
    signals = build.signals(said("positive", strength=0.7), thumb("positive", strength=0.9, id="thumb"))
    (row,) = unpaired_labels(conversations, signals, POLICY).kept.iter_rows(named=True)
    assert (row["weight"], row["method"], row["feedback_ids"]) == (0.9, "rules", ["c@2positive", "thumb"])
    assert row["prompt"] == [{"role": "user", "content": "Q"}]


@pytest.mark.parametrize("label", ["revision", "insufficient_detail"])
def test_asking_again_or_for_more_does_not_reject(build: Any, label: str) -> None:
    """A rephrased request or a clarification, however strong, is no false label."""
    assert labelled(build, said("negative", labels=[label])) == []


@pytest.mark.parametrize("label", ["humor", "personal_details", "getting_there"])
def test_jokes_and_half_praise_do_not_accept(build: Any, label: str) -> None:
    """Satisfaction that is not with the reply itself is no true label."""
    assert labelled(build, said("positive", labels=[label])) == []


def test_weak_signals_label_nothing(build: Any) -> None:
    """Below the thresholds nothing is a candidate, in words or by thumb."""
    assert labelled(build, said("negative", strength=0.5)) == []
    assert labelled(build, said("positive", strength=0.5)) == []
    assert labelled(build, thumb("negative", strength=0.4)) == []


def test_a_rank_is_no_label(build: Any) -> None:
    """A reaction that is not a thumb compares replies and judges none."""
    assert labelled(build, {**thumb("positive"), "labels": ["praise"]}) == []


def test_disagreement_and_refusals_are_dropped(build: Any) -> None:
    """Any signal of the other polarity makes a label contradictory; blamed refusals are not rejected."""
    assert labelled(build, said("negative"), said("positive", strength=0.3)) == [("contradictory", False, 0)]
    assert labelled(build, said("negative"), thumb("positive")) == [("contradictory", False, 0)]
    assert labelled(build, said("negative", on_refusal=True)) == [("correct_refusal", False, 0)]
    assert labelled(build, thumb("negative", on_refusal=True)) == [("correct_refusal", False, 0)]


def test_replies_that_cannot_be_completions_are_dropped(build: Any) -> None:
    """A reply that does not follow a user turn, calls tools or has no text is set aside with its reason."""
    turns = [("system", "Q"), ("assistant", "A"), ("user", "bad")]
    assert labelled(build, said("negative"), say=turns) == [("prompt_not_from_user", False, 0)]
    assert labelled(build, said("negative"), say=["Q", " \n", "bad"]) == [("empty_message", False, 0)]
    call = '[{"message_index": 1, "tool_calls": []}]'
    assert labelled(build, said("negative"), tool_calls_json=call) == [("unsupported_content", False, 0)]


def test_a_shared_reply_is_labelled_once_where_it_is_owned(build: Any) -> None:
    """A signal that every path of a tree repeats gives one label, in the conversation that owns it."""
    say = ["Q", "A", "thanks", "you are welcome"]
    conversations = build.logged(
        {"id": "b", "say": say, "record_id": "r", "owned_from": 3},
        {"id": "c", "say": [*say[:3], "bye"], "record_id": "r"},
    )
    shared = said("positive", id="f")
    signals = build.signals({**shared, "conversation_id": "b", "owned": False}, shared)
    ruled = unpaired_labels(conversations, signals, POLICY)
    assert ruled.kept.get_column("conversation_id").to_list() == ["c"]
    assert ruled.kept.get_column("feedback_ids").to_list() == [["f"]]


def test_paths_that_disagree_about_a_reply_label_nothing(build: Any) -> None:
    """Praise on one path and blame on another of the same record is a contradiction."""
    conversations = build.logged(
        {"id": "b", "say": ["Q", "A", "thanks"], "record_id": "r"},
        {"id": "c", "say": ["Q", "A", "wrong"], "record_id": "r", "owned_from": 2},
    )
    signals = build.signals(said("positive", conversation_id="b"), said("negative"))
    ruled = unpaired_labels(conversations, signals, POLICY)
    assert ruled.kept.is_empty()
    assert ruled.dropped.get_column("reason").to_list() == ["contradictory"]


def test_the_policy_names_labels_that_exist() -> None:
    """Every label of the default policy is one that mining emits."""
    assert {*POLICY.complaint_labels, *POLICY.correction_labels} <= set(DSAT)
    assert {*POLICY.satisfied_labels, *POLICY.better_labels} <= set(SAT)
