"""The recipe `rubrics`: what a good reply must do, from users' complaints, from pairs, from the prompt itself.

pairs -> sides                                          prompts, and the replies that are graded
      -> [constraints] [complaints] [preferences]       criteria by rules
      -> [contrast] [model]                             criteria by a model
      -> merge criteria -> [policy]                     replies of the model that is to be trained, if one is named
      -> grade -> [judge 1] [judge 2] ...               programs where a program can check, judges elsewhere
      -> settle rubrics -> rubrics                      measured; what everybody meets or nobody does is dropped
      -> pair by rubric -> settle -> pairs              best against worst reply of the policy

Sources: OpenRubrics (arXiv 2510.07743), Rubrics as Rewards (2507.17746), RubricHub (2601.08430), HealthBench
(2505.08775); where we differ is in docs/reference/rubrics.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.pipelines.observed import Observation, Observed, settle
from tilth.pipelines.planned import Planned
from tilth.pipelines.release import Parent, demand_no_model
from tilth.schemas import ConfigError
from tilth.transforms.judging.protocol import Panel, Protocol
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.parts import Shard
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.rubrics.complaints import Complaining
from tilth.transforms.rubrics.distilled import Distilled
from tilth.transforms.rubrics.grading import grading_protocol
from tilth.transforms.rubrics.merging import Merging
from tilth.transforms.rubrics.orbit_steps import ReadRollouts, RolloutRequests
from tilth.transforms.rubrics.passrates import PassRates
from tilth.transforms.rubrics.quality import Filters
from tilth.transforms.rubrics.retrieval import Retrieval, identity
from tilth.transforms.rubrics.steps import (
    CriteriaRequests,
    GatherComplaints,
    GradeItems,
    MergeCriteria,
    PairByRubric,
    ReadCriteria,
    RuleCriteria,
    SettleRubrics,
    Sides,
)
from tilth.transforms.rubrics.written import WritingCriteria, written_prompt
from tilth.transforms.stage import Manifest, outputs, parts

NAME: Final = "rubrics"
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "rubrics": ("parent.pairs", "parent.feedback", "parent.conversations", "parent.preferences", "model"),
    "pairs": ("rubrics", "responses", "judgments"),
    "responses": ("parent.pairs", "policy"),
    "judgments": ("rubrics", "responses", "judges"),
    "quarantine": ("parent.pairs", "rubrics", "responses"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = frozenset(
    {("judgments", "judgments")}
)  # `settle_rubrics` says which criterion each is about
BY_RULE: Final = ("constraints", "complaints", "preferences")
BY_MODEL: Final = ("contrast", "model")


@dataclass(frozen=True, slots=True)
class Rubrics:
    """The recipe's configuration; the fields are the keys of section `rubrics` in `tilth.yaml`.

    Args:
        seed: of grades and of the policy's replies.
        sources: where criteria come from: constraints of the request (rules), users' complaints, users' preferences,
            contrast of the two replies of a pair (a model), the prompt alone (`model`).
        writer: the role that writes criteria.
        writing: how many, and what importance weighs.
        complaining: which complaints count.
        distilled: how complaints about similar prompts become criteria.
        retrieval: how similar prompts are found.
        merging: when two criteria are one.
        judging: who grades what no program can check; no judge where there is no model.
        show_weight: whether judges see a criterion's weight (HealthBench shows it; a judge may lean on the sign).
        filters: which criteria and rubrics are dropped.
        policy: the model that is to be trained; empty for no replies of its own.
        samples: replies of the policy to a prompt.
        replies: how they are drawn.
        best_of_n: best against worst of them by score.
    """

    seed: int = 0
    sources: tuple[str, ...] = (*BY_RULE, "contrast")
    writer: str = "model"
    writing: WritingCriteria = field(default_factory=WritingCriteria)
    complaining: Complaining = field(default_factory=Complaining)
    distilled: Distilled = field(default_factory=Distilled)
    retrieval: Retrieval = field(default_factory=Retrieval)
    merging: Merging = field(default_factory=Merging)
    judging: Panel = field(default_factory=Panel)
    show_weight: bool = False
    filters: Filters = field(default_factory=Filters)
    policy: str = ""
    samples: int = 4
    replies: Replying = field(default_factory=lambda: Replying(temperature=1.0))
    best_of_n: BestOfN = field(default_factory=BestOfN)

    def __post_init__(self) -> None:
        unknown = set(self.sources) - {*BY_RULE, *BY_MODEL}
        if unknown or not self.sources or len(set(self.sources)) != len(self.sources):
            found, wanted = ", ".join(self.sources) or "none", f"some of {', '.join((*BY_RULE, *BY_MODEL))}"
            raise ConfigError("sources of criteria", found=found, wanted=f"{wanted}, none twice")
        if self.policy and self.samples < 2:
            raise ConfigError("samples of the policy", found=self.samples, wanted="2 or more")


def without_model(config: Rubrics) -> Rubrics:
    """What is left where no model is named: criteria by rules, graded by programs.

    Raises `ConfigError` where a policy or a judge is named all the same.
    """
    demand_no_model(config.judging, config.policy)
    by_rule = tuple(source for source in config.sources if source in BY_RULE) or BY_RULE
    return replace(config, sources=by_rule, policy="", judging=NO_JUDGES)


NO_JUDGES: Final = Panel(judges=())


def _written(config: Rubrics) -> list[str]:
    return [source for source in config.sources if source in BY_MODEL]


def writers(config: Rubrics) -> list[str]:
    """The roles that write what is judged: criteria, and the policy's replies."""
    return [*([config.writer] if _written(config) else []), *([config.policy] if config.policy else [])]


def judges(config: Rubrics) -> list[str]:
    """The roles that grade."""
    return config.judging.names


def roles(config: Rubrics) -> list[str]:
    """Whose answers the outcome rests on."""
    return list(dict.fromkeys([*writers(config), *judges(config)]))


def witnesses(config: Rubrics) -> dict[str, str]:
    """What else the outcome rests on: digests of the prompts that are asked."""
    prompts = [written_prompt(source) for source in _written(config)]
    if config.judging.judges:
        prompts.append(_protocol(config).prompt)
    return {f"prompt {one.id}@{one.version}": one.digest for one in prompts} | {
        "retrieval": identity(config.retrieval)
    }


def _protocol(config: Rubrics) -> Protocol:
    return grading_protocol(config.judging.judging(), show_weight=config.show_weight, seed=config.seed)


Stages = dict[str, dict[str, Manifest]]
"""What each stage made of each part, for the tables and counts of the run."""


def rubrics(parent: Parent, logs: Observed, config: Rubrics, means: Means, _: float = 1.0) -> Observation:
    """Runs the recipe over the pairs of a release. Raises what asking a model raises; finished work is kept."""
    stages: Stages = {}
    prompts = sides(stages, parent, means)
    complaints = _complaints(stages, parent, config, means)
    criteria = _criteria(stages, parent, prompts, complaints, config, means)
    return finish(stages, criteria, logs, config, means)


def finish(
    stages: Stages,
    criteria: Mapping[str, Inputs],
    logs: Observed,
    config: Rubrics,
    means: Means,
    pass_rates: PassRates | None = None,
) -> Observation:
    """From criteria, by part beside their prompts, to the tables: replies, grades, rubrics, pairs.

    With `pass_rates`, what would teach the policy something decides which criteria stay, else `config.filters` do.
    """
    sampled = _rollouts(stages, criteria, config, means) if config.policy else {}
    judged = _judged(stages, criteria, sampled, config, means)
    voiced = tuple(parts(list(stages.get("complaints", {}).values()), "voiced"))
    told = {part: {**inputs, "voiced": voiced} for part, inputs in judged.items()}
    settled = stages["settle_rubrics"] = means.run(SettleRubrics(config.filters, pass_rates), told)
    candidates = _paired(stages, settled, sampled, config, means) if config.policy else []
    rows = sum(shard.rows for shard in parts(candidates, "candidate_pairs"))
    made = settle(candidates, replace(logs, seed=config.seed), rows, means.conduct) if rows else []
    return _observation(stages, made, config)


def sides(stages: Stages, parent: Parent, means: Means) -> dict[str, Inputs]:
    """By part, the `pairs` of a release with their `prompts`, `replies` and `sides`."""
    pairs = parent.by_part()
    stages["sides"] = taken = means.run(Sides(parent.name), pairs)
    return {
        part: {**pairs[part], **outputs(made, "prompts", "replies", "sides")} for part, made in taken.items()
    }


def _complaints(stages: Stages, parent: Parent, config: Rubrics, means: Means) -> tuple[Shard, ...]:
    """Everything that users of the release complained about in words."""
    logged = parent.parts("conversations", "feedback")
    if "complaints" not in config.sources or not logged["feedback"]:
        return ()
    tasks = {
        f"{n:06d}": {"conversations": (shard,), "feedback": logged["feedback"]}
        for n, shard in enumerate(logged["conversations"])
    }
    stages["complaints"] = found = means.run(GatherComplaints(config.complaining), tasks)
    return tuple(parts(list(found.values()), "complaints"))


def _criteria(
    stages: Stages,
    parent: Parent,
    prompts: Mapping[str, Inputs],
    complaints: tuple[Shard, ...],
    config: Rubrics,
    means: Means,
) -> dict[str, Inputs]:
    """By part, what `_sides` found and the criteria of all sources, each once."""
    known = {"complaints": complaints, **parent.parts("preferences")}
    by_rule = RuleCriteria(config.sources, config.distilled, config.retrieval)
    stages["rule_criteria"] = means.run(
        by_rule, {part: {**inputs, **known} for part, inputs in prompts.items()}
    )
    for source in _written(config):
        asked = _requests(source, prompts, config, means)
        answers = means.answer(asked, f"criteria-{source}", config.writer)
        told = {part: {**prompts[part], **answers[part]} for part in asked}
        stages[f"criteria.{source}"] = means.run(ReadCriteria(source, config.writing), told)
    found = [made for name, made in stages.items() if name == "rule_criteria" or name.startswith("criteria.")]
    every = {part: tuple(parts([made[part] for made in found], "criteria")) for part in prompts}
    stages["merge_criteria"] = one = means.run(
        MergeCriteria(config.merging), {part: {"criteria": shards} for part, shards in every.items()}
    )
    return {part: {**prompts[part], **outputs(made, "criteria")} for part, made in one.items()}


def _requests(
    source: str, prompts: Mapping[str, Inputs], config: Rubrics, means: Means
) -> dict[str, Manifest]:
    return means.run(CriteriaRequests(source, config.writing), prompts)


def _rollouts(
    stages: Stages, criteria: Mapping[str, Inputs], config: Rubrics, means: Means
) -> dict[str, tuple[Shard, ...]]:
    """By part, replies of the policy to prompts."""
    asked = means.run(RolloutRequests(config.policy, config.replies, config.samples, config.seed), criteria)
    answers = means.answer(asked, "rollouts", config.policy)
    model = means.ask("rollouts", config.policy).identity
    told = {part: {**criteria[part], **answers[part]} for part in asked}
    stages["rollouts"] = read = means.run(ReadRollouts(config.policy, model, config.samples), told)
    return {part: tuple(made.outputs.get("responses", ())) for part, made in read.items()}


def _judged(
    stages: Stages,
    criteria: Mapping[str, Inputs],
    sampled: Mapping[str, tuple[Shard, ...]],
    config: Rubrics,
    means: Means,
) -> dict[str, Inputs]:
    """By part, what is known there and what programs and judges say of every reply by every criterion."""
    given = {part: {**inputs, "responses": sampled.get(part, ())} for part, inputs in criteria.items()}
    stages["grade_items"] = items = means.run(GradeItems(config.show_weight), given)
    asked = {part: outputs(made, "items") for part, made in items.items()}
    judged = judge(asked, _protocol(config), means, "grade") if config.judging.judges else {}
    return {
        part: {**inputs, **outputs(items[part], "links", "grades"), "judgments": judged.get(part, ())}
        for part, inputs in given.items()
    }


def _paired(
    stages: Stages,
    settled: Mapping[str, Manifest],
    sampled: Mapping[str, tuple[Shard, ...]],
    config: Rubrics,
    means: Means,
) -> list[Manifest]:
    """Best against worst reply of the policy to each prompt that has a rubric."""
    told = {
        part: {**outputs(made, "scores", "judgments"), "responses": sampled.get(part, ())}
        for part, made in settled.items()
    }
    stages["pair_by_rubric"] = made = means.run(PairByRubric(config.best_of_n), told)
    return list(made.values())


def _observation(stages: Stages, settled: Sequence[Manifest], config: Rubrics) -> Observation:
    """The tables of the release; what is not there is empty."""
    made = {name: list(one.values()) for name, one in stages.items()} | {"settle": list(settled)}
    homes = {"rubrics": ["settle_rubrics"], "judgments": ["settle_rubrics"], "pairs": ["settle"]}
    homes |= {"responses": ["sides", "rollouts"], "quarantine": list(made)}
    tables = {
        table: [shard for home in homes[table] for shard in parts(made.get(home, []), table)]
        for table in TABLES
    }
    stored = {"tilth.retrieval": identity(config.retrieval)}
    if config.judging.judges:
        stored["tilth.protocol"] = json.dumps(asdict(_protocol(config)), sort_keys=True)
    return Observation(tables, made, stored)


def planned(parent: Parent, _: Observed, config: Rubrics, means: Means, __: float = 1.0) -> list[Planned]:
    """What the run would ask: criteria exactly; grades as if every criterion that may be written had a judge."""
    prompts = sides({}, parent, means)
    written = [
        Planned(
            f"criteria-{source}",
            config.writer,
            tuple(parts(list(_requests(source, prompts, config, means).values()), "requests")),
        )
        for source in _written(config)
    ]
    count, replies = (_rows(prompts, name) for name in ("prompts", "replies"))
    sampled = count * config.samples if config.policy else 0
    limit = config.replies.answer_tokens
    policy = [Planned("rollouts", config.policy, (), sampled, 2_000, limit)] if config.policy else []
    grades = (replies + sampled) * config.writing.max_criteria * config.judging.evidences
    return [
        *written,
        *policy,
        *(
            Planned(purpose_of("grade", name), name, (), grades, 3_000, config.judging.answer_tokens)
            for name in judges(config)
        ),
    ]


def _rows(prompts: Mapping[str, Inputs], name: str) -> int:
    return sum(shard.rows for inputs in prompts.values() for shard in inputs[name])
