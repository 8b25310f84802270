"""Scores of replies by the criteria that they meet: HealthBench's rule to the digit, and the rules of others.

Criteria carry signed weights: a mistake has a negative one, and is met when the reply makes it. Formulas and
conventions: docs/reference/rubrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import polars as pl

from tilth.schemas import BadInput, ConfigError, Reason
from tilth.schemas.ids import content_id
from tilth.transforms.rubrics.criteria import GRADES, PROGRAM, criteria_rows

Rule = Literal["healthbench", "weighted", "normalised", "orbit"]
RULES: Final[tuple[str, ...]] = get_args(Rule)
PANEL: Final = "panel"
PITFALL: Final = "pitfall"
SCORED: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "response_id": pl.String,
        "score": pl.Float64,
        "graded": pl.Int32,  # criteria that could be told
        "ungraded": pl.Int32,  # criteria that could not
        "reason": pl.String,  # a `Reason` where there is no score
    }
)
TAGGED: Final = pl.Schema(
    {
        "prompt_id": pl.String,
        "response_id": pl.String,
        "of": pl.String,  # example | rubric: what carries the tag
        "tag": pl.String,
        "score": pl.Float64,
    }
)
EXAMPLE_TAGS: Final = pl.Schema({"prompt_id": pl.String, "tag": pl.String})

_REPLY: Final = ("prompt_id", "response_id")
_GRADE: Final = ("prompt_id", "criterion_id", "response_id")
# A virtue beside the mistake that is its opposite; the first whose virtue begins a text turns it round.
_OPPOSITES: Final = (
    ("Avoids this mistake: ", ""),
    ("Avoids ", "Makes this mistake: "),
    ("", "Fails in this: "),
)


def panel(grades: pl.DataFrame) -> pl.DataFrame:
    """One grade for each criterion and reply, `GRADES` of judge `panel`, sorted: what most judges say.

    A program decides alone. A tie, and a criterion that nobody could tell, is null; so is what a judge says who
    contradicts himself. Grades that are there twice count once; a panel of a panel is itself.
    """
    each = grades.unique().group_by(*_GRADE, "judge").agg(met=_majority())
    decided = (pl.col("judge") == PROGRAM).any().over(_GRADE)
    heard = each.filter(~decided | (pl.col("judge") == PROGRAM))
    judge = pl.when((pl.col("judge") == PROGRAM).any()).then(pl.lit(PROGRAM)).otherwise(pl.lit(PANEL))
    rows = heard.group_by(*_GRADE).agg(judge=judge.first(), met=_majority())
    return rows.select(pl.col(name).cast(kind) for name, kind in GRADES.items()).sort(_GRADE)


def _majority() -> pl.Expr:
    share = pl.col("met").cast(pl.Float64).mean()
    return pl.when(share != 0.5).then(share > 0.5)


def scores(
    criteria: pl.DataFrame, grades: pl.DataFrame, rule: Rule = "healthbench", *, partial: bool = False
) -> pl.DataFrame:
    """The score of every reply that `grades` names, as `SCORED`, sorted; the order of rows decides nothing.

    With weights w and b = 1 where a criterion is met, else 0:

    - `healthbench`: sum(w b) / sum of the positive w; not clipped, so it may be below 0 (arXiv 2505.08775, released
      code). Null without a positive weight (`no_criterion`).
    - `weighted`: sum(|w| b') / sum(|w|), where b' is b, and 1 - b for a mistake: Rubrics as Rewards' explicit form
      (arXiv 2507.17746), which stores a pitfall as the virtue of avoiding it; without mistakes it is RubricHub's.
    - `normalised`: sum(w b) / sum(|w|), in [-1, 1]: open-instruct's.
    - `orbit`: sum(w b), unnormalised (arXiv 2510.15859, Eq. 3).

    Args:
        criteria: `CRITERIA`; a criterion that is there twice counts once.
        grades: `GRADES` of any number of judges: see `panel`.
        rule: one of `RULES`.
        partial: score what could be graded. Without it, a criterion that could not be told makes the score null
            (`judges_failed`): replies scored by different criteria do not compare, and a judge that fails could turn a
            preference round. HealthBench asks until it has an answer.
    """
    return _scored(_items(criteria, grades), _REPLY, rule, partial).select(SCORED.names())


def _items(criteria: pl.DataFrame, grades: pl.DataFrame) -> pl.DataFrame:
    """Each reply with each criterion of its prompt, and whether it is met; a reply without any has one row of nulls."""
    ordered = criteria.select("prompt_id", "weight", "tags", criterion_id="id").sort("criterion_id", "weight")
    once = ordered.unique(["prompt_id", "criterion_id"], keep="last")
    replies = grades.select(_REPLY).unique()
    asked = replies.join(once, on="prompt_id", how="left")
    return asked.join(panel(grades).drop("judge"), on=_GRADE, how="left").sort(_GRADE)


def _parts(rule: Rule) -> tuple[pl.Expr, pl.Expr]:
    """What a graded criterion gains, and what it adds to the denominator."""
    weight, met = pl.col("weight"), pl.col("met")
    signed, size = weight * met, weight.abs()
    parts = {
        "healthbench": (signed, pl.max_horizontal(weight, 0.0)),
        "weighted": (pl.when(met == (weight > 0)).then(size).otherwise(0.0), size),
        "normalised": (signed, size),
        "orbit": (signed, pl.lit(1.0)),
    }
    if rule not in parts:
        raise ConfigError("a rule of scoring", found=rule, wanted=", ".join(RULES))
    return parts[rule]


def _scored(items: pl.DataFrame, by: Sequence[str], rule: Rule, partial: bool) -> pl.DataFrame:
    gain, share = _parts(rule)
    there, told = pl.col("weight").is_not_null(), pl.col("met").is_not_null()
    rows = items.with_columns(there=there, told=there & told, gain=gain, share=share)
    possible = pl.col("share").filter("told")
    sums = rows.group_by(*by, maintain_order=True).agg(
        graded=pl.col("told").sum().cast(pl.Int32),
        ungraded=(pl.col("there") & ~pl.col("told")).sum().cast(pl.Int32),
        gained=pl.col("gain").filter("told").sum(),
        possible=(possible.max() if rule == "orbit" else possible.sum()).fill_null(0.0),
    )
    lacking = (pl.col("ungraded") > 0) & (pl.lit(not partial) | (pl.col("graded") == 0))
    reason = (
        pl.when(lacking)
        .then(pl.lit(Reason.JUDGES_FAILED.value))
        .when(pl.col("possible") == 0)
        .then(pl.lit(Reason.NO_CRITERION.value))
    )
    score = pl.when(reason.is_null()).then(pl.col("gained") / pl.col("possible"))
    return sums.with_columns(reason=reason.cast(pl.String), score=score).sort(by)


def implicit(rating: float | None, low: float = 1, high: float = 10) -> float | None:
    """One rating of the whole rubric on [low, high] as a score in [0, 1] (Rubrics as Rewards' implicit form).

    Null stays null. Raises `BadInput` for a rating outside.

    >>> implicit(10), implicit(1), implicit(None)
    (1.0, 0.0, None)
    """
    if rating is None:
        return None
    if not low <= rating <= high:
        raise BadInput("a rating by a rubric", found=rating, wanted=f"{low} to {high}")
    return (rating - low) / (high - low)


def rlcf(points: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """clip(sum(w s) / sum(w) / 100, 0, 1) of points s from 0 to 100 (RLCF, arXiv 2507.18624).

    Null, and points below 0 by which its judge says that it is confused, take no part; the released code averages the
    -1 in. Null where nothing is left. Raises `ValueError` for unequal lengths.

    >>> rlcf([100, 50, -1], [1, 1, 8])
    0.75
    """
    told = [(s, w) for s, w in zip(points, weights, strict=True) if s is not None and s >= 0]
    whole = sum(w for _, w in told)
    return min(1.0, max(0.0, sum(w * s for s, w in told) / whole / 100)) if whole > 0 else None


# Conventions of negative weights


def to_rar(criteria: pl.DataFrame) -> pl.DataFrame:
    """Criteria as Rubrics as Rewards stores them: a mistake of weight -k becomes the virtue of avoiding it, +k.

    Its tag is `pitfall`. Grades turn round with it: who makes the mistake does not avoid it; then sum(w b) / sum(w) is
    the rule `weighted`. A program that finds the mistake does not find the virtue, so a judge checks it.
    """
    tags = pl.col("tags").list.concat(pl.lit([PITFALL], pl.List(pl.String))).list.unique(maintain_order=True)
    pairs = [(mistake, virtue) for virtue, mistake in _OPPOSITES]
    return _turned(criteria, pl.col("weight") < 0, pairs[1:] + pairs[:1], tags)


def from_rar(criteria: pl.DataFrame) -> pl.DataFrame:
    """The way back: a criterion with the tag `pitfall` and weight +k becomes the mistake itself, -k."""
    tags = pl.col("tags").list.set_difference(pl.lit([PITFALL], pl.List(pl.String)))
    turned = (pl.col("weight") > 0) & pl.col("tags").list.contains(PITFALL)
    return _turned(criteria, turned, _OPPOSITES, tags)


def _turned(
    criteria: pl.DataFrame, which: pl.Expr, opposites: Sequence[tuple[str, str]], tags: pl.Expr
) -> pl.DataFrame:
    text = pl.col("description")
    opposite = pl.coalesce(
        pl.when(text.str.starts_with(start)).then(pl.lit(other) + text.str.strip_prefix(start))
        for start, other in opposites
    )
    changed = {
        "weight": -pl.col("weight"),
        "description": opposite,
        "tags": tags,
        "check": pl.lit("judge"),
        "program": pl.lit(None, pl.String),
    }
    rows = criteria.with_columns(
        pl.when(which).then(value).otherwise(pl.col(name)).alias(name) for name, value in changed.items()
    )
    return criteria_rows(rows)


# Tags and the whole


def tag_scores(
    criteria: pl.DataFrame,
    grades: pl.DataFrame,
    example_tags: pl.DataFrame | None = None,
    rule: Rule = "healthbench",
    *,
    partial: bool = False,
) -> pl.DataFrame:
    """Scores by tag, as `TAGGED`, sorted (HealthBench's released code).

    A rubric's tag has the same formula over the criteria that carry it; a tag of an example has the score of the reply.
    Either is left out where that is no score.

    Args:
        criteria: as in `scores`, which explains the others too.
        grades: `GRADES`.
        example_tags: `EXAMPLE_TAGS`, tags of whole prompts.
        rule: one of `RULES`.
        partial: see `scores`.
    """
    items = _items(criteria, grades)
    spread = items.with_columns(tag=pl.col("tags").list.unique()).explode(
        "tag", empty_as_null=False, keep_nulls=False
    )
    of_rubrics = _scored(spread, (*_REPLY, "tag"), rule, partial).with_columns(of=pl.lit("rubric"))
    given = pl.DataFrame(schema=EXAMPLE_TAGS) if example_tags is None else example_tags.unique()
    of_examples = _scored(items, _REPLY, rule, partial).join(given, on="prompt_id")
    rows = [
        one.select(TAGGED.names()) for one in (of_rubrics, of_examples.with_columns(of=pl.lit("example")))
    ]
    return pl.concat(rows).drop_nulls("score").sort("of", "tag", *_REPLY)


@dataclass(frozen=True, slots=True)
class Overall:
    """Scores of many replies as one number.

    Args:
        mean: of the scores, null without any.
        bootstrap_std: the standard deviation of that mean over resamples.
        n: how many scores.
        unscored: how many replies have none, and take no part.
    """

    mean: float | None
    bootstrap_std: float | None
    n: int
    unscored: int


def overall(scored: pl.DataFrame, *, seed: int = 0, resamples: int = 1000, clip: bool = True) -> Overall:
    """The mean of column `score`, clipped to [0, 1], with its bootstrap error (HealthBench's released code).

    Only means are clipped, of the sample and of resamples; a clip of each score would be a bias upwards. The order of
    rows decides nothing.

    Args:
        scored: a frame with `score`.
        seed: draws the resamples.
        resamples: how many.
        clip: not for rules whose scores are no shares.
    """
    known = np.sort(scored.get_column("score").drop_nulls().to_numpy())
    missing = scored.height - len(known)
    if not len(known):
        return Overall(None, None, 0, missing)
    low, high = (0.0, 1.0) if clip else (-np.inf, np.inf)
    drawn = np.random.default_rng(seed)
    means = [known[drawn.integers(len(known), size=len(known))].mean() for _ in range(resamples)]
    spread = float(np.std(np.clip(means, low, high)))
    return Overall(float(np.clip(known.mean(), low, high)), spread, len(known), missing)


def by_tag(tagged: pl.DataFrame, *, seed: int = 0, clip: bool = True) -> Mapping[tuple[str, str], Overall]:
    """`overall` of each tag of `TAGGED` rows, by (of, tag), sorted."""
    groups = {
        (str(of), str(tag)): rows
        for (of, tag), rows in tagged.partition_by("of", "tag", as_dict=True, include_key=False).items()
    }
    return {
        key: overall(groups[key], seed=int(content_id(str(seed), *key)[:16], 16), clip=clip)
        for key in sorted(groups)
    }


# Graders against physicians


@dataclass(frozen=True, slots=True)
class ClassF1:
    """Precision is of what the grader says, recall of what people say; `n` of each is how often it was said.

    `f1` is 0 where both are 0, and null where either is unknown.
    """

    precision: float | None
    precision_n: int
    recall: float | None
    recall_n: int
    f1: float | None


@dataclass(frozen=True, slots=True)
class MetaEvaluation:
    """A grader against people, for `met` and for `not met`; `balanced_f1` is the mean of both, null without one."""

    pairs: int
    met: ClassF1
    not_met: ClassF1
    balanced_f1: float | None


def meta_evaluation(grader: Sequence[bool], people: Sequence[Sequence[bool]]) -> MetaEvaluation:
    """How a grader agrees with several people each: every (its label, label of one person) pair of an item counts.

    HealthBench's meta-evaluation (arXiv 2505.08775). Raises `ValueError` for unequal lengths.
    """
    return _of_pairs([(said, one) for said, labels in zip(grader, people, strict=True) for one in labels])


def ceiling(people: Sequence[Sequence[bool]]) -> MetaEvaluation:
    """The same of people among themselves: each as the grader against the others of the item, all of them pooled."""
    return _of_pairs(
        [
            (said, other)
            for labels in people
            for at, said in enumerate(labels)
            for place, other in enumerate(labels)
            if place != at
        ]
    )


def _of_pairs(pairs: Sequence[tuple[bool, bool]]) -> MetaEvaluation:
    met, not_met = (_class_f1([(a is kind, b is kind) for a, b in pairs]) for kind in (True, False))
    known = met.f1 is not None and not_met.f1 is not None
    return MetaEvaluation(
        len(pairs), met, not_met, ((met.f1 or 0) + (not_met.f1 or 0)) / 2 if known else None
    )


def _class_f1(pairs: Sequence[tuple[bool, bool]]) -> ClassF1:
    both, said, true = sum(a and b for a, b in pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs)
    precision, recall = both / said if said else None, both / true if true else None
    f1 = None if precision is None or recall is None else 2 * both / (said + true)
    return ClassF1(precision, said, recall, true, f1)
