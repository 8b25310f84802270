"""The recipe `ultrafeedback`: prompts from logs, several replies to each, aspects rated, ratings made pairs.

sources -> ingest -> assign -> mine          conversations with splits
        -> prompts -> unique_prompts         one place a conversation, each prompt once
        -> [policy 1] [policy 2] ...         samples of each
        -> rate_together -> [judge 1] ...    all replies in one call, an aspect at a time, in several orders
        -> ratings -> pair_rated -> settle   pairs

With `select: tournament` there are no ratings: replies to a prompt meet in pairs, round by round, and every match with
a winner is a pair:

        -> seat_matches -> [judge 1] ... -> seat_matches -> ... -> pair_won -> settle; rank_policies

In brackets: what a model is asked. Sources: UltraFeedback (arXiv 2310.01377), Tulu 3 (arXiv 2411.15124). With one
policy, several samples and `select: best_worst` it is the on-policy best against worst of open-instruct and Magpie.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final  # Any: planned reads

import polars as pl

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.pipelines.observed import Logged, Observation, Observed, read_logs, settle
from tilth.pipelines.planned import Planned
from tilth.schemas import ConfigError
from tilth.transforms.judging.aspects import ASPECTS, OPTIONAL, AspectJudging
from tilth.transforms.judging.protocol import Judge, Protocol
from tilth.transforms.judging.tournament import EloFit
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.pairs.rated import RatedPairs
from tilth.transforms.parts import Shard, read_part
from tilth.transforms.rating_steps import (
    PairRated,
    PairWon,
    PolicyReplies,
    PolicyRequests,
    PromptPlaces,
    RankPolicies,
    Rate,
    RateTogether,
    SeatMatches,
    Select,
    UniquePrompts,
)
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.responses.sampled import Which
from tilth.transforms.stage import Manifest, outputs, parts

NAME: Final = "ultrafeedback"
# What the rows of each table were made from; what is not a table of the release is a source or a model.
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "conversations": ("sources",),
    "responses": ("conversations", "policies"),
    "judgments": ("responses", "judges"),
    "ratings": ("responses", "judgments"),
    "pairs": ("ratings",),
    "quarantine": ("sources", "conversations", "responses", "ratings"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = frozenset({("ingest", "conversations")})


@dataclass(frozen=True, slots=True)
class UltraFeedback:
    """The recipe's configuration; the fields are the keys of section `ultrafeedback` in `tilth.yaml`.

    Args:
        seed: of samples, of the draw of policies, of the orders in which replies are shown.
        policies: the roles that reply.
        samples: replies of each to a prompt.
        per_prompt: how many of the policies reply to a prompt, drawn for each; 0 for all.
        prompts: which replies of a conversation are done again: the first, the last or every one.
        replies: how replies are drawn.
        aspects: what is rated, by name, with what it means.
        optional: aspects that need not apply to a reply.
        judging: how aspects are judged; a prompt costs judges x aspects x orders x evidences calls.
        select: `rated`: ratings become pairs as `rated` says; `best_worst`: as `best_of_n` says; `tournament`: replies
            are compared, not rated, in a single elimination (Varco Arena, arXiv 2411.01281).
        rated: the best over another.
        best_of_n: the best over the worst.
    """

    seed: int = 0
    policies: tuple[str, ...] = ("model",)
    samples: int = 4
    per_prompt: int = 0
    prompts: Which = "first"
    replies: Replying = field(default_factory=Replying)
    aspects: tuple[tuple[str, str], ...] = ASPECTS
    optional: tuple[str, ...] = OPTIONAL
    judging: AspectJudging = field(default_factory=AspectJudging)
    select: Select = "rated"
    rated: RatedPairs = field(default_factory=RatedPairs)
    best_of_n: BestOfN = field(default_factory=BestOfN)

    def __post_init__(self) -> None:
        asked = min(self.per_prompt or len(self.policies), len(self.policies)) * self.samples
        if len(set(self.policies)) != len(self.policies) or self.per_prompt < 0 or asked < 2:
            found = (
                f"{len(self.policies)} policies, {self.per_prompt} a prompt, {self.samples} samples of each"
            )
            raise ConfigError(
                "who replies", found=found, wanted="no policy twice, two or more replies to a prompt"
            )
        if self.samples > 1 and self.replies.temperature == 0:
            raise ConfigError("several samples at temperature 0", do="set ultrafeedback.replies.temperature")
        if self.select not in ("rated", "best_worst", "tournament") or self.prompts not in (
            "first",
            "last",
            "every",
        ):
            found = f"select={self.select}, prompts={self.prompts}"
            raise ConfigError(
                "choices", found=found, wanted="rated, best_worst or tournament; first, last or every"
            )


def writers(config: UltraFeedback) -> list[str]:
    """The roles that write replies."""
    return list(config.policies)


def judges(config: UltraFeedback) -> list[str]:
    """The roles that rate them."""
    return [Judge.of(text).name for text in config.judging.judges]


def roles(config: UltraFeedback) -> list[str]:
    """Whose answers the outcome rests on."""
    return list(dict.fromkeys([*writers(config), *judges(config)]))


def witnesses(config: UltraFeedback) -> dict[str, str]:
    """What else the outcome rests on: the digest of the prompt that judges are asked."""
    prompt = _protocol(config).prompt
    return {f"prompt {prompt.id}@{prompt.version}": prompt.digest}


def ultrafeedback(
    reads: Sequence[Mapping[str, Any]],
    logs: Observed,
    config: UltraFeedback,
    means: Means,
    max_quarantine_share: float = 1.0,
) -> Observation:
    """Runs the recipe over planned reads (`tilth.transforms.ingest.plan`).

    Raises `QuarantineOverflow` when more than `max_quarantine_share` of the source rows were set aside, and what
    asking a model raises; finished work is kept, and the same call goes on there.
    """
    logged = read_logs(reads, logs, means.conduct, max_quarantine_share)
    stages: dict[str, dict[str, Manifest]] = {}
    responses = _replied(stages, _prompts(stages, logged, config, means), config, means)
    listed = stages["rate_together"] = means.run(RateTogether(), responses)
    protocol = _protocol(config)
    select = _tournament if config.select == "tournament" else _rated
    judgments, paired = select(stages, listed, protocol, config, means)
    settled = settle(list(paired.values()), logs, logged.conversations, means.conduct)
    return _observation(logged, stages, settled, judgments, protocol)


def _protocol(config: UltraFeedback) -> Protocol:
    if config.select == "tournament":
        return config.judging.pairwise(config.seed)
    return config.judging.rating(config.aspects, config.seed)


Judged = tuple[Mapping[str, tuple[Shard, ...]], dict[str, Manifest]]
"""By part, what judges said and the candidates for pairs that came of it."""


def _rated(
    stages: Stages, listed: Mapping[str, Manifest], protocol: Protocol, config: UltraFeedback, means: Means
) -> Judged:
    judgments = judge({part: outputs(made, "items") for part, made in listed.items()}, protocol, means)
    rated = stages["ratings"] = means.run(
        Rate(protocol.weights, config.optional),
        {part: {**outputs(made, "rated"), "judgments": judgments[part]} for part, made in listed.items()},
    )
    paired = stages["pair_rated"] = means.run(
        PairRated(config.select, config.rated, config.best_of_n),
        {part: outputs(made, "ratings") for part, made in rated.items()},
    )
    return judgments, paired


def _tournament(
    stages: Stages, listed: Mapping[str, Manifest], protocol: Protocol, config: UltraFeedback, means: Means
) -> Judged:
    """Round after round, until no prompt has a match left; then every match is looked at together."""
    known = {part: {**outputs(made, "rated"), "judgments": ()} for part, made in listed.items()}
    for number in itertools.count(1):
        seated = means.run(SeatMatches(protocol), known)
        items = {part: outputs(made, "items") for part, made in seated.items() if "items" in made.outputs}
        if not items:
            break
        for part, said in judge(items, protocol, means, f"round-{number}").items():
            known[part]["judgments"] += said
    judgments = {part: inputs["judgments"] for part, inputs in known.items()}
    paired = stages["pair_won"] = means.run(PairWon(protocol), known)
    met = tuple(parts(list(paired.values()), "contests"))
    if met:
        fit = EloFit(seed=config.seed)
        stages["rank_policies"] = means.run(RankPolicies(fit), {"000000": {"contests": met}})
    return judgments, paired


def planned(
    reads: Sequence[Mapping[str, Any]],
    logs: Observed,
    config: UltraFeedback,
    means: Means,
    max_quarantine_share: float = 1.0,
) -> list[Planned]:
    """What the run would ask: replies exactly, ratings as if every reply were usable and half the longest."""
    logged = read_logs(reads, logs, means.conduct, max_quarantine_share)
    places = _prompts({}, logged, config, means)
    asked = {policy: _requests(policy, places, config, means) for policy in config.policies}
    replies = [
        Planned(f"reply-{policy}", policy, tuple(parts(list(made.values()), "requests")))
        for policy, made in asked.items()
    ]
    kept = next(iter(places.values()), {"kept": ()})["kept"]
    prompts, judging = sum(shard.rows for shard in kept), config.judging
    shown = config.samples * (config.per_prompt or len(config.policies))
    calls = prompts * judging.evidences
    calls *= (
        2 * (shown - 1)
        if config.select == "tournament"
        else len(config.aspects) * min(judging.rotations, shown)
    )
    chars = shown * 2 * config.replies.answer_tokens + 3000  # four characters a token, half of the longest
    return replies + [
        Planned(purpose_of("judge", name), name, (), calls, chars, judging.answer_tokens)
        for name in judges(config)
    ]


Stages = dict[str, dict[str, Manifest]]
"""What each stage made of each part, for the tables and counts of the run."""


def _prompts(stages: Stages, logged: Logged, config: UltraFeedback, means: Means) -> dict[str, Inputs]:
    """By part, its `places` and the keys of those that are `kept`; parts without any place are left out."""
    stages["prompts"] = found = means.run(PromptPlaces(config.prompts), logged.by_part())
    places = {part: outputs(made, "places") for part, made in found.items() if "places" in made.outputs}
    if not places:
        return {}
    every = tuple(shard for inputs in places.values() for shard in inputs["places"])
    stages["unique_prompts"] = unique = means.run(UniquePrompts(), {"000000": {"places": every}})
    kept = outputs(unique["000000"], "kept")
    return {part: {**inputs, **kept} for part, inputs in places.items()}


def _replied(
    stages: Stages, places: Mapping[str, Inputs], config: UltraFeedback, means: Means
) -> dict[str, Inputs]:
    """By part, the `responses` of all policies."""
    made: dict[str, tuple[Shard, ...]] = dict.fromkeys(places, ())
    for policy in config.policies:
        answers = means.answer(_requests(policy, places, config, means), f"reply-{policy}", policy)
        told = {part: {**places[part], **answers[part]} for part in places}
        model = means.ask(f"reply-{policy}", policy).identity
        stages[f"replies.{policy}"] = read = means.run(PolicyReplies(model), told)
        for part, one in read.items():
            made[part] += tuple(one.outputs.get("responses", ()))
    return {part: {"responses": shards} for part, shards in made.items()}


def _requests(
    policy: str, places: Mapping[str, Inputs], config: UltraFeedback, means: Means
) -> dict[str, Manifest]:
    drawn = (config.policies, config.per_prompt, config.replies, config.samples, config.seed)
    return means.run(PolicyRequests(policy, *drawn), places)


def _observation(
    logged: Logged,
    stages: Stages,
    settled: list[Manifest],
    judgments: Mapping[str, tuple[Shard, ...]],
    protocol: Protocol,
) -> Observation:
    made = {"ingest": logged.ingested, "mine": logged.mined}
    made |= {name: list(one.values()) for name, one in stages.items()} | {"settle": settled}
    replied = [
        shard
        for name, one in made.items()
        if name.startswith("replies.")
        for shard in parts(one, "responses")
    ]
    tables = {
        "conversations": parts(logged.mined, "conversations"),
        "responses": replied,
        "judgments": [shard for part in sorted(judgments) for shard in judgments[part]],
        "ratings": parts(made.get("ratings", []), "ratings"),
        "pairs": parts(settled, "pairs"),
        "quarantine": [shard for one in made.values() for shard in parts(one, "quarantine")],
    }
    stored = {"tilth.protocol": json.dumps(asdict(protocol), sort_keys=True)}
    ranked = [read_part(shard) for shard in parts(made.get("rank_policies", []), "elo")]
    if ranked:
        stored["tilth.elo"] = json.dumps(pl.concat(ranked).to_dicts(), sort_keys=True)
    return Observation(tables, made, stored)
