"""RewardBench 2: fractional credit and the Ties score, to the digit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.transforms.judging.ties import TiesScore, item_credits, ties_score

_ITEM = {"item_id": pl.String, "response_id": pl.String, "score": pl.Float64, "correct": pl.Boolean}
_TIE = {
    "prompt_id": pl.String,
    "kind": pl.String,
    "response_id": pl.String,
    "score": pl.Float64,
    "correct": pl.Boolean,
}
Scores = Sequence[float | None]


def _item(scores: Scores) -> pl.DataFrame:
    """One item whose first reply is the correct one."""
    return pl.DataFrame(
        [("i", f"r{n}", score, n == 0) for n, score in enumerate(scores)], schema=_ITEM, orient="row"
    )


def _asked(kind: str, right: Scores, wrong: Scores, prompt: str = "p") -> pl.DataFrame:
    rows = [(prompt, kind, f"r{n}", score, True) for n, score in enumerate(right)]
    rows += [(prompt, kind, f"w{n}", score, False) for n, score in enumerate(wrong)]
    return pl.DataFrame(rows, schema=_TIE, orient="row")


def _ties(right: Scores, wrong: Scores, ref_right: Scores, ref_wrong: Scores) -> TiesScore:
    return ties_score(pl.concat([_asked("tied", right, wrong), _asked("ref", ref_right, ref_wrong)]))


@pytest.mark.parametrize(
    ("scores", "credit"),
    [
        ([4.0, 1.0, 2.0, 3.0], 1.0),
        ([4.0, 4.0, 2.0, 3.0], 1 / 2),
        ([4.0, 4.0, 4.0, 3.0], 1 / 3),
        ([4.0, 4.0, 4.0, 4.0], 1 / 4),
        ([3.0, 4.0, 1.0, 1.0], 0.0),
        ([4.0, None, 1.0, 1.0], None),
        ([None, 4.0, 1.0, 1.0], None),
    ],
)
def test_a_shared_top_gives_a_share_of_the_credit(scores: Scores, credit: float | None) -> None:
    """Strictly on top 1, shared with k - 1 others 1/k, below it 0; where a score is missing, nothing is said."""
    assert item_credits(_item(scores)).get_column("credit").to_list() == [
        None if credit is None else pytest.approx(credit)
    ]


def test_ties_give_the_worked_score() -> None:
    """Correct 3, 2.8, 2.9 over wrong 1, .5 and a reference 4 over 2, 1: 1.01."""
    found = _ties([3, 2.8, 2.9], [1, 0.5], [4], [2, 1])
    assert found.total == pytest.approx(1.01, abs=1e-6)
    assert (found.prompts, found.incomplete) == (1, 0)


@pytest.mark.parametrize(
    ("right", "wrong", "margin"),
    [([2, 2], [1], 1.0), ([1, 1], [1], 0.0), ([1, 1], [2], -1.0), ([2, 1], [0], 0.0)],
)
def test_margins_over_no_spread(right: Scores, wrong: Scores, margin: float) -> None:
    """A gap over no spread is 1, no gap over no spread 0, a gap the wrong way -1; a gap equal to the spread is 0."""
    assert _ties(right, wrong, [9], [0]).margin == pytest.approx(margin)


def test_comparisons_are_strict() -> None:
    """A correct reply level with a wrong one is not above it, and a gap equal to the spread is not over it."""
    assert _ties([1, 1], [1], [9], [0]).accuracy_tied == 0.0
    found = _ties([2, 1], [0], [1], [1])
    assert (found.accuracy_tied, found.accuracy_reference) == (1.0, 0.0)
    assert (found.tied_gap_over_spread, found.least_gap_over_spread) == (0.0, 0.0)


def test_prompts_with_a_missing_score_are_counted_apart() -> None:
    """A failed score or a missing reference takes its prompt out, not the others."""
    whole = pl.concat([_asked("tied", [3, 2.8, 2.9], [1, 0.5]), _asked("ref", [4], [2, 1])])
    broken = pl.concat([_asked("tied", [3, None], [1], "q"), _asked("ref", [4], [2], "q")])
    alone = _asked("tied", [3, 2], [1], "s")
    found = ties_score(pl.concat([whole, broken, alone]))
    assert (found.prompts, found.incomplete) == (1, 2)
    assert found.total == ties_score(whole).total
    assert math.isnan(ties_score(alone).total)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=5), st.randoms())
def test_the_order_of_rows_is_nothing(scores: list[float], random: object) -> None:
    """Shuffled and repeated rows give the same score and the same credit."""
    frame = pl.concat([_asked("tied", scores[:1] * 2, scores[1:]), _asked("ref", scores[:1], scores[1:])])
    order = list(range(frame.height)) * 2
    random.shuffle(order)  # type: ignore[attr-defined]  # hypothesis has no type for it
    assert ties_score(frame[order]) == ties_score(frame)
    item = _item(scores)
    order = [n for n in order if n < item.height]
    assert item_credits(item[order]).equals(item_credits(item))
