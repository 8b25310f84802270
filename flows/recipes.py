"""The recipes that `tilth run` knows: what each needs and makes. Collisions of names are errors of this dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final  # Any: each recipe's own configuration

from tilth.pipelines import judge_training, observed, orbit, rationales, rubrics, ultrafeedback, wildfeedback
from tilth.pipelines.means import Means
from tilth.pipelines.observed import Observation, Observed
from tilth.pipelines.planned import Planned

Run = Callable[[Any, Observed, Any, Means, float], Observation]
Plan = Callable[[Any, Observed, Any, Means, float], list[Planned]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as flows see it.

    Args:
        lineage: the tables that it commits, in one release, and what the rows of each were made from.
        run: planned reads (or the `Parent`, of a recipe over the catalog), the section `observed`, the recipe's own
            section, means, the largest share set aside.
        tables: of which table the dataset is that it reads; none for a recipe over logs.
        roles: which models it asks, by its own section; none for a recipe without a model.
        writers: those of the roles that write replies.
        judges: those that judge them.
        witnesses: digests of what else the outcome rests on (prompts, files), by its own section.
        planned: what it would ask, taking what `run` takes.
        passing: (step, table) whose rows a later step makes final.
        without_model: its own section as it is run where no model is named; null where it needs one, or asks none.
    """

    lineage: Mapping[str, tuple[str, ...]]
    run: Run
    tables: tuple[str, ...] = ()
    roles: Callable[[Any], Sequence[str]] = lambda _: ()
    writers: Callable[[Any], Sequence[str]] = lambda _: ()
    judges: Callable[[Any], Sequence[str]] = lambda _: ()
    witnesses: Callable[[Any], Mapping[str, str]] = lambda _: {}
    planned: Plan = lambda *_: []
    passing: frozenset[tuple[str, str]] = frozenset({("ingest", "conversations")})
    without_model: Callable[[Any], Any] | None = None


def _observed(
    reads: Sequence[Mapping[str, Any]], logs: Observed, _: Any, means: Means, share: float
) -> Observation:
    return observed.observe(reads, logs, means, share)


RECIPES: Final[Mapping[str, Recipe]] = {
    observed.NAME: Recipe(observed.LINEAGE, _observed),
    wildfeedback.NAME: Recipe(
        wildfeedback.LINEAGE,
        wildfeedback.wildfeedback,
        roles=wildfeedback.roles,
        writers=wildfeedback.writers,
        judges=wildfeedback.judges,
        witnesses=wildfeedback.witnesses,
        planned=wildfeedback.planned,
        passing=wildfeedback.PASSING,
    ),
    ultrafeedback.NAME: Recipe(
        ultrafeedback.LINEAGE,
        ultrafeedback.ultrafeedback,
        roles=ultrafeedback.roles,
        writers=ultrafeedback.writers,
        judges=ultrafeedback.judges,
        witnesses=ultrafeedback.witnesses,
        planned=ultrafeedback.planned,
        passing=ultrafeedback.PASSING,
    ),
    rationales.NAME: Recipe(
        rationales.LINEAGE,
        rationales.rationales,
        tables=("pairs",),
        roles=rationales.roles,
        writers=rationales.writers,
        judges=rationales.judges,
        witnesses=rationales.witnesses,
        planned=rationales.planned,
        passing=rationales.PASSING,
        without_model=rationales.without_model,
    ),
    rubrics.NAME: Recipe(
        rubrics.LINEAGE,
        rubrics.rubrics,
        tables=("pairs",),
        roles=rubrics.roles,
        writers=rubrics.writers,
        judges=rubrics.judges,
        witnesses=rubrics.witnesses,
        planned=rubrics.planned,
        passing=rubrics.PASSING,
        without_model=rubrics.without_model,
    ),
    orbit.NAME: Recipe(
        orbit.LINEAGE,
        orbit.orbit,
        tables=("pairs", "conversations"),
        roles=orbit.roles,
        writers=orbit.writers,
        judges=orbit.judges,
        witnesses=orbit.witnesses,
        planned=orbit.planned,
        passing=orbit.PASSING,
    ),
    judge_training.NAME: Recipe(
        judge_training.LINEAGE,
        judge_training.judge_training,
        tables=("pairs",),
        roles=judge_training.judges,
        judges=judge_training.judges,
        witnesses=judge_training.witnesses,
        planned=judge_training.planned,
        passing=judge_training.PASSING,
    ),
}
