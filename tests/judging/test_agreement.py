"""Agreement between raters, to the digit of published confusions; what is undefined is null."""

from __future__ import annotations

import random
import warnings
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput
from tilth.transforms.judging.agreement import Agreement, agreement, alpha, confusion, rank_correlation

GPT_4: Final = (2374, 186, 903, 132)
CONTAINS: Final = (1968, 9, 1080, 538)


def table(tp: int, fp: int, tn: int, fn: int) -> tuple[list[bool], list[bool]]:
    """Labels of a judge and of people with these counts."""
    judge = [True] * (tp + fp) + [False] * (tn + fn)
    return judge, [True] * tp + [False] * fp + [False] * tn + [True] * fn


@pytest.mark.parametrize(
    ("counts", "wanted"), [(GPT_4, (0.9115, 0.7876, 0.7875)), (CONTAINS, (0.8478, 0.6832, 0.6759))]
)
def test_published_agreement(counts: tuple[int, int, int, int], wanted: tuple[float, float, float]) -> None:
    """Percent agreement, Cohen's kappa and Scott's pi of two judges of TriviaQA, n = 3,595."""
    found = agreement(*table(*counts))
    assert found.n == 3595
    assert (found.agreement, found.kappa, found.pi) == pytest.approx(wanted, abs=5e-5)
    assert found.alpha == pytest.approx(found.pi, abs=1e-3)


def test_published_errors_and_leniency() -> None:
    """Precision, recall, score delta, P_c and P_+ of the same judges."""
    gpt_4, contains = confusion(*table(*GPT_4)), confusion(*table(*CONTAINS))
    assert (contains.precision, contains.recall) == pytest.approx((0.9954, 0.7853), abs=5e-5)
    assert (gpt_4.right_criterion, gpt_4.yes_otherwise) == pytest.approx((0.7765, 0.764), abs=5e-4)
    assert (contains.right_criterion, contains.yes_otherwise) == pytest.approx((0.777, 0.037), abs=5e-4)
    assert (gpt_4.score_delta, contains.score_delta) == pytest.approx((1.50, -14.72), abs=1e-2)
    assert gpt_4.recall == pytest.approx(0.9473, abs=5e-5)
    assert gpt_4.false_positive_rate == pytest.approx(1 - 0.8292, abs=5e-5)


def test_missing_labels_do_not_count() -> None:
    """An item that one of the two left out is neither agreement nor a no."""
    judge, people = table(*GPT_4)
    assert confusion([*judge, None, True], [*people, True, None]) == confusion(judge, people)
    assert agreement([*judge, None], [*people, False]) == agreement(judge, people)


def test_what_is_undefined_is_null() -> None:
    """No items, one label throughout, a constant ranking: null without a warning, never 0 and never NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert agreement([], []) == Agreement(0, None, None, None, None)
        assert agreement(["win"] * 3, ["win"] * 3) == Agreement(3, 1.0, None, None, None)
        assert alpha([["win", None], [None, "loss"]]) is None
        assert alpha([["win", "win", None], ["win", "win", "loss"]]) is None
        assert rank_correlation([1, 1, 1], [1, 2, 3]) == (3, None)
        assert rank_correlation([1], [1]) == (1, None)
        never = confusion([False, False], [False, False])
    assert (never.precision, never.recall, never.right_criterion, never.score_delta) == (None, None, None, 0)
    assert confusion([], []).score_delta is None


def test_a_judge_that_is_always_right_has_no_leniency() -> None:
    """P_c of 1 leaves nothing for P_+ to be measured on."""
    perfect = confusion(*table(5, 0, 5, 0))
    assert (perfect.right_criterion, perfect.yes_otherwise) == (1.0, None)


def test_krippendorffs_own_example() -> None:
    """Three coders with missing labels (Krippendorff 2011, section C): nominal alpha .691 on the example's data."""
    rows = ["*    *    *    *    *    3    4    1    2    1    1    3    3    *    3",
            "1    *    2    1    3    3    4    3    *    *    *    *    *    *    *",
            "*    *    2    1    3    4    4    *    2    1    1    3    3    *    4"]  # fmt: skip
    assert alpha([[None if one == "*" else one for one in row.split()] for row in rows]) == pytest.approx(
        0.691, abs=5e-4
    )


def test_rankings_share_ranks_of_ties() -> None:
    """Spearman's rho is 1 for the same ranking, -1 for the reverse; places that one side lacks do not count."""
    assert rank_correlation([1, 2, 3, None], [10, 20, 30, 5]) == (3, pytest.approx(1))
    assert rank_correlation([1, 2, 2, 4], [4, 2, 2, 1]).rho == pytest.approx(-1)


def test_raters_of_other_items_are_refused() -> None:
    """Lists of unequal length cannot be about the same items."""
    with pytest.raises(BadInput, match="2 and 1"):
        agreement(["win", "tie"], ["win"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["win", "loss", "tie", None])] * 2), max_size=30), st.integers())
def test_agreement_knows_no_order(pairs: list[tuple[str | None, str | None]], seed: int) -> None:
    """Permuted items and exchanged raters change no figure."""
    mixed = random.Random(seed).sample(pairs, len(pairs))
    one = agreement([a for a, _ in pairs], [b for _, b in pairs])
    other = agreement([b for _, b in mixed], [a for a, _ in mixed])
    assert one.n == other.n
    for name in ("agreement", "kappa", "pi", "alpha"):
        assert getattr(one, name) == (
            None if getattr(other, name) is None else pytest.approx(getattr(other, name))
        )
