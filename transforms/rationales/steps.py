"""The steps of recipes that make rationales: each reads parts, calls pure rules, writes parts. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from tilth.schemas import Reason, conform, polars_schema
from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.rationales.checks import Checks
from tilth.transforms.rationales.factors import factor_counts, factor_rationales
from tilth.transforms.rationales.ranking import overlap_scores, ranked
from tilth.transforms.rationales.recovering import LINKS, recovered, recovery_items
from tilth.transforms.rationales.votes import vote
from tilth.transforms.rationales.written import (
    ASKED,
    Writing,
    candidate_schema,
    rationale_requests,
    rationales_of,
    set_aside,
    written_prompt,
)
from tilth.transforms.stage import Output, Task, rows_of


@dataclass(frozen=True, slots=True)
class RuleRationales:
    """Rationales that need no model: measured differences, and what users complained about, as it is.

    Inputs: `pairs`, and `complaints` (rationales of the release that the pairs are from). Writes final `rationales`.
    Pairs are counted as rows of `source`, where it is named.
    """

    source: str = ""
    name: ClassVar[str] = "rule_rationales"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        pairs = rows_of(task, "pairs")
        parent = rows_of(task, "complaints", polars_schema("rationales"))
        complaints = parent.filter(pl.col("kind") == "user_complaint").join(
            pairs, left_on="pair_id", right_on="id", how="semi"
        )
        factors = factor_rationales(pairs)
        out.write("rationales", pl.concat([complaints, factors]))
        if self.source:
            out.count(f"rows_in@{self.source}", pairs.height)
        for name, count in factor_counts(factors).items():
            out.count(f"factor.{name}", count)


@dataclass(frozen=True, slots=True)
class RationaleRequests:
    """Asks a model why replies are better, in one kind. Input: `pairs`. Writes `requests` and `asked`."""

    kind: str
    config: Writing = field(default_factory=Writing)
    prompt_digest: str = field(default="", init=False)  # read when the step is made
    name: ClassVar[str] = "rationale_requests"
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_digest", written_prompt(self.kind).digest)

    @property
    def purpose(self) -> str:
        """What the stage is called, and what the asking is."""
        return f"rationales_{self.kind}"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        write_questions(rationale_requests(rows_of(task, "pairs"), self.kind, self.config), out)


@dataclass(frozen=True, slots=True)
class ReadRationales:
    """Reads what the model wrote in one kind, and checks what can be checked without a judge.

    Inputs: `pairs`, `asked`, `completions`, `quarantine`. Writes `candidates` and `quarantine`.
    """

    kind: str
    config: Writing = field(default_factory=Writing)
    checks: Checks = field(default_factory=Checks)
    prompt_digest: str = field(default="", init=False)
    name: ClassVar[str] = "read_rationales"
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_digest", written_prompt(self.kind).digest)

    @property
    def purpose(self) -> str:
        """What the stage is called."""
        return f"rationales_{self.kind}"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        asked = rows_of(task, "asked", ASKED)
        completions, failed = answered(task)
        pairs = rows_of(task, "pairs")
        made = rationales_of(pairs, asked, completions, failed, self.kind, self.config, self.checks)
        out.write("candidates", made.kept)
        out.write("quarantine", made.dropped)
        out.count(f"rationales.{self.kind}.asked", asked.height)
        out.count(f"rationales.{self.kind}.usable", made.kept.height)


@dataclass(frozen=True, slots=True)
class RecoverItems:
    """Puts rationales before judges who see only them. Inputs: `pairs`, `candidates`. Writes `items` and `links`."""

    name: ClassVar[str] = "recover_items"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        made = recovery_items(_candidates(task), rows_of(task, "pairs"))
        out.write("items", made.items)
        out.write("links", made.links)


@dataclass(frozen=True, slots=True)
class SettleRationales:
    """Keeps the rationales from which the panel recovers the label, one for each pair, kind and side.

    Inputs: `pairs`, `candidates`, `links`, `judgments`. Writes final `rationales` and `quarantine`; other samples that
    the one kept stands for are counted.
    """

    protocol: Protocol
    rank: bool = True
    name: ClassVar[str] = "settle_rationales"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        links = rows_of(task, "links", LINKS)
        judged = recovered(_candidates(task), links, rows_of(task, "judgments"), self.protocol)
        silent = judged.filter(pl.col("recovers_label").is_null()).with_columns(
            reason=pl.lit(Reason.JUDGES_FAILED.value), detail=pl.lit("the judges came to no verdict")
        )
        voted = vote(judged.filter(pl.col("recovers_label").is_not_null()))
        kept = conform(voted.kept.drop("sample_index", "drawn"), "rationales")
        if self.rank:
            kept = ranked(kept, overlap_scores(kept, rows_of(task, "pairs")))
        out.write("rationales", kept)
        out.write("quarantine", pl.concat([set_aside(silent), set_aside(voted.dropped)]))
        out.count("rationales.merged", voted.merged)


def _candidates(task: Task) -> pl.DataFrame:
    return rows_of(task, "candidates", candidate_schema())
