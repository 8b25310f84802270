"""How much raters agree beyond chance, and how a yes-or-no judge errs. What is undefined is null, never 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from tilth.schemas import BadInput

T = TypeVar("T")
Label = str | bool | None  # null: this rater said nothing of this item


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters over the items that both labelled.

    Args:
        n: how many those are.
        agreement: the share of equal labels, p_o.
        kappa: Cohen's: (p_o - p_e) / (1 - p_e), where p_e is the chance of their own label rates.
        pi: Scott's: the same with the chance of their mean label rates.
        alpha: Krippendorff's, nominal.

    Null where n is 0; the last three also where both used one and the same label throughout.
    """

    n: int
    agreement: float | None
    kappa: float | None
    pi: float | None
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Binary:
    """A yes-or-no judge against people (Judging the Judges, arXiv 2406.12624, section 3.3 and appendix).

    Args:
        n: items that both labelled.
        true_positive: both say yes; the other three counts alike.
        false_positive: the judge alone says yes.
        true_negative: both say no.
        false_negative: people alone say yes.
        precision: of the judge's yes; null where it never says yes.
        recall: of people's yes; null where they never say yes.
        false_positive_rate: of people's no; null where they never say no.
        score_delta: the judge's share of yes less people's, in points of 100.
        right_criterion: P_c = TPR + TNR - 1, how often it judges by the right criterion.
        yes_otherwise: P_+ = (1 - TNR) / (1 - P_c), how often it says yes when it does not: its leniency.
    """

    n: int
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    precision: float | None
    recall: float | None
    false_positive_rate: float | None
    score_delta: float | None
    right_criterion: float | None
    yes_otherwise: float | None


class Correlation(NamedTuple):
    """Spearman's rank correlation over n things; null for fewer than two or where one side is constant."""

    n: int
    rho: float | None


def agreement(one: Sequence[Label], other: Sequence[Label]) -> Agreement:
    """How two raters agree; items that either left out do not count. Raises `BadInput` for unequal lengths."""
    both = _both(one, other)
    if not both:
        return Agreement(0, None, None, None, None)
    left, right = [str(a) for a, _ in both], [str(b) for _, b in both]
    observed = sum(a == b for a, b in zip(left, right, strict=True)) / len(both)
    if len({*left, *right}) == 1:
        return Agreement(len(both), observed, None, None, None)
    from sklearn.metrics import cohen_kappa_score

    kappa = float(cohen_kappa_score(left, right))
    return Agreement(len(both), observed, kappa, _scotts_pi(left, right, observed), alpha([left, right]))


def alpha(ratings: Sequence[Sequence[Label]]) -> float | None:
    """Krippendorff's alpha, nominal, of any number of raters (rows) over items (columns); labels may be missing.

    Null where no item has two labels, or all items that have two bear one and the same label.
    """
    labels = np.array([[None if one is None else str(one) for one in row] for row in ratings], dtype=object)
    if labels.ndim != 2:
        raise BadInput("ratings for alpha", wanted="raters by items, as many of each rater")
    given = labels != None  # noqa: E711  # elementwise
    pairable = labels[:, given.sum(axis=0) > 1]
    known = sorted({one for one in pairable.ravel() if one is not None})
    if len(known) < 2:
        return None
    import krippendorff

    codes = {label: float(at) for at, label in enumerate(known)}
    values = np.array([[codes.get(one, math.nan) for one in row] for row in pairable])
    return float(krippendorff.alpha(values, level_of_measurement="nominal"))


def confusion(judge: Sequence[bool | None], people: Sequence[bool | None]) -> Binary:
    """A yes-or-no judge against people; items that either left out do not count.

    Null is no answer: the paper's code counts it as no. Raises `BadInput` for unequal lengths.
    """
    both = _both(judge, people)
    counts = {key: sum(pair == key for pair in both) for key in ((True, True), (True, False), (False, False))}
    tp, fp, tn = counts.values()
    fn = len(both) - tp - fp - tn
    recall, fpr = _ratio(tp, tp + fn), _ratio(fp, fp + tn)
    right = None if recall is None or fpr is None else recall - fpr
    return Binary(
        len(both),
        *(tp, fp, tn, fn),
        precision=_ratio(tp, tp + fp),
        recall=recall,
        false_positive_rate=fpr,
        score_delta=None if not both else 100 * (fp - fn) / len(both),
        right_criterion=right,
        yes_otherwise=None if right is None or fpr is None else _ratio(fpr, 1 - right),
    )


def rank_correlation(one: Sequence[float | None], other: Sequence[float | None]) -> Correlation:
    """Spearman's rho over the places where both have a number; ties share ranks. Raises `BadInput` as above."""
    both = np.array(_both(one, other), dtype=float)
    if len(both) < 2 or (both == both[0]).all(axis=0).any():
        return Correlation(len(both), None)
    from scipy.stats import spearmanr

    return Correlation(len(both), float(np.asarray(spearmanr(both[:, 0], both[:, 1]))[0]))


def _both(one: Sequence[T | None], other: Sequence[T | None]) -> list[tuple[T, T]]:
    if len(one) != len(other):
        raise BadInput("two raters", found=f"{len(one)} and {len(other)} items", wanted="the same items")
    return [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]


def _scotts_pi(one: Sequence[str], other: Sequence[str], observed: float) -> float:
    labels = {*one, *other}
    chance = sum(((one.count(label) + other.count(label)) / (2 * len(one))) ** 2 for label in labels)
    return (observed - chance) / (1 - chance)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
