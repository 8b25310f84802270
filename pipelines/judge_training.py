"""The recipe `judge_training`: pairs of judgments, right over wrong, to train a judge on.

pairs -> label items -> [judge], several times in both orders -> judgments
      -> judge training -> settle -> pairs                      right over wrong, by label or by majority

In brackets: what a model is asked. Source: Self-Rationalization (arXiv 2410.05495), for which no code was released;
where we differ is in docs/reference/rationales.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from tilth.pipelines.judging import judge, purpose_of
from tilth.pipelines.means import Means
from tilth.pipelines.observed import Observation, Observed, settle
from tilth.pipelines.planned import Planned
from tilth.pipelines.release import Parent
from tilth.schemas import ConfigError
from tilth.transforms.judging.curation import Curation
from tilth.transforms.judging.curation_steps import JudgeTraining, LabelItems
from tilth.transforms.judging.protocol import Panel, Protocol
from tilth.transforms.judging.steps import JudgeRequests
from tilth.transforms.rubrics.steps import Sides
from tilth.transforms.stage import Manifest, outputs, parts

NAME: Final = "judge_training"
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "pairs": ("judgments",),
    "responses": ("parent.pairs",),
    "judgments": ("parent.pairs", "judges"),
    "quarantine": ("parent.pairs", "judgments"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = frozenset[tuple[str, str]]()


@dataclass(frozen=True, slots=True)
class JudgeTrainingConfig:
    """The recipe's configuration; the fields are the keys of section `judge_training` in `tilth.yaml`.

    Args:
        seed: of samples.
        judging: who judges, and how often: the paper draws N judgments at temperature 1 and does not say how many.
        curation: which judgments are right, and how far apart a pair must be.
    """

    seed: int = 0
    judging: Panel = field(default_factory=lambda: Panel(evidences=5, temperature=1.0))
    curation: Curation = field(default_factory=Curation)

    def __post_init__(self) -> None:
        if self.judging.evidences < 2:
            raise ConfigError("samples of a judge", found=self.judging.evidences, wanted="2 or more")


def judges(config: JudgeTrainingConfig) -> list[str]:
    """The roles that judge."""
    return config.judging.names


def witnesses(config: JudgeTrainingConfig) -> dict[str, str]:
    """What else the outcome rests on: the digest of the prompt that judges are asked."""
    prompt = _protocol(config).prompt
    return {f"prompt {prompt.id}@{prompt.version}": prompt.digest}


def _protocol(config: JudgeTrainingConfig) -> Protocol:
    return config.judging.judging().pairwise(config.seed)


def judge_training(
    parent: Parent, logs: Observed, config: JudgeTrainingConfig, means: Means, _: float = 1.0
) -> Observation:
    """Runs the recipe over the pairs of a release. Raises what asking a model raises; finished work is kept."""
    protocol, pairs = _protocol(config), parent.by_part()
    stages: dict[str, dict[str, Manifest]] = {"sides": means.run(Sides(parent.name), pairs)}
    stages["label_items"] = listed = means.run(LabelItems(), pairs)
    items = {part: outputs(made, "items") for part, made in listed.items()}
    judged = judge(items, protocol, means)
    rendered = means.run(JudgeRequests(protocol), {part: one for part, one in items.items() if one["items"]})
    told = {
        part: {**items[part], **outputs(made, "requests", "asked"), "judgments": judged[part]}
        for part, made in rendered.items()
    }
    stages["judge_training"] = curated = means.run(JudgeTraining(protocol, config.curation), told)
    settled = settle(list(curated.values()), replace(logs, seed=config.seed), len(curated), means.conduct)
    made = {name: list(one.values()) for name, one in stages.items()} | {"settle": settled}
    tables = {
        "pairs": parts(settled, "pairs"),
        "responses": parts(made["sides"], "responses"),
        "judgments": [shard for part in sorted(judged) for shard in judged[part]],
        "quarantine": [shard for one in made.values() for shard in parts(one, "quarantine")],
    }
    stored = {"tilth.protocol": json.dumps(asdict(protocol), sort_keys=True)}
    return Observation(tables, made, stored)


def planned(
    parent: Parent, _: Observed, config: JudgeTrainingConfig, means: Means, __: float = 1.0
) -> list[Planned]:
    """What the run would ask, exactly."""
    listed = means.run(LabelItems(), parent.by_part())
    items = {part: outputs(made, "items") for part, made in listed.items()}
    rendered = means.run(
        JudgeRequests(_protocol(config)), {part: one for part, one in items.items() if one["items"]}
    )
    asked = tuple(parts(list(rendered.values()), "requests"))
    return [Planned(purpose_of("judge", name), name, asked) for name in judges(config)]
