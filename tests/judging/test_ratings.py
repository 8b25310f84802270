"""Ratings: every score lands on its own reply, whatever failed beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, conform, content_ids, polars_schema
from tilth.schemas.contracts import measure
from tilth.schemas.ids import content_id
from tilth.transforms.judging.ratings import ratings

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
Scores = Sequence[float | None]


def _responses(count: int = 4, prompt: str = "p") -> pl.DataFrame:
    rows = [
        {
            "id": _id(n, prompt),
            "prompt_id": content_id(prompt),
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": f"reply {n}"}],
            "model": f"m{n}",
            "conversation_id": content_id("c", prompt),
            "split": "train",
        }
        for n in range(count)
    ]
    return conform(pl.DataFrame(rows), "responses")


def _id(n: int, prompt: str = "p") -> str:
    return content_id("response", prompt, str(n))


def _judged(
    attribute: str | None,
    scores: Scores | None,
    judge: str = "j",
    sample: int = 0,
    prompt: str = "p",
    **more: Any,
) -> dict[str, Any]:
    """One listwise judgment of replies 0, 1, …; null scores for a failed one."""
    count = 4 if scores is None else len(scores)
    return {
        "id": content_id(str(attribute), judge, str(sample), prompt, str(more)),
        "kind": "listwise",
        "judge": judge,
        "attribute": attribute,
        "verdict": "failed" if scores is None else "ranked",
        "scores": scores,
        "sample_index": sample,
        "response_ids": [_id(n, prompt) for n in range(count)],
        **more,
    }


def _table(*rows: dict[str, Any]) -> pl.DataFrame:
    return conform(pl.DataFrame(rows, schema_overrides=_known(rows)), "judgments")


def _known(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: kind for name, kind in polars_schema("judgments").items() if any(name in row for row in rows)
    }


def _rated(found: pl.DataFrame) -> dict[str, float]:
    return dict(found.select("response_id", "rating").iter_rows())


def test_a_rating_is_the_mean_of_its_attributes() -> None:
    """Attribute means, then their mean, each on its own response; the rows keep the table's contract."""
    found = ratings(
        _table(_judged("helpfulness", [5, 4, 3, 2]), _judged("truthfulness", [4, 4, 1, 1])), _responses()
    )
    assert _rated(found.kept) == {_id(0): 4.5, _id(1): 4.0, _id(2): 2.0, _id(3): 1.5}
    assert found.dropped.is_empty()
    metrics = measure("ratings", found.kept).counts
    assert {name: count for name, count in metrics.items() if count} == {}


def test_what_does_not_apply_is_left_out_of_the_mean() -> None:
    """Honesty that is not applicable is neither -1 nor 1: the mean is over the others."""
    found = ratings(_table(_judged("helpfulness", [4, 2]), _judged("honesty", [None, 5])), _responses(2))
    assert _rated(found.kept) == {_id(0): 4.0, _id(1): 3.5}
    named = dict(found.kept.select("response_id", "attributes").iter_rows())
    assert named[_id(0)] == [{"name": "helpfulness", "rating": 4.0}]


def test_a_missing_rating_sets_its_own_reply_aside_alone() -> None:
    """A null where the attribute must apply blanks that reply, not the list; the others keep their scores."""
    found = ratings(_table(_judged("helpfulness", [5, None, 3, 2])), _responses())
    assert _rated(found.kept) == {_id(0): 5.0, _id(2): 3.0, _id(3): 2.0}
    assert found.dropped.select("source", "stage", "reason").rows() == [
        (f"responses#id={_id(1)}", "rate", "judges_failed")
    ]


def test_a_failed_sample_leaves_the_other_samples() -> None:
    """A judgment that failed counts nowhere: not as a zero, and not as a shift of its neighbours."""
    found = ratings(
        _table(_judged("helpfulness", [4, 2]), _judged("helpfulness", None, sample=1)), _responses(2)
    )
    assert _rated(found.kept) == {_id(0): 4.0, _id(1): 2.0}
    assert found.kept.get_column("judgment_ids").list.len().to_list() == [1, 1]


@pytest.mark.parametrize(("attribute", "judge"), [("truthfulness", "j"), ("helpfulness", "k")])
def test_an_attribute_or_a_judge_that_failed_wholly_gives_no_rating(attribute: str, judge: str) -> None:
    """Means over other attributes or other judges than the neighbours' are not taken for comparable."""
    found = ratings(_table(_judged("helpfulness", [4, 2]), _judged(attribute, None, judge)), _responses(2))
    assert found.kept.is_empty()
    assert found.dropped.height == 2


def test_samples_then_judges_then_attributes_are_averaged() -> None:
    """A judge with two samples has no more say than one with one, unless its weight says so."""
    rows = _table(
        _judged("helpfulness", [5, 1], sample=0),
        _judged("helpfulness", [4, 1], sample=1),
        _judged("helpfulness", [1, 1], judge="k"),
    )
    assert _rated(ratings(rows, _responses(2)).kept)[_id(0)] == 2.75
    assert _rated(ratings(rows, _responses(2), {"k": 2.0}).kept)[_id(0)] == pytest.approx((4.5 + 2) / 3)


def test_a_judgment_that_stands_there_twice_counts_once() -> None:
    """Repeated rows have no more say than single ones."""
    once = [_judged("helpfulness", [5, 1], sample=0), _judged("helpfulness", [1, 1], sample=1)]
    assert _rated(ratings(_table(*once, once[0]), _responses(2)).kept)[_id(0)] == 3.0


def test_equal_scores_in_another_order_are_equal_ratings() -> None:
    """The last bit of a mean is no preference."""
    rows = [
        _judged(name, [one, other])
        for name, one, other in zip("abc", (0.1, 0.2, 0.3), (0.3, 0.2, 0.1), strict=True)
    ]
    found = ratings(_table(*rows), _responses(2)).kept.get_column("rating")
    assert found[0] == found[1]


def test_pointwise_judgments_and_no_attribute_are_ratings_too() -> None:
    """A judgment of one reply as a whole rates it; one of a pair does not."""
    row = _judged(None, [3.0], kind="pointwise", verdict="rated")
    pair = _judged(None, [9.0, 1.0], kind="pairwise", verdict="win")
    found = ratings(_table(row, pair), _responses(1)).kept
    assert found.get_column("attributes").to_list() == [[{"name": "overall", "rating": 3.0}]]


def test_scores_that_are_not_one_a_reply_are_refused() -> None:
    """A list of another length is not cut or padded."""
    with pytest.raises(BadInput, match="scores"):
        ratings(_table(_judged("helpfulness", [5, 4, 3], response_ids=[_id(0), _id(1)])), _responses(2))


_FATES = st.lists(
    st.sampled_from(["fine", "fine", "failed"]), min_size=len(ASPECTS) * 6, max_size=len(ASPECTS) * 6
)


@pytest.mark.slow
@settings(deadline=None)
@given(_FATES, st.randoms())
def test_failures_and_the_order_of_rows_change_no_surviving_rating(
    fates: list[str], order: random.Random
) -> None:
    """Six prompts with four replies: whatever fails, and however rows stand, a rating that is there is the true one."""
    prompts = [f"p{n}" for n in range(6)]
    truth = {
        (p, a): [1 + (n * 3 + len(a) + at) % 5 for n in range(4)]
        for at, p in enumerate(prompts)
        for a in ASPECTS
    }
    rows = [
        _judged(a, [float(s) for s in truth[p, a]] if fate == "fine" else None, prompt=p)
        for (p, a), fate in zip(truth, fates, strict=True)
    ]
    responses = pl.concat([_responses(4, p) for p in prompts])
    shuffled = rows * 2
    order.shuffle(shuffled)
    places = list(range(responses.height))
    order.shuffle(places)
    found = ratings(_table(*shuffled), responses[places])
    wanted = {_id(n, p): sum(truth[p, a][n] for a in ASPECTS) / 4 for p in prompts for n in range(4)}
    assert all(value == wanted[id_] for id_, value in _rated(found.kept).items())
    whole = [p for at, p in enumerate(prompts) if "failed" not in fates[at * 4 : at * 4 + 4]]
    assert set(_rated(found.kept)) == {_id(n, p) for p in whole for n in range(4)}
    assert found.kept.height + found.dropped.height == responses.height


def test_ids_follow_from_the_response() -> None:
    """The same response has the same rating id in every run."""
    found = ratings(_table(_judged("helpfulness", [5, 4, 3, 2])), _responses()).kept
    wanted = content_ids(found, "ratings", [pl.col("response_id")])
    assert found.get_column("id").to_list() == wanted.to_list()
