"""The recipes that `tilth run` knows: what each needs and makes. Collisions of names are errors of this dictionary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final  # Any: each recipe's own configuration

from tilth.pipelines import observed, ultrafeedback, wildfeedback
from tilth.pipelines.means import Means
from tilth.pipelines.observed import Observation, Observed
from tilth.pipelines.planned import Planned

Run = Callable[[Sequence[Mapping[str, Any]], Observed, Any, Means, float], Observation]
Plan = Callable[[Sequence[Mapping[str, Any]], Observed, Any, Means, float], list[Planned]]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe as flows see it.

    Args:
        tables: what it commits, in one release.
        run: planned reads, the section `observed`, the recipe's own section, means, the largest share set aside.
        roles: which models it asks, by its own section; none for a recipe without a model.
        files: files whose content the outcome rests on, by its own section.
        planned: what it would ask, taking what `run` takes.
        passing: (step, table) whose rows a later step makes final.
    """

    tables: tuple[str, ...]
    run: Run
    roles: Callable[[Any], Sequence[str]] = lambda _: ()
    files: Callable[[Any], Mapping[str, str]] = lambda _: {}
    planned: Plan = lambda *_: []
    passing: frozenset[tuple[str, str]] = frozenset({("ingest", "conversations")})


def _observed(
    reads: Sequence[Mapping[str, Any]], logs: Observed, _: Any, means: Means, share: float
) -> Observation:
    return observed.observe(reads, logs, means, share)


RECIPES: Final[Mapping[str, Recipe]] = {
    observed.NAME: Recipe(observed.TABLES, _observed),
    wildfeedback.NAME: Recipe(
        wildfeedback.TABLES,
        wildfeedback.wildfeedback,
        roles=wildfeedback.roles,
        files=wildfeedback.files,
        planned=wildfeedback.planned,
        passing=wildfeedback.PASSING,
    ),
    ultrafeedback.NAME: Recipe(
        ultrafeedback.TABLES,
        ultrafeedback.ultrafeedback,
        roles=ultrafeedback.roles,
        files=ultrafeedback.files,
        planned=ultrafeedback.planned,
        passing=ultrafeedback.PASSING,
    ),
}
