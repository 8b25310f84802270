"""The steps of recipes that make rubrics: each reads parts, calls pure rules, writes parts. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.pairs.by_rubric import rubric_pairs
from tilth.transforms.parts import read_part
from tilth.transforms.rubrics.complaints import COMPLAINTS, Complaining, complaints_of
from tilth.transforms.rubrics.constraints import constraint_criteria
from tilth.transforms.rubrics.criteria import (
    CRITERIA,
    GRADES,
    PROMPTS,
    REPLIES,
    SIDES,
    criteria_of,
    prompts_of,
    replies_of_sides,
    rubric_rows,
    sides_of,
)
from tilth.transforms.rubrics.distilled import Distilled, complaint_criteria, preference_criteria
from tilth.transforms.rubrics.grading import (
    LINKS,
    criterion_items,
    grades_of,
    named,
    program_judgments,
)
from tilth.transforms.rubrics.merging import Merging, merged
from tilth.transforms.rubrics.orbit import RETRIEVED
from tilth.transforms.rubrics.passrates import PassRates, pass_filtered
from tilth.transforms.rubrics.quality import FEEDBACK, Filters, filtered, measured
from tilth.transforms.rubrics.retrieval import Retrieval
from tilth.transforms.rubrics.scoring import SCORED, scores
from tilth.transforms.rubrics.verifiers import grade_by_program
from tilth.transforms.rubrics.written import ASKED, WritingCriteria, criteria_of_answers, written_requests
from tilth.transforms.stage import Output, Task, rows_of
from tilth.transforms.steps import CANDIDATE_ROWS, in_buckets


@dataclass(frozen=True, slots=True)
class Sides:
    """Takes pairs apart. Input: `pairs`. Writes `prompts`, `replies`, `sides`, and `responses` with role `side`.

    Rows are counted as those of `source`, where it is named.
    """

    source: str = ""
    name: ClassVar[str] = "sides"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        pairs = rows_of(task, "pairs")
        replies, sides = sides_of(pairs)
        out.write("prompts", prompts_of(pairs))
        out.write("replies", replies)
        out.write("sides", sides)
        out.write("responses", replies_of_sides(replies))
        if self.source:
            out.count(f"rows_in@{self.source}", pairs.height)


@dataclass(frozen=True, slots=True)
class PlacedPrompts:
    """Prompts of conversations, each once. Inputs: a part of `places`, all `kept`. Writes `prompts`."""

    source: str
    name: ClassVar[str] = "placed_prompts"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        places, kept = (
            pl.concat([read_part(one) for one in task.inputs[name]]) for name in ("places", "kept")
        )
        found = places.join(kept, on=["conversation_id", "target_index"], how="semi", maintain_order="left")
        none = pl.lit([], pl.List(pl.String)).alias("pair_ids")
        out.write("prompts", found.with_columns(none).select(PROMPTS.names()).sort("prompt_id"))
        out.count(f"rows_in@{self.source}", found.height)


@dataclass(frozen=True, slots=True)
class GatherComplaints:
    """Finds complaints in words. Inputs: a part of `conversations`, all `feedback`.

    Writes `complaints`, and `voiced`: which feedback about which prompt, without the words.
    """

    config: Complaining = field(default_factory=Complaining)
    name: ClassVar[str] = "complaints"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part of conversations."""
        found = complaints_of(rows_of(task, "feedback"), rows_of(task, "conversations"), self.config)
        out.write("complaints", found)
        out.write("voiced", found.select(FEEDBACK.names()))
        out.count("complaints.found", found.height)


@dataclass(frozen=True, slots=True)
class RuleCriteria:
    """Criteria that need no model. Inputs: `prompts`, all `complaints` and `preferences`. Writes `criteria`."""

    sources: tuple[str, ...]
    distilled: Distilled = field(default_factory=Distilled)
    retrieval: Retrieval = field(default_factory=Retrieval)
    name: ClassVar[str] = "rule_criteria"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        prompts = rows_of(task, "prompts", PROMPTS)
        if "constraints" in self.sources:
            out.write("criteria", constraint_criteria(prompts))
        if "complaints" in self.sources:
            pool = rows_of(task, "complaints", COMPLAINTS)
            out.write("criteria", complaint_criteria(prompts, pool, self.distilled, self.retrieval))
        if "preferences" in self.sources:
            out.write("criteria", preference_criteria(rows_of(task, "preferences"), prompts))


@dataclass(frozen=True, slots=True)
class CriteriaRequests:
    """Asks for criteria. Inputs: `prompts`, and `pairs` to contrast. Writes `requests` and `asked`."""

    source: str  # contrast | model
    config: WritingCriteria = field(default_factory=WritingCriteria)
    name: ClassVar[str] = "criteria_requests"
    version: ClassVar[str] = "1"

    @property
    def purpose(self) -> str:
        """What the stage is called."""
        return f"criteria-{self.source}"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        prompts, pairs = rows_of(task, "prompts", PROMPTS), rows_of(task, "pairs")
        write_questions(written_requests(prompts, pairs, self.source, self.config), out)


@dataclass(frozen=True, slots=True)
class ReadCriteria:
    """Reads criteria. Inputs: `prompts`, `asked`, `completions`, `quarantine`. Writes `criteria`, `quarantine`."""

    source: str
    config: WritingCriteria = field(default_factory=WritingCriteria)
    name: ClassVar[str] = "read_criteria"
    version: ClassVar[str] = "1"

    @property
    def purpose(self) -> str:
        """What the stage is called."""
        return f"read-{self.source}"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        prompts, asked = rows_of(task, "prompts", PROMPTS), rows_of(task, "asked", ASKED)
        ruled = criteria_of_answers(prompts, asked, completions, failed, self.config)
        out.write("criteria", ruled.kept)
        out.write("quarantine", ruled.dropped)


@dataclass(frozen=True, slots=True)
class MergeCriteria:
    """Criteria of all sources, each once. Input: `criteria`. Writes `criteria`, `quarantine`."""

    config: Merging = field(default_factory=Merging)
    name: ClassVar[str] = "merge_criteria"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        ruled = merged(rows_of(task, "criteria", CRITERIA), self.config)
        out.write("criteria", ruled.kept)
        out.write("quarantine", ruled.dropped)


@dataclass(frozen=True, slots=True)
class GradeItems:
    """What is graded, by programs at once, by judges on asking.

    Inputs: `criteria`, `replies`, and `responses` of a policy. Writes `items`, `links`, `grades` (of programs).
    """

    show_weight: bool = False
    name: ClassVar[str] = "grade_items"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        criteria, replies = rows_of(task, "criteria", CRITERIA), _graded(task)
        graded = criterion_items(criteria, replies, show_weight=self.show_weight)
        out.write("items", graded.items)
        out.write("links", graded.links)
        grades = grade_by_program(criteria, replies)
        out.write("grades", grades)
        out.count("grades.by_program", grades.height)
        out.count("grades.for_judges", graded.items.height)


def _graded(task: Task) -> pl.DataFrame:
    """Replies that are graded: those of pairs, and those of a policy."""
    sampled = rows_of(task, "responses").rename({"id": "response_id"}).select(REPLIES.names())
    return pl.concat([rows_of(task, "replies", REPLIES), sampled])


@dataclass(frozen=True, slots=True)
class SettleRubrics:
    """Rubrics of criteria and grades: measured, and filtered by quality, or by pass rates where they are given.

    Inputs: `criteria`, `prompts`, `sides`, `links`, `judgments`, `grades`, `replies`, `responses`, `voiced`,
    `retrieved`. Writes `rubrics`, `judgments` (those of programs too), `scores` and `quarantine`.
    """

    filters: Filters = field(default_factory=Filters)
    pass_rates: PassRates | None = None
    name: ClassVar[str] = "settle_rubrics"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        links, judged = rows_of(task, "links", LINKS), rows_of(task, "judgments")
        by_program = rows_of(task, "grades", GRADES)
        grades = pl.concat([by_program, grades_of(links, judged)])
        criteria = self._worth_learning(task, grades, out)
        rubrics = rubric_rows(criteria, _prompts(task))
        about = (rubrics, grades, rows_of(task, "sides", SIDES), rows_of(task, "voiced", FEEDBACK))
        if self.pass_rates is None:
            kept, dropped = filtered(*about, self.filters)
            out.write("quarantine", dropped)
        else:
            kept = measured(*about)
        out.write("rubrics", kept)
        out.write("judgments", named(judged, links))
        out.write("judgments", program_judgments(by_program, _graded(task)))
        stayed = criteria_of(kept)
        out.write("scores", scores(stayed, grades))
        out.count("rubrics.criteria", stayed.height)

    def _worth_learning(self, task: Task, grades: pl.DataFrame, out: Output) -> pl.DataFrame:
        criteria = rows_of(task, "criteria", CRITERIA)
        if self.pass_rates is None:
            return criteria
        sampled = grades.join(
            rows_of(task, "responses").select(response_id="id"), on="response_id", how="semi"
        )
        ruled = pass_filtered(criteria, sampled, self.pass_rates)
        out.write("quarantine", ruled.dropped)
        return ruled.kept


def _prompts(task: Task) -> pl.DataFrame:
    prompts = rows_of(task, "prompts", PROMPTS)
    if "retrieved" not in task.inputs:
        return prompts
    retrieved = rows_of(task, "retrieved", RETRIEVED)
    return prompts.join(retrieved, on="prompt_id", how="left", maintain_order="left")


@dataclass(frozen=True, slots=True)
class PairByRubric:
    """Best against worst reply of a policy by its score. Inputs: `responses`, `scores`, `judgments`.

    Writes `candidate_pairs`, `quarantine`.
    """

    policy: BestOfN = field(default_factory=BestOfN)
    name: ClassVar[str] = "pair_by_rubric"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        responses = rows_of(task, "responses")
        given = rows_of(task, "scores", SCORED)
        ruled = rubric_pairs(responses, given, rows_of(task, "judgments"), self.policy)
        out.write("candidate_pairs", in_buckets(ruled.kept), CANDIDATE_ROWS)
        out.write("quarantine", ruled.dropped)
