"""Rubrics of observed pairs without a model: what the request demands in so many words, and what users faulted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

import polars as pl

from tilth.transforms.rubrics.complaints import same_words, says_something, told_as_criterion
from tilth.transforms.rubrics.constraints import constraint_criteria
from tilth.transforms.rubrics.criteria import CRITERIA, criteria_rows, prompts_of, rubric_rows, sides_of
from tilth.transforms.rubrics.merging import Merging, merged
from tilth.transforms.rubrics.quality import measured
from tilth.transforms.rubrics.verifiers import grade_by_program
from tilth.transforms.stage import Output, Task, rows_of

VOICE: Final = 0.6  # the weight of what one user complained about; a hard rule weighs 1
MAX_CHARS: Final = 400


class Observed(NamedTuple):
    """Rows of the table `rubrics`, rows of `quarantine` without `id`, and how many prompts have no criterion."""

    rubrics: pl.DataFrame
    dropped: pl.DataFrame
    without: int


def observed_rubrics(
    pairs: pl.DataFrame, rationales: pl.DataFrame, merging: Merging | None = None
) -> Observed:
    """Rubrics of the prompts of pairs, method `rules`.

    Hard rules are the constraints that a program finds in the request and can check; principles are what users said
    against the rejected replies. Like criteria are merged (`tilth.transforms.rubrics.merging`). Programs grade both
    sides of each pair, so that `separation`, and each rule's `pass_rate` and `discrimination`, are known where there is
    a rule. The order of rows decides nothing; time is linear in pairs.

    Args:
        pairs: rows of the table.
        rationales: rows of the table, of which the complaints about these pairs are read.
        merging: when two criteria are one.
    """
    prompts, (replies, sides) = prompts_of(pairs), sides_of(pairs)
    voiced = _voiced(pairs, rationales)
    found = pl.concat([constraint_criteria(prompts), _principles(voiced)])
    ruled = merged(found, merging)
    rubrics = rubric_rows(ruled.kept, prompts)
    grades = grade_by_program(ruled.kept, replies)
    feedback = voiced.select("prompt_id", feedback_id="feedback_ids").explode(
        "feedback_id", empty_as_null=False
    )
    whole = measured(rubrics, grades, sides, feedback.unique())
    return Observed(whole, ruled.dropped, prompts.height - rubrics.height)


def _voiced(pairs: pl.DataFrame, rationales: pl.DataFrame) -> pl.DataFrame:
    """The complaints about pairs, with the prompt of each."""
    placed = pairs.select("prompt_id", "split", pair_id="id")
    complaints = rationales.filter(kind="user_complaint").select(
        "pair_id", "text", "feedback_ids", "conversation_id", "split"
    )
    return complaints.join(placed, on=["pair_id", "split"])


def _principles(voiced: pl.DataFrame) -> pl.DataFrame:
    """`CRITERIA` of source `complaint`: what users said, verbatim but for white space, equal words once.

    Each conversation in which it was said is a voice of weight 0.6, and they add up as for complaints about similar
    prompts. What is longer than 400 characters, or has no letters, is no criterion.
    """
    told = voiced.filter(says_something("text", MAX_CHARS)).with_columns(said=same_words("text"))
    voices = told.unique(["prompt_id", "said", "conversation_id"], keep="any")
    weights = voices.group_by("prompt_id", "said").agg(weight=1 - (1 - VOICE) ** pl.len())
    merged_words = told.group_by("prompt_id", "said").agg(
        pl.col("text").min(), pl.col("feedback_ids").explode(empty_as_null=False).unique().sort()
    )
    rows = merged_words.join(weights, on=["prompt_id", "said"])
    return criteria_rows(
        rows.select(
            "prompt_id", "weight", "feedback_ids", description=told_as_criterion("text"),
            title=pl.lit("What a user faulted"), kind=pl.lit("principle"), check=pl.lit("judge"),
            source=pl.lit("complaint"),
        )
    ).select(CRITERIA.names())  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObservedRubrics:
    """Rubrics without a model. Inputs: `pairs` and the `rationales` of them. Writes `rubrics` and `quarantine`.

    Quarantine holds criteria that say what another of their rubric says.
    """

    merging: Merging = field(default_factory=Merging)
    name: ClassVar[str] = "rubrics"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part of pairs; all rationales of these pairs."""
        made = observed_rubrics(rows_of(task, "pairs"), rows_of(task, "rationales"), self.merging)
        out.write("rubrics", made.rubrics)
        out.write("quarantine", made.dropped)
        out.count("rubrics.prompts", made.rubrics.height + made.without)
        out.count("rubrics.without_criteria", made.without)
