"""The steps of recipes that sample replies and rate them: each reads parts, calls pure rules, writes parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import polars as pl

from tilth.schemas import polars_schema
from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.judging.bracket import bracket, match_items
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.judging.ratings import ratings
from tilth.transforms.judging.tournament import EloFit, contests, elo
from tilth.transforms.pairs.best_of_n import BestOfN, best_of_n_pairs
from tilth.transforms.pairs.rated import RatedPairs, rated_pairs
from tilth.transforms.pairs.won import won_pairs
from tilth.transforms.parts import read_part
from tilth.transforms.responses.candidates import ASKED, PLACES, Replying, replies_of, reply_requests
from tilth.transforms.responses.sampled import (
    Which,
    asked_of,
    one_per_prompt,
    rated_together,
    reply_places,
)
from tilth.transforms.stage import Output, Task, rows_of
from tilth.transforms.steps import CANDIDATE_ROWS, in_buckets

Select = Literal["rated", "best_worst", "tournament"]


@dataclass(frozen=True, slots=True)
class PromptPlaces:
    """Finds prompts in logs. Input: final `conversations`. Writes `places`."""

    which: Which = "first"
    name: ClassVar[str] = "prompts"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        found = reply_places(rows_of(task, "conversations"), self.which)
        out.write("places", found)
        out.count("prompts.found", found.height)


@dataclass(frozen=True, slots=True)
class UniquePrompts:
    """Chooses one place for each prompt over all parts. Input: all `places`. Writes `kept` (keys only)."""

    name: ClassVar[str] = "unique_prompts"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task; only keys are read."""
        columns = ["conversation_id", "target_index", "prompt_id"]
        places = pl.concat([read_part(shard, columns) for shard in task.inputs["places"]])
        kept = one_per_prompt(places)
        out.write("kept", kept)
        out.count("prompts.kept", kept.height)


@dataclass(frozen=True, slots=True)
class PolicyRequests:
    """Asks one of several policies for replies. Inputs: `places`, `kept`. Writes `requests` and `asked`."""

    policy: str
    policies: tuple[str, ...]
    per_prompt: int = 0
    replying: Replying = field(default_factory=Replying)
    samples: int = 1
    seed: int = 0
    name: ClassVar[str] = "policy_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        where = asked_of(_places(task), self.policy, self.policies, self.per_prompt, self.seed)
        questions = reply_requests(where, self.replying, None, self.samples, self.seed)
        write_questions(questions, out)


@dataclass(frozen=True, slots=True)
class PolicyReplies:
    """Reads what one policy replied.

    Inputs: `places`, `kept`, `asked`, `completions`, `quarantine`. Writes `responses`; what is no usable reply is set
    aside.
    """

    model: str
    name: ClassVar[str] = "policy_replies"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        asked = rows_of(task, "asked", ASKED)
        made, lost = replies_of(_places(task), asked, completions, failed, "policy", self.model, guided=False)
        out.write("responses", made)
        out.write("quarantine", lost)


@dataclass(frozen=True, slots=True)
class RateTogether:
    """Lists replies that are rated together. Input: `responses` of all policies. Writes `items` and `rated`."""

    name: ClassVar[str] = "rate_together"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        listed = rated_together(rows_of(task, "responses"))
        out.write("items", listed.items)
        out.write("rated", listed.responses)
        out.write("quarantine", listed.dropped)


@dataclass(frozen=True, slots=True)
class Rate:
    """Makes ratings of judgments. Inputs: `rated` (responses), `judgments`. Writes `ratings`."""

    weights: Mapping[str, float]  # of judges
    optional: tuple[str, ...]
    name: ClassVar[str] = "ratings"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        responses = rows_of(task, "rated", polars_schema("responses"))
        ruled = ratings(rows_of(task, "judgments"), responses, self.weights, self.optional)
        out.write("ratings", ruled.kept)
        out.write("quarantine", ruled.dropped)


@dataclass(frozen=True, slots=True)
class PairRated:
    """Makes pairs of ratings. Input: `ratings`. Writes `candidate_pairs`, which `Settle` decides over."""

    select: Select = "rated"
    rated: RatedPairs = field(default_factory=RatedPairs)
    best_of_n: BestOfN = field(default_factory=BestOfN)
    name: ClassVar[str] = "pair_rated"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        rows = rows_of(task, "ratings")
        best_worst = self.select == "best_worst"
        ruled = best_of_n_pairs(rows, self.best_of_n) if best_worst else rated_pairs(rows, self.rated)
        out.write("candidate_pairs", in_buckets(ruled.kept), CANDIDATE_ROWS)
        out.write("quarantine", ruled.dropped)


@dataclass(frozen=True, slots=True)
class SeatMatches:
    """Draws the matches of the next round. Inputs: `rated` (responses), `judgments` so far. Writes `items`."""

    protocol: Protocol
    name: ClassVar[str] = "seat_matches"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        responses = rows_of(task, "rated", polars_schema("responses"))
        drawn = bracket(responses, rows_of(task, "judgments"), self.protocol)
        out.write("items", match_items(drawn.now.matches, responses))


@dataclass(frozen=True, slots=True)
class PairWon:
    """Makes pairs of matches. Inputs: `rated`, all `judgments`. Writes `candidate_pairs` and `contests`."""

    protocol: Protocol
    name: ClassVar[str] = "pair_won"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        responses = rows_of(task, "rated", polars_schema("responses"))
        drawn = bracket(responses, rows_of(task, "judgments"), self.protocol)
        ruled = won_pairs(drawn, responses)
        out.write("candidate_pairs", in_buckets(ruled.kept), CANDIDATE_ROWS)
        out.write("contests", contests(drawn.results, responses.select(response_id="id", contestant="model")))
        out.write("quarantine", ruled.dropped)


@dataclass(frozen=True, slots=True)
class RankPolicies:
    """Rates the policies by all matches between them. Input: `contests`. Writes `elo`, where two or more met."""

    fit: EloFit
    name: ClassVar[str] = "rank_policies"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task over all parts."""
        out.write("elo", elo(rows_of(task, "contests"), self.fit))


def _places(task: Task) -> pl.DataFrame:
    places, kept = (rows_of(task, "places", PLACES), task.inputs["kept"])
    keys = ["conversation_id", "target_index"]
    return places.join(pl.concat([read_part(shard) for shard in kept]), on=keys, how="semi")
