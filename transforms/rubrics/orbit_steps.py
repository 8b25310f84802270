"""The steps of the recipe `orbit`, and the rollouts that rubrics are tried on: no rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.responses.candidates import ASKED as REPLIES_ASKED
from tilth.transforms.responses.candidates import Replying, replies_of, reply_requests
from tilth.transforms.rubrics.criteria import PROMPTS
from tilth.transforms.rubrics.orbit import ASKED, Retrieving, orbit_criteria, orbit_prompt, orbit_requests
from tilth.transforms.rubrics.retrieval import Retrieval, identity
from tilth.transforms.rubrics.rollouts import rollout_places
from tilth.transforms.rubrics.seeds import SEEDS, read_seeds
from tilth.transforms.stage import Output, Task, rows_of


@dataclass(frozen=True, slots=True)
class ReadSeeds:
    """Reads the seed pool. Writes `seeds`."""

    uri: str
    digest: str  # of the file, so that another file under the same name is read again
    scale: float = 1.0
    name: ClassVar[str] = "seeds"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task, without inputs."""
        del task
        seeds = read_seeds(self.uri, self.scale)
        out.write("seeds", seeds)
        out.count("seeds.cases", seeds.height)
        out.count("seeds.criteria", int(seeds.get_column("criteria").list.len().sum()))


@dataclass(frozen=True, slots=True)
class OrbitRequests:
    """Asks for criteria with similar cases in view. Inputs: `prompts`, all `seeds`. Writes `requests`, `asked`."""

    config: Retrieving = field(default_factory=Retrieving)
    retrieval: Retrieval = field(default_factory=Retrieval)
    retriever: str = (
        ""  # what the retrieval is in fact, `identity`: a model's folder may change under its name
    )
    prompt_digest: str = field(default_factory=lambda: orbit_prompt().digest)
    name: ClassVar[str] = "orbit_requests"
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "retriever", self.retriever or identity(self.retrieval))

    def run(self, task: Task, out: Output) -> None:
        """One task per part of prompts."""
        prompts, seeds = (
            rows_of(task, name, schema) for name, schema in (("prompts", PROMPTS), ("seeds", SEEDS))
        )
        write_questions(orbit_requests(prompts, seeds, self.config, self.retrieval), out)


@dataclass(frozen=True, slots=True)
class ReadOrbit:
    """Reads criteria. Inputs: `asked`, `completions`, `quarantine`. Writes `criteria`, `retrieved`, `quarantine`."""

    config: Retrieving = field(default_factory=Retrieving)
    name: ClassVar[str] = "read_orbit"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        read = orbit_criteria(rows_of(task, "asked", ASKED), completions, failed)
        out.write("criteria", read.kept)
        out.write("retrieved", read.retrieved)
        out.write("quarantine", read.dropped)
        sizes = read.kept.group_by("prompt_id").len().get_column("len")
        out.count("orbit.rubrics", sizes.len())
        out.count("orbit.rubrics_short", int((sizes < self.config.min_criteria).sum()))


@dataclass(frozen=True, slots=True)
class RolloutRequests:
    """Asks a policy for several replies to each prompt. Input: `prompts`. Writes `requests` and `asked`."""

    policy: str
    replying: Replying = field(default_factory=lambda: Replying(temperature=1.0))
    samples: int = 8
    seed: int = 0
    name: ClassVar[str] = "rollout_requests"
    version: ClassVar[str] = "1"

    @property
    def purpose(self) -> str:
        """What the stage is called."""
        return self.policy

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        places = rollout_places(_prompts(task)).kept
        write_questions(reply_requests(places, self.replying, None, self.samples, self.seed), out)


@dataclass(frozen=True, slots=True)
class ReadRollouts:
    """Reads what a policy replied.

    Inputs: `prompts`, `asked`, `completions`, `quarantine`. Writes `responses` of role `policy`, and `quarantine`: what
    is no usable reply, and prompts that no model can be asked.
    """

    policy: str
    model: str
    samples: int = 8
    name: ClassVar[str] = "read_rollouts"
    version: ClassVar[str] = "1"

    @property
    def purpose(self) -> str:
        """What the stage is called."""
        return self.policy

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        places, dropped = rollout_places(_prompts(task))
        asked = rows_of(task, "asked", REPLIES_ASKED)
        made, lost = replies_of(places, asked, completions, failed, "policy", self.model, guided=False)
        out.write("responses", made)
        out.write("quarantine", lost)
        out.write("quarantine", dropped)
        out.count("rollouts.wanted", places.height * self.samples)
        out.count("rollouts.replies", made.height)


def _prompts(task: Task) -> pl.DataFrame:
    return rows_of(task, "prompts", PROMPTS)
