"""Best against worst reply by rubric score: which pairs come of it, what they rest on, what is set aside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import conform
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.schemas.ids import content_id
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.pairs.by_rubric import rubric_pairs

SCORES: Final = pl.Schema({"prompt_id": pl.String, "response_id": pl.String, "score": pl.Float64})


def replies(texts: Sequence[str], prompt: str = "p") -> pl.DataFrame:
    """Rows of `responses`, one a text."""
    rows = [
        {
            "id": content_id(prompt, str(n)),
            "prompt_id": content_id("prompts", prompt),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": text}],
            "role": "policy",
            "sample_index": n,
            "model": "tiny@1",
            "guided": False,
            "conversation_id": content_id("talk", prompt),
            "method": "model",
            "split": "train",
        }
        for n, text in enumerate(texts)
    ]
    return conform(pl.DataFrame(rows), "responses")


def scored(responses: pl.DataFrame, scores: Sequence[float | None]) -> pl.DataFrame:
    """Rubric scores of replies, in their order."""
    named = responses.select("prompt_id", response_id="id")
    return named.with_columns(pl.Series("score", scores, dtype=pl.Float64)).cast(SCORES)


def graded(
    responses: pl.DataFrame, criteria: int = 2, method: str = "model", verdict: str = "rated"
) -> pl.DataFrame:
    """Judgments of every reply by so many criteria."""
    rows = [
        {
            "id": content_id("judgment", id_, str(n), method, verdict),
            "item_id": content_id("item", id_),
            "kind": "pointwise",
            "judge": "program" if method == "rules" else "judge",
            "verdict": verdict,
            "scores": [1.0] if verdict == "rated" else None,
            "attribute": content_id("criterion", str(n)),
            "response_ids": [id_],
            "prompt_id": prompt,
            "method": method,
        }
        for id_, prompt in responses.select("id", "prompt_id").iter_rows()
        for n in range(criteria)
    ]
    return conform(pl.DataFrame(rows), "judgments")


def paired(
    scores: Sequence[float | None],
    texts: Sequence[str] | None = None,
    policy: BestOfN | None = None,
    **how: Any,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs and what is set aside, of replies with these scores."""
    rows = replies(texts or [f"reply {n}" for n in range(len(scores))])
    return rubric_pairs(rows, scored(rows, scores), graded(rows, **how), policy or BestOfN())


def _sides(pairs: pl.DataFrame) -> list[tuple[str, str]]:
    return [
        (row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in pairs.iter_rows(named=True)
    ]


def test_the_best_reply_is_chosen_over_the_worst() -> None:
    """One pair a prompt, with the rubric scores, the policy on both sides, and the grades of both as its evidence."""
    found, dropped = paired([0.5, -0.25, 1.0, 0.25])
    assert dropped.is_empty()
    assert _sides(found) == [("reply 2", "reply 1")]
    row = found.row(0, named=True)
    assert (row["origin"], row["method"], row["models"]) == (
        "rubric",
        "model",
        {"chosen": "tiny@1", "rejected": "tiny@1"},
    )
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (1.0, -0.25, 1.25)
    rows = replies([f"reply {n}" for n in range(4)])
    both = graded(rows).filter(pl.col("response_ids").list.first().is_in([rows["id"][1], rows["id"][2]]))
    assert row["judgment_ids"] == sorted(both["id"])
    counts = measure("pairs", found).counts
    assert {name for name in CONTRACTS["pairs"].defects if counts[name]} == set()


def test_grades_by_programs_alone_are_rules() -> None:
    """One grade by a model is enough to make the pair a model's."""
    assert paired([0.0, 1.0], method="rules")[0]["method"].to_list() == ["rules"]
    rows = replies(["a", "b"])
    mixed = pl.concat([graded(rows, method="rules"), graded(rows.head(1), criteria=1)])
    assert rubric_pairs(rows, scored(rows, [0.0, 1.0]), mixed, BestOfN()).kept["method"].to_list() == [
        "model"
    ]


@pytest.mark.parametrize(
    ("scores", "texts", "policy", "reason"),
    [
        ([0.5, 0.5], None, BestOfN(), "tie"),
        ([0.5, 0.6], None, BestOfN(min_gap=0.2), "tie"),
        ([0.5, 0.6], ["same", "SAME "], BestOfN(), "identical_sides"),
        ([0.5], None, BestOfN(), "no_candidate"),
        ([0.5, None], None, BestOfN(), "judges_failed"),
        ([0.0, 1.0], ["short", "long " * 20], BestOfN(max_length_ratio=3), "no_candidate"),
    ],
)
def test_a_prompt_without_a_pair_is_set_aside_once(
    scores: list[float | None], texts: list[str] | None, policy: BestOfN, reason: str
) -> None:
    """Ties, gaps below the guard, one text, one reply, a reply without a score, sides too unlike in length."""
    found, dropped = paired(scores, texts, policy)
    assert found.is_empty()
    assert dropped["reason"].to_list() == [reason]


def test_what_is_set_aside_names_its_origin() -> None:
    """The payload says that rubrics made the candidate, and a reply that says so changes nothing."""
    dropped = paired([0.5, 0.5], ['{"origin":"best_of_n"', "other"])[1]
    said = orjson.loads(dropped["payload"][0])
    assert said["origin"] == "rubric"
    assert {said["chosen"][0]["content"], said["rejected"][0]["content"]} == {
        '{"origin":"best_of_n"',
        "other",
    }


def test_a_reply_that_nothing_stands_behind_takes_no_part() -> None:
    """Without a judgment, or with failed ones alone, the best score makes no pair; failed ones are no evidence."""
    rows = replies(["a", "b", "c"])
    scores = scored(rows, [0.0, 1.0, 9.0])
    for none in (graded(rows).clear(), graded(rows.tail(1), verdict="failed")):
        found = rubric_pairs(rows, scores, pl.concat([graded(rows.head(2)), none]), BestOfN()).kept
        assert _sides(found) == [("b", "a")]
        assert found["judgment_ids"][0].to_list() == sorted(graded(rows.head(2))["id"])
    left = rubric_pairs(rows, scores, graded(rows).clear(), BestOfN())
    assert (left.kept.height, left.dropped["reason"].to_list()) == (0, ["judges_failed"])


def test_a_copy_that_nobody_graded_leaves_no_hole() -> None:
    """Equal texts are one reply: the ids of its judgments hold no null."""
    rows = replies(["same", " Same", "other"])
    found = rubric_pairs(rows, scored(rows, [1.0, None, 0.0]), graded(rows[[0, 2]]), BestOfN()).kept
    assert found["judgment_ids"][0].null_count() == 0
    assert found.height == 1


def test_a_prompt_without_a_rubric_is_not_blamed_on_judges() -> None:
    """No score of the prompt at all: one row that says so, and the other prompt has its pair."""
    rows, others = replies(["a", "b"]), replies(["c", "d"], "q")
    every = pl.concat([rows, others])
    found = rubric_pairs(every, scored(rows, [0.0, 1.0]), graded(rows), BestOfN())
    assert _sides(found.kept) == [("b", "a")]
    assert found.dropped.select("reason", "key").rows() == [("no_criterion", content_id("prompts", "q"))]
    told = scored(others, [None, None]).with_columns(reason=pl.lit("no_criterion"))
    both = pl.concat([scored(rows, [0.0, 1.0]), told], how="diagonal")
    again = rubric_pairs(every, both, graded(every), BestOfN())
    assert again.dropped.equals(found.dropped)
    assert again.kept.equals(found.kept)
    none = rubric_pairs(others, scored(rows, [0.0, 1.0]), graded(rows), BestOfN())
    assert (none.kept.height, none.dropped.height) == (0, 1)
    nothing = rubric_pairs(others.clear(), scored(rows, [0.0, 1.0]).clear(), graded(rows).clear(), BestOfN())
    assert nothing.kept.is_empty()
    assert nothing.dropped.is_empty()


def test_scores_of_other_replies_and_prompts_take_no_part() -> None:
    """A score under another prompt, or of a reply that is not among the responses, is passed over."""
    rows = replies(["a", "b"])
    strange = pl.concat([
        scored(rows, [0.0, 1.0]),
        scored(rows, [9.0, -9.0]).with_columns(prompt_id=pl.lit("else")),
        scored(replies(["x"], "q"), [5.0]),
    ])  # fmt: skip
    assert _sides(rubric_pairs(rows, strange, graded(rows), BestOfN()).kept) == [("b", "a")]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.lists(st.sampled_from([None, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=5), min_size=1, max_size=4
    ),
    st.randoms(),
)
def test_no_order_of_rows_changes_a_pair(worlds: list[list[float | None]], order: random.Random) -> None:
    """Chosen always scores more, each prompt has a pair or one reason, and only ids decide."""
    parts = [replies([f"reply {n}" for n in range(len(one))], f"p{k}") for k, one in enumerate(worlds)]
    scores = pl.concat(scored(part, one) for part, one in zip(parts, worlds, strict=True))
    rows = pl.concat(parts)
    judgments = graded(rows)

    def moved(frame: pl.DataFrame) -> pl.DataFrame:
        return frame[order.sample(range(frame.height), frame.height)]

    found = rubric_pairs(rows, scores, judgments, BestOfN())
    again = rubric_pairs(moved(rows), moved(scores), moved(judgments), BestOfN())
    assert found.kept.equals(again.kept)
    assert found.dropped.equals(again.dropped)
    assert found.kept.height + found.dropped.height == len(worlds)
    truth = {(f"p{k}", f"reply {n}"): s or 0.0 for k, one in enumerate(worlds) for n, s in enumerate(one)}
    for row in found.kept.iter_rows(named=True):
        prompt, chosen, rejected = (row[name][0]["content"] for name in ("prompt", "chosen", "rejected"))
        assert truth[prompt, chosen] > truth[prompt, rejected]
