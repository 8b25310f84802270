"""Rationales: the user's own words about the rejected reply."""

from __future__ import annotations

from typing import Any

import polars as pl

from tilth.schemas import polars_schema
from tilth.transforms.pairs import PairPolicy, recovery_pairs, sibling_pairs
from tilth.transforms.rationales import user_complaints

LONG = (
    "I went through the whole of your text with some care this evening, since it is for my class tomorrow. "
    "The second date is wrong! It also leaves out the treaty of 1648, which I asked for. "
    "My class meets at nine and there are thirty pupils in it, most of whom like history a great deal. "
    "They are between twelve and thirteen years old."
)


def talk(id: str, *say: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(say)]
    row = {"id": id, "source": "memory://log", "record_id": id, "owned_from": 0, "split": "train"}
    return {**row, "messages": messages, **fields}


def signal(of: str, at: int, text: str, *quotes: str, **fields: Any) -> dict[str, Any]:
    evidence = [
        {"label": "negative_feedback", "text": q, "start": text.index(q), "end": text.index(q) + len(q)}
        for q in quotes
    ]
    about = {"conversation_id": of, "message_index": at, "target_index": at - 1, "evidence": evidence}
    words = {"polarity": "negative", "labels": ["negative_feedback"], "strength": 0.9, "method": "rules"}
    return {"id": f"{of}@{at}", **about, **words, "on_refusal": False, "owned": True, **fields}


def praise(of: str, at: int) -> dict[str, Any]:
    return signal(of, at, "", polarity="positive", labels=["gratitude"], id=f"{of}@{at}+")


def explained(talks: list[dict[str, Any]], signals: list[dict[str, Any]]) -> pl.DataFrame:
    conversations = pl.DataFrame(talks, schema=polars_schema("conversations"))
    feedback = pl.DataFrame(signals, schema={**polars_schema("feedback"), "owned": pl.Boolean})
    policy = PairPolicy(max_new_share=1.0)
    kept = [recovery_pairs(conversations, feedback, policy).kept, sibling_pairs(conversations, policy).kept]
    return user_complaints(pl.concat(kept), feedback, conversations)


def test_a_short_turn_is_quoted_whole() -> None:
    """The text is the user's turn, the evidence its telling part; pair, signal and conversation are named."""
    turn = " That's wrong. It is Canberra. "
    (row,) = explained(
        [talk("c", "Capital?", "Sydney", turn, "Canberra", "Thanks")],
        [signal("c", 2, turn, "That's wrong"), praise("c", 4)],
    ).iter_rows(named=True)
    assert row["text"] == turn.strip()
    assert row["evidence"] == [{"side": "rejected", "quote": "That's wrong"}]
    assert (row["kind"], row["feedback_ids"], row["conversation_id"]) == ("user_complaint", ["c@2"], "c")
    assert len(row["pair_id"]) == 32


def test_of_a_long_turn_the_sentences_with_evidence_are_quoted() -> None:
    """What surrounds the complaint stays out, and the text is a verbatim part of the turn."""
    (row,) = explained(
        [talk("c", "Essay", "A", LONG, "B", "Thanks")],
        [signal("c", 2, LONG, "wrong", "leaves out"), praise("c", 4)],
    ).iter_rows(named=True)
    assert (
        row["text"] == "The second date is wrong! It also leaves out the treaty of 1648, which I asked for."
    )
    assert row["text"] in LONG
    assert [quote["quote"] for quote in row["evidence"]] == ["wrong", "leaves out"]


def test_a_complaint_about_a_ranked_reply_explains_its_pair() -> None:
    """Words on one path explain why a sibling lost, though the winner stands on another path."""
    rank = [[{"message_index": 1, "kind": "rank", "value": float(at), "at": None}] for at in range(2)]
    talks = [
        talk("c", "Q", "good", record_id="r", reactions=rank[0]),
        talk("d", "Q", "poor", "Useless.", "x", record_id="r", owned_from=1, reactions=rank[1]),
    ]
    (row,) = explained(talks, [signal("d", 2, "Useless.", "Useless")]).iter_rows(named=True)
    assert (row["text"], row["conversation_id"]) == ("Useless.", "d")


def test_only_words_against_the_rejected_reply_are_reasons() -> None:
    """Thumbs, weak signals, blamed refusals and complaints about other replies explain nothing."""
    rank = [[{"message_index": 1, "kind": "rank", "value": float(at), "at": None}] for at in range(2)]
    talks = [
        talk("c", "Q", "good", "Useless.", "x", record_id="r", reactions=rank[0]),
        talk("d", "Q", "poor", "Useless.", "y", "Useless.", record_id="r", owned_from=1, reactions=rank[1]),
        talk("e", "Q", "poor", "Useless."),
    ]
    against = [
        signal("c", 2, "Useless.", "Useless"),
        signal("d", 4, "Useless.", "Useless"),
        signal("e", 2, "Useless.", "Useless"),
        signal("d", 2, "Useless.", "Useless", id="thumb", method="reaction"),
        signal("d", 2, "Useless.", "Useless", id="weak", strength=0.4),
        signal("d", 2, "Useless.", "Useless", id="refusal", on_refusal=True),
    ]
    assert explained(talks, against).is_empty()


def test_a_complaint_that_paths_share_is_quoted_once() -> None:
    """A turn with its signal on two paths of a tree gives one rationale."""
    say = ["Capital?", "Sydney", "Wrong.", "Canberra"]
    talks = [talk("c", *say, "Thanks", record_id="r"), talk("d", *say, "Great", record_id="r", owned_from=4)]
    signals = [
        signal("c", 2, "Wrong.", "Wrong", id="f"),
        signal("d", 2, "Wrong.", "Wrong", id="f", owned=False),
        praise("c", 4),
        praise("d", 4),
    ]
    assert explained(talks, signals).get_column("conversation_id").to_list() == ["c"]
