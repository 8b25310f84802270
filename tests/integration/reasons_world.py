"""What tests of the recipes over datasets share: an `observed` release of own logs, running from it, reading it."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from loopback import Loopback
from loopback.sensible import quality
from tilth.catalog import AuditReport, Version, audit, audit_version, open_catalog, releases_behind
from tilth.flows.conductor import Conductor
from tilth.flows.preview import preview
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.transforms.parts import write_part

MISTAKES: Final = ("position", "invent", "swap", "copy", "empty")
EACH: Final = 2  # pairs in which the writer makes each mistake
MISJUDGED: Final = 3  # pairs whose chosen reply the marks of quality speak against
USERS: Final = 36
HELD_OUT: Final = {"validation": 0.25, "test": 0.25}
THINGS: Final = ("kettle", "ladder", "lantern", "anvil", "saddle", "barrel", "trellis")
LEFT_OUT: Final = ("the glue", "the seal", "the right screws")
SEEDS: Final = str(Path(__file__).resolve().parents[2] / "samples" / "rubrics" / "seeds.jsonl")
STANDARD: Final[Mapping[str, dict[str, Any]]] = {
    "rationales": {"kinds": ["general", "specific", "judgment", "option"]},
    "rubrics": {
        "sources": ["constraints", "complaints", "preferences", "contrast", "model"],
        "policy": "policy-1",
        "samples": 3,
    },
    "orbit": {"seeds": SEEDS, "policy": "policy-2", "samples": 3, "judging": {"judges": ["lenient"]}},
    "judge_training": {"judging": {"judges": ["hasty"]}},
}
"""What each recipe is told in the run that most tests look at."""
HABITS: Final[Mapping[str, Mapping[str, float]]] = {
    "orbit": {"position_bias": 0.3},  # grades that differ between replies
    "judge_training": {"position_bias": 0.3},  # judgments that are wrong
}
QUICK: Final = {
    "patience": {"attempts": 2, "backoff_s": 0.01, "max_backoff_s": 0.02},
    "max_failure_share": 1.0,
}


def write_log(path: Path) -> str:
    """A conversation each of so many users, who complain of the first reply in words and are content with the second.

    Requests hold a limit of words, which the second reply keeps and the first does not. Replies are marked with their
    quality, and some first replies with a mistake that a model makes about them (`loopback.sensible_rationales`).
    """
    path.write_text("".join(json.dumps(_conversation(n)) + "\n" for n in range(USERS)))
    return str(path)


def _conversation(number: int) -> dict[str, Any]:
    thing, missing = THINGS[number % len(THINGS)], LEFT_OUT[number % len(LEFT_OUT)]
    marks = [f"[write={mistake}]" for mistake in MISTAKES for _ in range(EACH)]
    mark = marks[number] if number < len(marks) else ""
    weak, good = (7, 3) if len(marks) <= number < len(marks) + MISJUDGED else (2, 8)
    said = (
        f"How do I repair a {thing} of size {number}? Answer in at most 20 words.",
        f"People have owned things like a {thing} for a very long time and in many places, and painters loved them so "
        f"well that number {number} hangs in a museum today. [q={weak}] {mark}",
        f"No, that's wrong. You left out {missing} for user {number}.",
        f"Unscrew plate {number}, warm {missing}, press the {thing} together, wait. [q={good}]",
        "perfect, that is exactly what I needed, thank you",
    )
    turns = [{"role": ("user", "assistant")[at % 2], "content": one.strip()} for at, one in enumerate(said)]
    return {"id": f"own-{number}", "user": f"user {number}", "messages": turns}


@dataclass(frozen=True)
class Made:
    """A run, and the tables that it committed."""

    workspace: Path
    result: RunResult

    def table(self, name: str) -> pl.DataFrame:
        """The rows of one of its tables."""
        return _frame(self.workspace, self._dataset(name))

    def audits(self) -> dict[str, AuditReport]:
        """Each of its tables audited again, with its parents at hand."""
        with open_catalog(str(self.workspace), create=False) as catalog:
            return {
                one.name: audit_version(catalog, f"{one.name}@{one.version}") for one in self.result.datasets
            }

    def version(self, name: str) -> Version:
        """A table as the catalog knows it."""
        with open_catalog(str(self.workspace), create=False) as catalog:
            return catalog.resolve(self._dataset(name))

    def audit_in_place_of(self, name: str, rows: pl.DataFrame, file: Path) -> dict[str, Any]:
        """The figures that fail, of an audit in which these rows stand in place of a table's."""
        write_part(rows, str(file), name)
        with open_catalog(str(self.workspace), create=False) as catalog:
            own, *parents = releases_behind(catalog, catalog.resolve(self._dataset(name)))
        report = audit({**own, name: [str(file)]}, (name,), parents)
        return {check.column: check.observed for check in report.failed_critical}

    def stage(self, title: str, name: str) -> pl.DataFrame:
        """What a stage made of a table or intermediate; of a run that keeps its stages."""
        folder = self.workspace / "runs" / self.result.run_id / "stages" / title / "done"
        done = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        assert done, f"no stage {title}"
        frames = [pl.read_parquet(one["uri"]) for made in done for one in made["outputs"].get(name, ())]
        return pl.concat(frames) if frames else pl.DataFrame()

    def _dataset(self, name: str) -> str:
        known = {one.name.partition(".")[2]: f"{one.name}@{one.version}" for one in self.result.datasets}
        return known[name]


def _frame(workspace: Path, name: str) -> pl.DataFrame:
    with open_catalog(str(workspace), create=False) as catalog:
        return catalog.frame(name).collect()


@dataclass(frozen=True)
class Told:
    """A run on the standard settings, and what the dry run said before it."""

    made: Made
    forecast: dict[str, Any]
    received: int  # calls of the dry run


@dataclass(frozen=True)
class Released:
    """A workspace with an `observed` release."""

    workspace: Path
    observed: Made
    told: dict[str, Told] = field(default_factory=dict)

    def standard(self, recipe: str, server: Loopback) -> Told:
        """The run on the standard settings, made when it is first asked for. Its stages are kept."""
        if recipe not in self.told:
            with habits(server, **HABITS.get(recipe, {})):
                before = server.stats()["received"]
                seen = self.preview(recipe, server, **STANDARD[recipe])
                received = server.stats()["received"] - before
                made = self.run(recipe, server, {"keep_stages": True}, **STANDARD[recipe])
            self.told[recipe] = Told(made, seen, received)
        return self.told[recipe]

    def table(self, name: str) -> pl.DataFrame:
        """The rows of one of the release's tables."""
        return self.observed.table(name)

    def options(self, recipe: str, server: Loopback | None, **section: Any) -> dict[str, Any]:
        """Settings of a run over its pairs; without a server, of a run without a model."""
        asked = {} if server is None else {"engine": engine(server)}
        own = {recipe: section} if section else {}
        return {"dataset": "observed.pairs", "workspace": str(self.workspace), **asked, **own}

    def run(
        self, recipe: str, server: Loopback | None, options: Mapping[str, Any] = {}, **section: Any
    ) -> Made:
        """One run over its pairs, conducted directly."""
        settings = load(options={**self.options(recipe, server, **section), **options})
        return Made(self.workspace, run(recipe, settings, Conductor()))

    def preview(self, recipe: str, server: Loopback | None, **section: Any) -> dict[str, Any]:
        """What the run would ask."""
        return preview(recipe, load(options=self.options(recipe, server, **section)), Conductor())


@contextlib.contextmanager
def habits(server: Loopback, **changed: float) -> Generator[None]:
    """The server behaves so for the time of the block, and as it should after it."""
    server.control(**changed)
    try:
        yield
    finally:
        server.control(**dict.fromkeys(changed, 0.0))


def engine(server: Loopback, model: str = "writer-1") -> dict[str, Any]:
    """The scripted server as every role's engine."""
    return {"kind": "openai", "model": model, "base_urls": [server.url]}


@functools.cache
def release(base: Path) -> Released:
    """The release, made once under a folder."""
    workspace = base / "reasons"
    workspace.mkdir()
    return Released(workspace, observe(workspace))


def observe(workspace: Path, **section: Any) -> Made:
    """Runs the recipe `observed` on the log."""
    options = {
        "sources": [write_log(workspace / "log.jsonl")],
        "workspace": str(workspace),
        "observed": {"splits": HELD_OUT, **section},
    }
    return Made(workspace, run("observed", load(options=options), Conductor()))


# Reading


def text(messages: Sequence[Mapping[str, str]]) -> str:
    """What a reply says."""
    return "\n".join(message["content"] for message in messages)


def calls(made: Made) -> dict[str, int]:
    """How often a model was asked in this sitting, by purpose; those that were not asked are left out."""
    purposes: Mapping[str, Mapping[str, Any]] = made.result.usage["purposes"]
    return {purpose: used["calls"] for purpose, used in purposes.items() if used["calls"]}


def mistake_of(pair: Mapping[str, Any]) -> str | None:
    """The mistake that a writer makes about a pair, by the mark of its rejected reply."""
    said = text(pair["rejected"])
    return next((one for one in MISTAKES if f"[write={one}]" in said), None)


def marks_agree(pair: Mapping[str, Any]) -> bool:
    """Whether the marks of quality say what the label says."""
    chosen, rejected = (quality(text(pair[side])) or 0 for side in ("chosen", "rejected"))
    return chosen > rejected
