"""A run as a Prefect flow: each step is a task with retries; progress, audit and row counts are artifacts.

Flow files hold no rule and no DoFn: Prefect may load them under a bare name, and a worker could not unpickle from it.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast  # Any: settings on their way through Prefect's JSON
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed

from tilth.catalog import AuditReport
from tilth.flows.conductor import Conductor
from tilth.flows.deadman import while_parent_lives
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.schemas import TilthError
from tilth.transforms.child import WorkLost
from tilth.transforms.stage import Headway

T = TypeVar("T")
_VERDICTS: Final = {True: "passed", False: "failed", None: "nothing to observe"}
_PROGRESS_EVERY_S = 1.0  # Prefect's API is asked at most once a second and stage


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:  # Any: Prefect's own signature
    """A full disk or a lost worker may pass; bad input, failed checks and wrong settings will not."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, WorkLost) or not isinstance(error, TilthError)


@dataclass(slots=True)
class PrefectConductor(Conductor):
    """Makes a task of each step, called in the flow's own thread so that cancelling reaches it.

    Stages run in a child process, which is gone when the flow is cancelled, killed or done.
    """

    apart: bool = True
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

    def waiting(self) -> None:
        """Says in the run's log why nothing moves."""
        get_run_logger().info("another run is at the same work: waiting until it ends")

    def audited(self, report: AuditReport) -> None:
        """Puts every expectation and what was observed into a table artifact, failures first, worst first."""
        checks = [
            {"verdict": _VERDICTS[check.pop("success")], "severity": check.pop("severity"), **check}
            for check in report.rows()
        ]
        create_table_artifact(table=checks, key="tilth-checks", description="Data quality checks")


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
    with while_parent_lives() if _is_deployed() else contextlib.nullcontext():
        settings = load(config, options, sets)
        result = run(recipe, settings, conductor)
        _show(recipe, result, settings.workspace)
    # A state that is returned is the run's last one; who calls the flow gets the state's data.
    return cast("dict[str, Any]", Completed(message=_outcome(result), data=result.to_dict()))


def _is_deployed() -> bool:
    """Whether a runner or a worker started this process for the run, and not a person in a shell or a notebook."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run is not None and context.flow_run.deployment_id is not None


def _outcome(result: RunResult) -> str:
    version = result.datasets[0].version if result.datasets else "no version"
    if result.status == "unchanged":
        return f"nothing new: an equal run has made {version}, and no version was made"
    files = [f"{count} {kind}" for kind, count in result.files.items() if count]
    counts = [f"source files: {', '.join(files)}"] if files else []
    counts.append(f"{result.rows_in} rows in, {result.rows_quarantined} of them set aside")
    return f"{version}: {'; '.join(counts)}"


def _show(recipe: str, result: RunResult, workspace: str) -> None:
    """Two artifacts: what was made and how to look at it, and rows by source and table."""
    made = [f"{dataset.name}@{dataset.version}" for dataset in result.datasets]
    place = f"--workspace {shlex.quote(workspace)}"
    commands = [f"tilth {verb} {one} {place}" for one in made for verb in ("catalog show", "report")]
    lines = [f"# {recipe}: {result.status}", _outcome(result), *(f"    {command}" for command in commands)]
    create_markdown_artifact(
        "\n\n".join([*lines[:2], "\n".join(lines[2:])]), key="tilth-run", description=f"Run {result.run_id}"
    )
    sources = [
        {
            "of": "source",
            "name": c.source,
            "in": c.rows_in,
            "out": c.rows_out,
            "set aside": c.rows_quarantined,
        }
        for c in result.sources
    ]
    tables = [
        {"of": "table", "name": name, "in": None, "out": dataset.rows, "set aside": None}
        for name, dataset in zip(made, result.datasets, strict=True)
    ]
    create_table_artifact([*sources, *tables], key="tilth-rows", description="Rows by source and by table")
