"""The recipe `rationales`: why the chosen reply is better, in the user's words, by measured differences, by a model.

pairs -> rule rationales                              what users said, what can be measured
      -> [general] [specific] [judgment] [option]     what a model says, its quotes and wording checked
      -> [judge 1] [judge 2] ...                      a judge who sees only the rationale must find the label
      -> settle rationales -> rationales              samples voted on, ranked

In brackets: what a model is asked. Sources: RDPO (arXiv 2407.14477), CUT (2312.14591), PODA (2409.14495), MC-CoT
(2311.14109), PROFILE (2410.06965); where we differ is in docs/reference/rationales.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.pipelines.observed import Observation, Observed, agreement_property
from tilth.pipelines.planned import Planned
from tilth.pipelines.release import Parent, demand_no_model
from tilth.schemas import ConfigError
from tilth.schemas.labels import WRITTEN_KINDS
from tilth.transforms.judging.protocol import Panel, Protocol
from tilth.transforms.parts import Shard
from tilth.transforms.rationales.checks import Checks
from tilth.transforms.rationales.recovering import recovery_protocol
from tilth.transforms.rationales.steps import (
    RationaleRequests,
    ReadRationales,
    RecoverItems,
    RuleRationales,
    SettleRationales,
)
from tilth.transforms.rationales.written import Writing, written_prompt
from tilth.transforms.rubrics.steps import Sides
from tilth.transforms.stage import Manifest, outputs, parts

NAME: Final = "rationales"
# Tables of the release that the recipe reads are named after `parent`.
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "rationales": ("parent.pairs", "parent.rationales", "model"),
    "responses": ("parent.pairs",),
    "judgments": ("rationales", "judges"),
    "quarantine": ("parent.pairs", "rationales"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = frozenset[tuple[str, str]]()


@dataclass(frozen=True, slots=True)
class Rationales:
    """The recipe's configuration; the fields are the keys of section `rationales` in `tilth.yaml`.

    Args:
        seed: of what judges say.
        kinds: what a model is asked for, of general, specific, judgment and option; none for rules alone.
        writer: the role that writes.
        writing: how rationales are drawn, and how often each.
        checks: what is wrong with one.
        judging: who must find the label from a rationale alone.
    """

    seed: int = 0
    kinds: tuple[str, ...] = ("general", "specific")
    writer: str = "model"
    writing: Writing = field(default_factory=Writing)
    checks: Checks = field(default_factory=Checks)
    judging: Panel = field(default_factory=Panel)

    def __post_init__(self) -> None:
        unknown = set(self.kinds) - set(WRITTEN_KINDS)
        if unknown or len(set(self.kinds)) != len(self.kinds):
            found, wanted = ", ".join(self.kinds), f"some of {', '.join(WRITTEN_KINDS)}, none twice"
            raise ConfigError("kinds of rationales", found=found, wanted=wanted)


def without_model(config: Rationales) -> Rationales:
    """What is left where no model is named: what users said, and what can be measured.

    Raises `ConfigError` where a judge is named all the same.
    """
    demand_no_model(config.judging)
    return replace(config, kinds=())


def writers(config: Rationales) -> list[str]:
    """The roles that write rationales."""
    return [config.writer] if config.kinds else []


def judges(config: Rationales) -> list[str]:
    """The roles that must find the label."""
    return config.judging.names if config.kinds else []


def roles(config: Rationales) -> list[str]:
    """Whose answers the outcome rests on."""
    return list(dict.fromkeys([*writers(config), *judges(config)]))


def witnesses(config: Rationales) -> dict[str, str]:
    """What else the outcome rests on: digests of the prompts that are asked."""
    asked = [written_prompt(kind) for kind in config.kinds]
    known = [*asked, _protocol(config).prompt] if asked else []
    return {f"prompt {one.id}@{one.version}": one.digest for one in known}


def _protocol(config: Rationales) -> Protocol:
    return recovery_protocol(config.judging.judging(), config.seed)


def rationales(parent: Parent, _: Observed, config: Rationales, means: Means, __: float = 1.0) -> Observation:
    """Runs the recipe over the pairs of a release. Raises what asking a model raises; finished work is kept."""
    pairs = parent.by_part()
    complaints = parent.parts("rationales")
    ruled = means.run(
        RuleRationales(parent.name),
        {part: {**inputs, "complaints": complaints["rationales"]} for part, inputs in pairs.items()},
    )
    stages = {"rule_rationales": ruled}
    judgments: dict[str, tuple[Shard, ...]] = {}
    if config.kinds:
        stages["sides"] = means.run(Sides(), pairs)
        candidates = _written(stages, pairs, config, means)
        judgments = _recovered(stages, pairs, candidates, config, means)
    return _observation(stages, judgments, config)


def planned(parent: Parent, _: Observed, config: Rationales, means: Means, __: float = 1.0) -> list[Planned]:
    """What the run would ask: rationales exactly, judges as if every rationale were fit to be judged."""
    pairs = parent.by_part()
    asked = {kind: _requests(kind, pairs, config, means) for kind in config.kinds}
    written = [
        Planned(f"rationales-{kind}", config.writer, tuple(parts(list(made.values()), "requests")))
        for kind, made in asked.items()
    ]
    rows = sum(
        shard.rows * (2 if one.purpose.endswith("option") else 1) for one in written for shard in one.requests
    )
    return written + [
        Planned(
            purpose_of("recover", name),
            name,
            (),
            rows * 2 * config.judging.evidences,
            4_000,
            config.judging.answer_tokens,
        )
        for name in judges(config)
    ]


Stages = dict[str, dict[str, Manifest]]
"""What each stage made of each part, for the tables and counts of the run."""


def _requests(
    kind: str, pairs: Mapping[str, Inputs], config: Rationales, means: Means
) -> dict[str, Manifest]:
    return means.run(RationaleRequests(kind, config.writing), pairs)


def _written(
    stages: Stages, pairs: Mapping[str, Inputs], config: Rationales, means: Means
) -> dict[str, tuple[Shard, ...]]:
    """By part, the candidates of all kinds that no check found fault with."""
    candidates: dict[str, tuple[Shard, ...]] = dict.fromkeys(pairs, ())
    for kind in config.kinds:
        asked = _requests(kind, pairs, config, means)
        answers = means.answer(asked, f"rationales-{kind}", config.writer)
        told = {part: {**pairs[part], **answers[part]} for part in asked}
        stages[f"written.{kind}"] = read = means.run(
            ReadRationales(kind, config.writing, config.checks), told
        )
        for part, made in read.items():
            candidates[part] += tuple(made.outputs.get("candidates", ()))
    return candidates


def _recovered(
    stages: Stages,
    pairs: Mapping[str, Inputs],
    candidates: Mapping[str, tuple[Shard, ...]],
    config: Rationales,
    means: Means,
) -> dict[str, tuple[Shard, ...]]:
    """Asks judges who see nothing but a rationale, and settles. Returns what they said, by part."""
    told = {part: {**pairs[part], "candidates": shards} for part, shards in candidates.items() if shards}
    stages["recover_items"] = listed = means.run(RecoverItems(), told)
    protocol = _protocol(config)
    judged = judge(
        {part: outputs(made, "items") for part, made in listed.items()}, protocol, means, "recover"
    )
    known = {
        part: {**inputs, **outputs(listed[part], "links"), "judgments": judged[part]}
        for part, inputs in told.items()
    }
    stages["settle_rationales"] = means.run(SettleRationales(protocol), known)
    return judged


def _observation(
    stages: Stages, judgments: Mapping[str, tuple[Shard, ...]], config: Rationales
) -> Observation:
    made = {name: list(one.values()) for name, one in stages.items()}
    tables: dict[str, list[Shard]] = {
        table: [shard for one in made.values() for shard in parts(one, table)]
        for table in ("rationales", "responses", "quarantine")
    }
    tables["judgments"] = [shard for part in sorted(judgments) for shard in judgments[part]]
    stored = {"tilth.protocol": json.dumps(asdict(_protocol(config)), sort_keys=True)} if config.kinds else {}
    return Observation(
        {table: tables[table] for table in TABLES}, made, stored | agreement_property(made["rule_rationales"])
    )
