"""What is compared with what: joined by conversation and prompt, the candidate first."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import PL_MESSAGES, conform
from tilth.transforms.responses.candidates import PLACES, response_rows
from tilth.transforms.responses.comparisons import (
    COMPARISONS,
    Compared,
    comparison_items,
    comparisons,
    uncompared,
)

ASKED: Final = [{"role": "user", "content": "Why?"}]
WHERE: Final = {
    **PLACES,
    "feedback_ids": pl.List(pl.String),
    "reply": PL_MESSAGES,
    "model": pl.String,
    "calls_tools": pl.Boolean,
    "tool_calls_json": pl.String,
}


def places(*names: str, **fields: Any) -> pl.DataFrame:
    """A place in each of these conversations; all of them answer the same prompt."""
    rows = [
        {
            "conversation_id": name.ljust(32, "c"),
            "target_index": 1,
            "prompt_id": "0" * 32,
            "prompt": ASKED,
            "preferences": [f"As {name} likes it."],
            "source": "log",
            "split": "train",
            "feedback_ids": [f"of {name}"],
            "reply": [{"role": "assistant", "content": f"logged for {name}"}],
            "model": "the model that was logged",
            "calls_tools": False,
            "tool_calls_json": None,
            **fields,
        }
        for name in names
    ]
    return pl.DataFrame(rows, schema=WHERE)


def replies(name: str, role: str, *texts: str, **fields: Any) -> pl.DataFrame:
    """Samples of one role in one conversation."""
    rows = [
        {
            "conversation_id": name.ljust(32, "c"),
            "prompt_id": "0" * 32,
            "prompt": ASKED,
            "completion": [{"role": "assistant", "content": text}],
            "role": role,
            "sample_index": n,
            "model": f"model of {role}",
            "split": "train",
            "method": "model",
            **fields,
        }
        for n, text in enumerate(texts)
    ]
    return response_rows(conform(pl.DataFrame(rows, strict=False), "responses"))


def met(rows: pl.DataFrame) -> set[tuple[str, str, str]]:
    """Conversation, chosen side, rejected side."""
    return {
        (row["conversation_id"][0], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows.iter_rows(named=True)
    }


def test_expert_meets_the_logged_reply_and_policy_its_plain_self() -> None:
    """The default: guided replies of the policy with its plain ones, the expert's with what was logged."""
    every = [replies("a", role, f"by {role}") for role in ("logged", "expert", "on_policy", "plain")]
    made = comparisons(places("a"), pl.concat(every), Compared())
    assert met(made) == {("a", "by expert", "by logged"), ("a", "by on_policy", "by plain")}
    assert dict(made.select("origin", "models").iter_rows()) == {
        "expert": {"chosen": "model of expert", "rejected": "model of logged"},
        "on_policy": {"chosen": "model of on_policy", "rejected": "model of plain"},
    }
    assert made["user_preferences"].to_list() == [["As a likes it."]] * 2
    assert made["feedback_ids"].to_list() == [["of a"]] * 2


def test_conversations_with_one_prompt_keep_to_themselves() -> None:
    """Equal prompts in two conversations: neither replies, wishes nor feedback of one meet those of the other."""
    roles = ("logged", "expert")
    every = [replies(name, role, f"{role} for {name}") for name in "ab" for role in roles]
    made = comparisons(places("a", "b"), pl.concat(every), Compared())
    assert met(made) == {("a", "expert for a", "logged for a"), ("b", "expert for b", "logged for b")}
    told = {
        row["conversation_id"][0]: (row["user_preferences"], row["feedback_ids"]) for row in made.to_dicts()
    }
    assert told == {"a": (["As a likes it."], ["of a"]), "b": (["As b likes it."], ["of b"])}
    assert made["item_id"].n_unique() == 2


def test_samples_meet_the_same_sample() -> None:
    """Each guided sample meets the plain one of its index, also when texts are equal."""
    every = [replies("a", "on_policy", "same", "same", "third"), replies("a", "plain", "p", "q", "r")]
    made = comparisons(places("a"), pl.concat(every), Compared())
    assert met(made) == {("a", "same", "p"), ("a", "same", "q"), ("a", "third", "r")}
    assert made["item_id"].n_unique() == 3


def test_several_candidates_meet_the_one_reply_that_there_is() -> None:
    """Every sample of the policy against the logged reply."""
    every = [replies("a", "on_policy", "x", "y"), replies("a", "logged", "z")]
    made = comparisons(places("a"), pl.concat(every), Compared(policy_against="logged"))
    assert met(made) == {("a", "x", "z"), ("a", "y", "z")}


def test_a_sample_whose_other_side_failed_meets_no_other() -> None:
    """Where several plain samples are left, a candidate is compared with its own or not at all."""
    plain = replies("a", "plain", "p", "q", "r").filter(pl.col("sample_index") != 1)
    every = [replies("a", "on_policy", "x", "y", "z"), plain]
    assert met(comparisons(places("a"), pl.concat(every), Compared())) == {("a", "x", "p"), ("a", "z", "r")}


@pytest.mark.slow
@given(seed=st.integers(0, 2**16), doubled=st.booleans())
@settings(max_examples=20, deadline=None)
def test_order_of_rows_changes_no_comparison(seed: int, doubled: bool) -> None:
    """Permuted places and responses give the same frame, byte for byte."""
    every = pl.concat(
        [
            replies(name, role, *texts)
            for name in "abcd"
            for role, texts in {
                "logged": ["l"],
                "expert": ["e"],
                "on_policy": ["x", "y"],
                "plain": ["p", "q"],
            }.items()
        ]
    )
    at = places("a", "b", "c", "d")
    one = comparisons(at, every, Compared())
    mixed = every.sample(fraction=1.0, shuffle=True, seed=seed)
    two = comparisons(at.sample(fraction=1.0, shuffle=True, seed=seed + 1), mixed, Compared())
    assert one.equals(two)
    assert comparison_items(one).equals(comparison_items(one.sample(fraction=1.0, shuffle=True, seed=seed)))


@pytest.mark.parametrize(
    ("mine", "other", "wanted"),
    [
        (None, None, []),
        ([], None, []),
        (["hate"], [], ["hate"]),
        (["hate"], ["privacy", "hate"], ["hate", "privacy"]),
    ],
)
def test_flags_of_either_side_count(mine: Any, other: Any, wanted: list[str]) -> None:
    """What moderation found in one of the replies is found in the comparison."""
    every = [replies("a", "expert", "x", flags=mine), replies("a", "logged", "y", flags=other)]
    assert comparisons(places("a"), pl.concat(every), Compared())["flags"].to_list() == [wanted]


def test_items_hold_the_candidate_first_and_the_wishes_as_checklist() -> None:
    """A win of the first reply is a win of the candidate."""
    made = comparisons(
        places("a"), pl.concat([replies("a", "expert", "x"), replies("a", "logged", "y")]), Compared()
    )
    item = comparison_items(made).row(0, named=True)
    assert [reply[0]["content"] for reply in item["replies"]] == ["x", "y"]
    assert item["response_ids"] == [made["chosen_id"][0], made["rejected_id"][0]]
    assert item["checklist"] == ["As a likes it."]
    assert item["item_id"] == made["item_id"][0]


def test_without_a_candidate_nothing_is_compared() -> None:
    """A logged reply alone, or nothing at all, is an empty frame of the right shape."""
    for every in (replies("a", "logged", "y"), replies("a", "logged", "y").clear()):
        made = comparisons(places("a"), every, Compared())
        assert (made.height, made.schema) == (0, COMPARISONS)


def test_what_meets_no_other_side_is_told_of() -> None:
    """A place without any candidate, and a sample whose partner was not given, are set aside once; others are not."""
    where = places("ann", "ben", "cy")
    responses = pl.concat(
        [
            replies("ann", "expert", "better"),
            replies("ann", "logged", "worse"),
            replies("ben", "on_policy", "one", "two", "three"),
            replies("ben", "plain", "first", "second"),
            replies("cy", "logged", "alone"),
        ]
    )
    rows = comparisons(where, responses, Compared())
    lost = uncompared(where.sample(fraction=1, shuffle=True, seed=1), responses, rows)
    third = responses.filter(pl.col("sample_index") == 2).get_column("id").item()
    keys = {f"conversations#id={'cy'.ljust(32, 'c')}&message=1", f"responses#id={third}"}
    assert set(lost["key"]) == keys
    assert lost.height == len(keys)
    assert set(lost["reason"]) == {"no_candidate"}
    assert lost["source"].null_count() == 0
