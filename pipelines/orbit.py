"""The recipe `orbit`: rubrics for unlabelled dialogues, from a few that experts wrote for similar ones.

pairs | conversations -> prompts
      -> [orbit]                    criteria, with the rubrics of similar cases in view
      -> merge criteria
      -> [rollouts]                 n replies of the policy
      -> grade -> [judge] ...       every reply by every criterion
      -> settle rubrics -> rubrics  prompts and criteria that would teach the policy nothing are dropped
      -> pair by rubric -> settle -> pairs

In brackets: what a model is asked. Source: InfiMed-ORBIT (arXiv 2510.15859); where we differ is in
docs/how-to/orbit.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tilth.pipelines import rubrics
from tilth.pipelines.judging import purpose_of
from tilth.pipelines.means import Inputs, Means
from tilth.pipelines.observed import Observation, Observed
from tilth.pipelines.planned import Planned
from tilth.pipelines.release import Parent
from tilth.pipelines.rubrics import Rubrics, Stages
from tilth.schemas import ConfigError
from tilth.transforms.inference.prompts import packaged_prompt
from tilth.transforms.judging.protocol import Panel
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.rating_steps import PromptPlaces, UniquePrompts
from tilth.transforms.responses.candidates import Replying
from tilth.transforms.responses.sampled import Which
from tilth.transforms.rubrics.merging import Merging
from tilth.transforms.rubrics.orbit import Retrieving
from tilth.transforms.rubrics.orbit_steps import OrbitRequests, ReadOrbit, ReadSeeds
from tilth.transforms.rubrics.passrates import PassRates
from tilth.transforms.rubrics.retrieval import Retrieval
from tilth.transforms.rubrics.seeds import digest_of
from tilth.transforms.rubrics.steps import MergeCriteria, PlacedPrompts
from tilth.transforms.stage import Manifest, outputs, parts

NAME: Final = "orbit"
LINEAGE: Final[Mapping[str, tuple[str, ...]]] = {
    "rubrics": ("parent.pairs", "parent.conversations", "seeds", "model"),
    "pairs": ("rubrics", "responses", "judgments"),
    "responses": ("parent.pairs", "policy"),
    "judgments": ("rubrics", "responses", "judges"),
    "quarantine": ("parent.pairs", "parent.conversations", "rubrics", "responses"),
}
TABLES: Final = tuple(LINEAGE)
PASSING: Final = rubrics.PASSING


@dataclass(frozen=True, slots=True)
class Orbit:
    """The recipe's configuration; the fields are the keys of section `orbit` in `tilth.yaml`.

    Args:
        seeds: a file of cases with rubrics, in HealthBench's form, or rows of the table `rubrics`.
        seed_scale: what their points are multiplied with: 10 for weights up to 1, as Tilth's own rubrics have.
        seed: of grades and of the policy's replies.
        prompts: of a dataset of conversations: which replies are asked for again: the first, the last or every one.
        writer: the role that writes criteria.
        retrieving: how many similar cases and criteria it is shown (Table 3).
        retrieval: how they are found.
        merging: when two criteria are one.
        policy: the model that is to be trained.
        samples: its replies to a prompt (n of section 3.3).
        replies: how they are drawn.
        pass_rates: which prompts and criteria are kept.
        judging: who grades.
        show_weight: whether judges see a criterion's weight.
        best_of_n: best against worst reply by score.
    """

    seeds: str = ""
    seed_scale: float = 1.0
    seed: int = 0
    prompts: Which = "last"
    writer: str = "model"
    retrieving: Retrieving = field(default_factory=Retrieving)
    retrieval: Retrieval = field(default_factory=Retrieval)
    merging: Merging = field(default_factory=Merging)
    policy: str = "policy"
    samples: int = 8
    replies: Replying = field(default_factory=lambda: Replying(temperature=1.0))
    pass_rates: PassRates = field(default_factory=PassRates)
    judging: Panel = field(default_factory=Panel)
    show_weight: bool = False
    best_of_n: BestOfN = field(default_factory=BestOfN)

    def graded(self) -> Rubrics:
        """How replies are drawn and graded, and what is kept, as the recipe `rubrics` is told it."""
        return Rubrics(
            seed=self.seed,
            sources=("model",),
            retrieval=self.retrieval,
            judging=self.judging,
            show_weight=self.show_weight,
            policy=self.policy,
            samples=self.samples,
            replies=self.replies,
            best_of_n=self.best_of_n,
        )


def writers(config: Orbit) -> list[str]:
    """The roles that write what is judged: criteria, and the policy's replies."""
    return [config.writer, config.policy]


def judges(config: Orbit) -> list[str]:
    """The roles that grade."""
    return rubrics.judges(config.graded())


def roles(config: Orbit) -> list[str]:
    """Whose answers the outcome rests on."""
    return list(dict.fromkeys([*writers(config), *judges(config)]))


def witnesses(config: Orbit) -> dict[str, str]:
    """What else the outcome rests on: the seeds, digests of the prompts that are asked, how cases are found.

    Raises `ConfigError` without seeds.
    """
    if not config.seeds:
        do = "write some cases in HealthBench's form, see docs/how-to/orbit.md; then --set orbit.seeds=FILE"
        raise ConfigError(
            "the recipe orbit starts from rubrics that experts wrote", found="orbit.seeds is empty", do=do
        )
    prompt = packaged_prompt("tilth.transforms.rubrics", "orbit")
    asked = {f"prompt {prompt.id}@{prompt.version}": prompt.digest, "seeds": digest_of(config.seeds)}
    grading = rubrics.witnesses(config.graded())
    return asked | {
        name: said for name, said in grading.items() if "criterion" in name or name == "retrieval"
    }


def orbit(parent: Parent, logs: Observed, config: Orbit, means: Means, _: float = 1.0) -> Observation:
    """Runs the recipe over pairs or conversations of a release. Raises what asking a model raises."""
    stages: Stages = {}
    prompts = _prompts(stages, parent, config, means)
    criteria = _criteria(stages, prompts, config, means)
    return rubrics.finish(stages, criteria, logs, config.graded(), means, config.pass_rates)


def _prompts(stages: Stages, parent: Parent, config: Orbit, means: Means) -> dict[str, Inputs]:
    """By part, `prompts`; of pairs also the `replies` and `sides`."""
    if parent.table == "pairs":
        return rubrics.sides(stages, parent, means)
    found = means.run(PromptPlaces(config.prompts), parent.by_part())
    places = {part: outputs(made, "places") for part, made in found.items() if "places" in made.outputs}
    every = tuple(parts(list(found.values()), "places"))
    if not every:
        return {}
    unique = means.run(UniquePrompts(), {"000000": {"places": every}})
    kept = outputs(unique["000000"], "kept")
    step = PlacedPrompts(parent.name)
    stages["placed_prompts"] = placed = means.run(
        step, {part: {**one, **kept} for part, one in places.items()}
    )
    return {part: outputs(made, "prompts") for part, made in placed.items() if "prompts" in made.outputs}


def _requests(prompts: Mapping[str, Inputs], config: Orbit, means: Means) -> dict[str, Manifest]:
    read = means.run(ReadSeeds(config.seeds, digest_of(config.seeds), config.seed_scale), {"000000": {}})
    seeds = outputs(read["000000"], "seeds")
    step = OrbitRequests(config.retrieving, config.retrieval)
    return means.run(step, {part: {**inputs, **seeds} for part, inputs in prompts.items()})


def _criteria(
    stages: Stages, prompts: Mapping[str, Inputs], config: Orbit, means: Means
) -> dict[str, Inputs]:
    """By part, its prompts, and the criteria that a model wrote for them."""
    asked = _requests(prompts, config, means)
    answers = means.answer(asked, "orbit", config.writer)
    told = {part: {**prompts[part], **answers[part]} for part in asked}
    read = stages["read_orbit"] = means.run(ReadOrbit(config.retrieving), told)
    merged = stages["merge_criteria"] = means.run(
        MergeCriteria(config.merging), {part: outputs(made, "criteria") for part, made in read.items()}
    )
    return {
        part: {**prompts[part], **outputs(made, "criteria"), **outputs(read[part], "retrieved")}
        for part, made in merged.items()
    }


def planned(parent: Parent, _: Observed, config: Orbit, means: Means, __: float = 1.0) -> list[Planned]:
    """What the run would ask: criteria exactly, grades as if each rubric had as many criteria as the paper's (12)."""
    prompts = _prompts({}, parent, config, means)
    asked = tuple(parts(list(_requests(prompts, config, means).values()), "requests"))
    count = sum(shard.rows for inputs in prompts.values() for shard in inputs["prompts"])
    sampled = count * config.samples
    grades = sampled * _CRITERIA * config.judging.evidences
    return [
        Planned("orbit", config.writer, asked),
        Planned("rollouts", config.policy, (), sampled, 2_000, config.replies.answer_tokens),
        *(
            Planned(purpose_of("grade", name), name, (), grades, 3_000, config.judging.answer_tokens)
            for name in judges(config)
        ),
    ]


_CRITERIA: Final = 12  # of a case on average (25,020 / 2,082)
