"""A run as a Prefect flow: each step is a task with retries; progress, audit and row counts are artifacts.

Flow files hold no rule and no DoFn: Prefect may load them under a bare name, and a worker could not unpickle from it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar  # Any: settings on their way through Prefect's JSON
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from tilth.catalog import AuditReport
from tilth.flows.conductor import Conductor
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.schemas import TilthError
from tilth.transforms.stage import Headway

T = TypeVar("T")
_PROGRESS_EVERY_S = 1.0  # Prefect's API is asked at most once a second and stage


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:  # Any: Prefect's own signature
    """A full disk or a lost worker may pass; bad input, failed checks and wrong settings will not."""
    return not isinstance(state.result(raise_on_failure=False), TilthError)


@dataclass(slots=True)
class PrefectConductor(Conductor):
    """Makes a task of each step, called in the flow's own thread so that cancelling reaches it."""

    retries: int = 2
    retry_delay_s: float = 5.0
    _bars: dict[str, UUID] = field(default_factory=dict)
    _moved: dict[str, float] = field(default_factory=dict)

    def do(self, name: str, work: Callable[[], T]) -> T:
        """Runs a step as a task. Steps resume by themselves, so a retry redoes only what is not finished."""

        def step() -> T:
            self._bars[name] = _bar(name)
            result = work()
            update_progress_artifact(self._bars[name], progress=100.0)
            return result

        options = task(
            name=name,
            task_run_name=name,
            retries=self.retries,
            retry_delay_seconds=self.retry_delay_s,
            retry_condition_fn=_worth_retrying,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        return options(step)()

    def moved(self, seen: Headway) -> None:
        """Moves the stage's progress artifact, at most once a second."""
        stage, now = seen.stage, time.monotonic()
        if stage in self._bars and now - self._moved.get(stage, 0.0) >= _PROGRESS_EVERY_S:
            self._moved[stage] = now
            update_progress_artifact(self._bars[stage], progress=100.0 * seen.done / seen.total)

    def audited(self, report: AuditReport) -> None:
        """Puts every expectation and what was observed into a table artifact."""
        create_table_artifact(table=report.rows(), key="tilth-checks", description="Data quality checks")


def _bar(name: str) -> UUID:
    key = re.sub("[^a-z0-9]+", "-", f"tilth-{name}".lower())  # all that Prefect takes in a key
    made = create_progress_artifact(progress=0.0, key=key, description=f"Stage {name}")
    assert isinstance(made, UUID)  # noqa: S101  (narrowing: called outside an event loop)
    return made


@flow(name="tilth-run", flow_run_name="tilth {recipe}", validate_parameters=False, persist_result=False)
def recipe_flow(
    recipe: str,
    config: str | None = None,
    options: Mapping[str, Any] | None = None,
    sets: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs a recipe with the settings that `config`, the environment, `options` and `sets` give; returns its result.

    Parameters are stored by Prefect, so the salt comes from the environment or the settings file, never through here.
    """
    conductor = PrefectConductor()
    conductor.progress = conductor.moved
    result = run(recipe, load(config, options, sets), conductor).to_dict()
    create_table_artifact(
        table=result["datasets"], key="tilth-datasets", description=f"Run {result['run_id']}"
    )
    return result
