"""How good rubrics are, measured on grades of real replies; criteria and rubrics that tell nothing are set aside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: figures on their way to JSON

import orjson
import polars as pl

from tilth.schemas import ConfigError, Reason, conform
from tilth.schemas.ids import content_id
from tilth.transforms.pairs.candidates import DROPPED
from tilth.transforms.rubrics.criteria import PROGRAM, PROMPTS, criteria_of, rubric_rows
from tilth.transforms.rubrics.likeness import content_words, grams, likeness, nearest_elsewhere, words
from tilth.transforms.rubrics.merging import PAYLOAD_CHARS, SOURCE, set_aside
from tilth.transforms.rubrics.scoring import panel

FEEDBACK: Final = pl.Schema({"prompt_id": pl.String, "feedback_id": pl.String})
"""The negative feedback that was mined about a prompt."""
MEASURES: Final = ("separation", "redundancy", "agreement", "coverage", "balance")
_DIGITS: Final = 9
_SHARES: Final = (0.5, 0.7, 0.85)


@dataclass(frozen=True, slots=True)
class Filters:
    """What is set aside.

    Args:
        min_replies: with fewer graded replies, nobody says that everybody passes or fails a criterion.
        keep_hard_rules: keep criteria that stand in the prompt itself (source `prompt`), whatever replies do.
        min_discrimination: criteria below it on graded pairs go, in [-1, 1]; mistakes are read the other way round.
        min_separation: rubrics that order a smaller share of their pairs as people did go (tau of OpenRubrics, arXiv
            2510.07743, section 4); 0 for none.
    """

    min_replies: int = 2
    keep_hard_rules: bool = False
    min_discrimination: float = 0.0
    min_separation: float = 0.5

    def __post_init__(self) -> None:
        shares = -1 <= self.min_discrimination <= 1 and 0 <= self.min_separation <= 1
        if not (shares and self.min_replies >= 2):
            wanted = "min_replies of 2 or more, min_discrimination in [-1, 1], min_separation in [0, 1]"
            raise ConfigError("how rubrics are filtered", found=self, wanted=wanted)


class Filtered(NamedTuple):
    """Rows of `rubrics` that stay, measured anew, and rows of `quarantine` without `id`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def measured(
    rubrics: pl.DataFrame, grades: pl.DataFrame, sides: pl.DataFrame, feedback: pl.DataFrame
) -> pl.DataFrame:
    """`rubrics`, sorted by prompt, with every number of quality anew; what cannot be known is null.

    Criteria get `pass_rate`, the share of graded replies that meet them, and `discrimination`, P(chosen meets it and
    rejected does not) - P(the reverse) over pairs with both graded. Rubrics get:

    - `separation`: the share of graded pairs whose chosen reply has the higher score, ties a half. The replies of a
      pair are compared by the criteria graded for both, so that a failed grade speaks for neither.
    - `redundancy`: the mean over criteria of the highest `likeness` to another, without stop words; 0 for a single one.
    - `agreement`: Krippendorff's alpha of the judges' grades, programs left out; null with one judge, or one answer.
    - `coverage`: the share of the prompt's mined feedback that some criterion comes from; null without feedback.
    - `balance`: the entropy of |weights| over log n; 1 for one criterion.

    Args:
        rubrics: rows of the table.
        grades: `GRADES` of any replies to these prompts.
        sides: `SIDES`.
        feedback: `FEEDBACK`.
    """
    criteria, verdicts = criteria_of(rubrics), panel(grades)
    rated = _rated(criteria, verdicts, _compared(criteria, verdicts, sides))
    # A rubric of the same criteria is the same rubric, with the same id.
    rows = rubric_rows(rated, rubrics.select(*PROMPTS.names(), "retrieved_ids")).drop(MEASURES)
    numbers = [
        _separation(_compared(rated, verdicts, sides)),
        _of_texts(rated),
        _agreement(rated, grades),
        _coverage(rated, feedback),
    ]
    for found in numbers:
        rows = rows.join(found, on="prompt_id", how="left")
    return conform(rows, "rubrics").sort("prompt_id")


def _compared(criteria: pl.DataFrame, verdicts: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    """Each criterion with each pair of its prompt in which both replies were graded; `gain` is chosen less rejected."""
    weights = criteria.select("prompt_id", "weight", criterion_id="id")
    told = verdicts.drop_nulls("met").select("prompt_id", "criterion_id", "response_id", "met")
    keys = ["prompt_id", "criterion_id"]
    chosen, rejected = (
        told.rename({"response_id": f"{side}_id", "met": side}) for side in ("chosen", "rejected")
    )
    both = sides.unique().join(weights, on="prompt_id")
    graded = both.join(chosen, on=[*keys, "chosen_id"]).join(rejected, on=[*keys, "rejected_id"])
    gain = pl.col("chosen").cast(pl.Float64) - pl.col("rejected").cast(pl.Float64)
    return graded.with_columns(gain=gain).sort("pair_id", "criterion_id")


def _rated(criteria: pl.DataFrame, verdicts: pl.DataFrame, compared: pl.DataFrame) -> pl.DataFrame:
    passed = verdicts.group_by("prompt_id", id="criterion_id").agg(pass_rate=pl.col("met").mean())
    told = compared.group_by("prompt_id", id="criterion_id").agg(discrimination=pl.col("gain").mean())
    rows = criteria.drop("pass_rate", "discrimination")
    for found in (passed, told):
        rows = rows.join(found, on=["prompt_id", "id"], how="left", maintain_order="left")
    return rows.select(criteria.columns)


def _separation(compared: pl.DataFrame) -> pl.DataFrame:
    """All pairs of a rubric have its denominator, so the difference of weighted sums has the sign of the scores'."""
    gained = (pl.col("weight") * pl.col("gain")).sum().round(_DIGITS)
    pairs = compared.group_by("prompt_id", "pair_id", maintain_order=True).agg(gained=gained)
    return pairs.group_by("prompt_id").agg(separation=((pl.col("gained").sign() + 1) / 2).mean())


def _of_texts(criteria: pl.DataFrame) -> pl.DataFrame:
    size = pl.col("weight").abs()
    share = size / size.sum()
    evenness = -(share * share.log()).sum() / pl.len().log()
    rows = criteria.group_by("prompt_id").agg(
        pl.col("description").sort(),
        balance=pl.when(pl.len() > 1).then(evenness.clip(0.0, 1.0)).otherwise(1.0),
    )
    found = [_redundancy(texts) for texts in rows.get_column("description")]
    return rows.select("prompt_id", "balance", pl.Series("redundancy", found, dtype=pl.Float64, strict=False))


def _redundancy(texts: Sequence[str]) -> float:
    if len(texts) < 2:
        return 0.0
    known = [grams(content_words(text)) for text in texts]
    nearest = [
        max(likeness(one, other) for place, other in enumerate(known) if place != at)
        for at, one in enumerate(known)
    ]
    return sum(nearest) / len(nearest)


def _agreement(criteria: pl.DataFrame, grades: pl.DataFrame) -> pl.DataFrame:
    from tilth.transforms.judging.agreement import alpha

    asked = criteria.select("prompt_id", criterion_id="id")
    judged = grades.filter(pl.col("judge") != PROGRAM).unique().join(asked, on=["prompt_id", "criterion_id"])
    several = judged.filter(pl.col("judge").n_unique().over("prompt_id") > 1)
    item = ["criterion_id", "response_id"]
    # A judge who contradicts himself about an item said nothing of it.
    known = several.drop_nulls("met").unique([*item, "prompt_id", "judge"], keep="none")
    found = {
        str(prompt): alpha(
            rows.pivot("judge", index=item, values="met", sort_columns=True)
            .sort(item)
            .drop(item)
            .transpose()
            .rows()
        )
        for (prompt,), rows in known.partition_by("prompt_id", as_dict=True).items()
    }
    schema = {"prompt_id": pl.String, "agreement": pl.Float64}
    return pl.DataFrame({"prompt_id": list(found), "agreement": list(found.values())}, schema=schema)


def _coverage(criteria: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    used = criteria.select("prompt_id", feedback_id="feedback_ids").explode(
        "feedback_id", empty_as_null=False, keep_nulls=False
    )
    marked = (
        feedback.select(FEEDBACK.names())
        .unique()
        .join(
            used.unique().with_columns(used=pl.lit(value=True)), on=["prompt_id", "feedback_id"], how="left"
        )
    )
    return marked.group_by("prompt_id").agg(coverage=pl.col("used").is_not_null().mean())


# Filters


def filtered(
    rubrics: pl.DataFrame,
    grades: pl.DataFrame,
    sides: pl.DataFrame,
    feedback: pl.DataFrame,
    config: Filters | None = None,
) -> Filtered:
    """Rubrics without criteria that tell nothing, measured anew, and what was set aside.

    First criteria: met by all or by none of the graded replies (`saturated`), or met rather by the rejected replies
    (`not_discriminating`). Then what is left of the rubric: without a criterion, or without one of positive weight
    (`no_criterion`); its separation is known and too low (`low_separation`). Numbers that were never measured drop
    nothing. The separation of what stays was measured on the pairs that chose it, so it flatters; a lower
    `min_separation` never drops more.

    Args: as for `measured`; config: see `Filters`.
    """
    config = config or Filters()
    marked = _marked(criteria_of(measured(rubrics, grades, sides, feedback)), grades, config)
    dropped = [
        set_aside(row, Reason(row["reason"]), row["detail"])
        for row in marked.drop_nulls("reason").iter_rows(named=True)
    ]
    criteria = marked.filter(pl.col("reason").is_null()).drop("reason", "detail")
    wanted = criteria.filter(pl.col("weight") > 0).select("prompt_id")
    lost = rubrics.join(wanted, on="prompt_id", how="anti")
    dropped += _rubrics_aside(lost, criteria, Reason.NO_CRITERION, "no criterion of positive weight is left")
    prompts = rubrics.join(wanted, on="prompt_id", how="semi").select(*PROMPTS.names(), "retrieved_ids")
    again = measured(rubric_rows(criteria, prompts), grades, sides, feedback)
    low = (pl.col("separation") < config.min_separation).fill_null(value=False)
    why = f"orders fewer than {config.min_separation:g} of its pairs as people did"
    dropped += _rubrics_aside(again.filter(low), criteria, Reason.LOW_SEPARATION, why)
    return Filtered(again.filter(~low), pl.DataFrame(dropped, schema=DROPPED).sort("key", "reason"))


def _marked(criteria: pl.DataFrame, grades: pl.DataFrame, config: Filters) -> pl.DataFrame:
    """`criteria` with `reason` and `detail`, null for those that stay."""
    told = panel(grades).drop_nulls("met")
    counts = told.group_by("prompt_id", id="criterion_id").agg(replies=pl.len())
    rows = criteria.join(counts, on=["prompt_id", "id"], how="left", maintain_order="left")
    enough = pl.col("replies").fill_null(0) >= config.min_replies
    spared = pl.lit(config.keep_hard_rules) & (pl.col("source") == "prompt")
    flat = ~spared & enough & pl.col("pass_rate").is_in([0.0, 1.0])
    towards = pl.col("discrimination") * pl.col("weight").sign()
    wrong = ~spared & (towards < config.min_discrimination)
    reason = (
        pl.when(flat)
        .then(pl.lit(Reason.SATURATED.value))
        .when(wrong)
        .then(pl.lit(Reason.NOT_DISCRIMINATING.value))
    )
    detail = pl.format("met by {} of {} replies", pl.col("pass_rate").round(3), "replies")
    against = pl.format("a discrimination of {}", towards.round(3))
    return rows.with_columns(reason=reason, detail=pl.when(flat).then(detail).otherwise(against)).drop(
        "replies"
    )


def _rubrics_aside(
    rubrics: pl.DataFrame, criteria: pl.DataFrame, reason: Reason, detail: str
) -> list[dict[str, object]]:
    """Whole rubrics as rows of `quarantine`; the payload holds those of their criteria that had stayed until then."""
    listed = criteria.group_by("prompt_id").agg(pl.struct("description", "weight", "program", "source"))
    rows = rubrics.select("prompt_id").join(listed, on="prompt_id", how="left").sort("prompt_id")
    return [
        {
            "source": SOURCE,
            "stage": "rubrics",
            "reason": reason.value,
            "key": f"rubrics#prompt={prompt}",
            "detail": detail,
            "payload": orjson.dumps({"criteria": held or []}).decode()[:PAYLOAD_CHARS],
            "source_rows": 0,
        }
        for prompt, held in rows.iter_rows()
    ]


# Statistics of many rubrics


def statistics(rubrics: pl.DataFrame, max_rubrics: int = 1000) -> dict[str, Any]:
    """Figures about the texts of rubrics (ORBIT, arXiv 2510.15859, Table 8), rounded; null where there is nothing.

    `templatedness`: over criteria, the highest likeness to a criterion of another prompt, its mean and the shares
    above 0.5, 0.7 and 0.85; over at most `max_rubrics`, drawn by their prompts' ids, because time is quadratic.
    `within`: the mean likeness of two criteria of one rubric. `words`: per criterion, mean and standard deviation.
    `type_token_ratio`: distinct words over words, which falls as criteria grow in number.
    """
    drawn = sorted(rubrics.iter_rows(named=True), key=lambda row: content_id("statistics", row["prompt_id"]))
    texts = [[one["description"] for one in row["criteria"]] for row in drawn]
    counts = [len(words(text)) for held in texts for text in held]
    vocabulary = Counter(word for held in texts for text in held for word in words(text))
    return {
        "rubrics": rubrics.height,
        "criteria": len(counts),
        "words": {"mean": _mean(counts), "std": _deviation(counts)},
        "type_token_ratio": _ratio(len(vocabulary), vocabulary.total()),
        "within": _mean([value for held in texts for value in _between(held)]),
        "templatedness": _templatedness(texts[:max_rubrics]),
        "drawn": min(max_rubrics, len(texts)),
    }


def _templatedness(texts: Sequence[Sequence[str]]) -> dict[str, Any]:
    tokens = [content_words(text) for held in texts for text in held]
    groups = [at for at, held in enumerate(texts) for _ in held]
    best = nearest_elsewhere(tokens, groups).tolist() if len(texts) > 1 else []
    above = {f"above_{share:g}": _mean([float(one > share) for one in best]) for share in _SHARES}
    return {"mean": _mean(best), **above}


def _between(texts: Sequence[str]) -> list[float]:
    known = [grams(content_words(text)) for text in texts]
    return [likeness(one, other) for at, one in enumerate(known) for other in known[:at]]


def _mean(values: Sequence[float]) -> float | None:
    return _ratio(math.fsum(values), len(values))


def _deviation(values: Sequence[float]) -> float | None:
    mean = math.fsum(values) / len(values) if values else 0.0
    return (
        round(math.sqrt(math.fsum((one - mean) ** 2 for one in values) / len(values)), 4) if values else None
    )


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
