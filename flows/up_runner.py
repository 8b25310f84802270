"""The process that runs what schedules say: a Prefect runner whose deployments follow a settings file.

One deployment a schedule, and of each at most one run at a time. A run that comes due while the one before it is at
work is cancelled, not queued: what it would have read, the next one reads, and a queue of runs longer than their
interval would never end.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    FlowRun,
    StateType,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron, Interval
from prefect.states import Cancelled, Crashed
from prefect.types.entrypoint import EntrypointType

from tilth.flows.prefect_api import Api
from tilth.flows.prefect_run import recipe_flow
from tilth.flows.schedules import EPOCH, Schedule, schedules_of
from tilth.flows.up import die_with_parent
from tilth.schemas import TilthError

TAG: Final = "tilth"
_LOOK_S: Final = 1.0
_POLL_S: Final = 2.0  # how late a run may start
_LIVE: Final = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_OVER: Final = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
_ONE_AT_A_TIME: Final = ConcurrencyLimitConfig(
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
)


@dataclass(slots=True)
class Following:
    """Keeps the deployments of a server as a settings file says.

    Args:
        file: the settings file, absolute.
        runner: what runs them.
        client: the server.
        api_url: where it is, for links.
        say: prints a line for people.
    """

    file: Path
    runner: Runner
    client: PrefectClient
    api_url: str
    say: Callable[[str], None]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _served: dict[str, tuple[UUID, Schedule]] = field(default_factory=dict[str, tuple[UUID, Schedule]])
    _text: str | None = None
    _told: set[UUID] = field(default_factory=set[UUID])
    _skipped: Counter[str] = field(default_factory=Counter[str])

    async def begin(self) -> None:
        """Settles what an earlier runner left: its runs have crashed, and for all that it missed one run is enough."""
        missed: set[str] = set()
        for known in await self._known():
            for run in await self._runs([known.id], _LIVE):
                await self._settle(run)
            for run in await self._runs([known.id], [StateType.SCHEDULED]):
                if (run.expected_start_time or self.began) < self.began:
                    missed.add(known.name)
                    await self.client.delete_flow_run(run.id)
        await self.follow()
        for known in await self._known():
            if known.name not in self._served:
                await self.client.delete_deployment(known.id)
            elif known.name in missed and not self._served[known.name][1].paused:
                await self.client.create_flow_run_from_deployment(known.id)
                self.say(f"{known.name}: came due while nobody served it; runs now")

    async def _settle(self, run: FlowRun) -> None:
        if run.state and run.state.is_cancelling():
            state = Cancelled(message="The runner was gone before the run had ended.")
        else:
            state = Crashed(message="The runner was killed while the run was at work.")
        await self.client.set_flow_run_state(run.id, state, force=True)
        self.say(f"a run that was left behind: {state.name.lower() if state.name else 'settled'}")

    async def follow(self) -> None:
        """Reads the file, if it has changed, and adds, changes and removes deployments; runs in flight go on."""
        try:
            text = self.file.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        if text == self._text:
            return
        self._text = text
        try:
            wanted = schedules_of(self.file)
        except TilthError as error:
            self.say(f"{self.file.name} cannot be used, so all stays as it was: {_line(error)}")
            return
        for name in [name for name in self._served if name not in wanted]:
            await self._remove(name)
        for name, schedule in wanted.items():
            if name not in self._served or self._served[name][1] != schedule:
                await self._serve(name, schedule)
        if not wanted:
            self.say(f"no schedules in {self.file.name} yet: tilth schedule add makes one")

    async def _serve(self, name: str, schedule: Schedule) -> None:
        try:
            schedule.check(self.file)
            await self._demand_free(name)
        except TilthError as error:
            self.say(f"{name}: {'stays as it was' if name in self._served else 'not served'}: {_line(error)}")
            return
        deployment = await recipe_flow.ato_deployment(
            name,
            schedule=_schedule(schedule),
            paused=schedule.paused,
            parameters={"recipe": schedule.recipe, "config": str(self.file), "options": schedule.options},
            tags=[TAG],
            concurrency_limit=_ONE_AT_A_TIME,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        self._served[name] = await self.runner.aadd_deployment(deployment), schedule
        self.say(f"{name}: {schedule.recipe}, {schedule.when}{_next(schedule)}")

    async def _demand_free(self, name: str) -> None:
        try:
            found = await self.client.read_deployment_by_name(f"{recipe_flow.name}/{name}")
        except ObjectNotFound:
            return
        owner = str(found.parameters.get("config"))
        if owner != str(self.file) and Path(owner).exists():  # else the folder was moved
            do = "call this schedule otherwise"
            raise TilthError("the server has a schedule of this name from another file", found=owner, do=do)

    async def _remove(self, name: str) -> None:
        found, _ = self._served.pop(name)
        await self.client.delete_deployment(found)
        # A runner never forgets a deployment by itself; it would go on asking for runs of one that is gone.
        self.runner._deployment_registry._deployment_ids.discard(found)  # pyright: ignore[reportPrivateUsage]
        self.say(f"{name}: removed")

    async def report(self) -> None:
        """Says a line about every run that has ended since the last time."""
        names = {id: name for name, (id, _) in self._served.items()}
        if not names:
            return
        for run in reversed(await self._runs(names, _OVER)):
            if run.end_time and run.end_time >= self.began and run.id not in self._told:
                self._told.add(run.id)
                self._ended(names.get(run.deployment_id or run.id, "?"), run)

    def _ended(self, name: str, run: FlowRun) -> None:
        state = run.state
        if state and state.is_cancelled() and "concurrency limit" in (state.message or ""):
            self._skipped[name] += 1  # told with the run that was in its way
            return
        how = state.name.lower() if state and state.name else "over"
        took, missed = f"{run.total_run_time.total_seconds():.0f} s", self._skipped.pop(name, 0)
        meanwhile = f" ({missed} that came due meanwhile skipped)" if missed else ""
        # A message of another state may quote an exception, and an exception a user.
        said = state.message if state and state.is_completed() else Api(self.api_url).page_of(str(run.id))
        self.say(f"{name} ({run.name}): {how} in {took}{meanwhile}: {said}")

    async def _known(self) -> list[DeploymentResponse]:
        tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        found = await self.client.read_deployments(deployment_filter=tagged)
        return [one for one in found if one.parameters.get("config") == str(self.file)]

    async def _runs(self, deployments: Iterable[UUID], states: Iterable[StateType]) -> list[FlowRun]:
        return await self.client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=list(deployments))),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))
            ),
            sort=FlowRunSort.END_TIME_DESC
            if StateType.COMPLETED in states
            else FlowRunSort.EXPECTED_START_TIME_ASC,
            limit=200,
        )


def _schedule(schedule: Schedule) -> Any:  # Prefect's own Schedule
    if schedule.interval is None:
        return Cron(str(schedule.cron), timezone=schedule.timezone or "UTC")
    return Interval(schedule.interval, anchor_date=EPOCH)


def _next(schedule: Schedule) -> str:
    times = schedule.after(datetime.now(UTC))
    return f", next {times[0]:%Y-%m-%d %H:%M:%S %Z}" if times else ", paused"


def _line(error: TilthError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())


async def serve(file: Path, api_url: str, say: Callable[[str], None]) -> None:
    """Serves the schedules of a file until SIGTERM; then cancels the runs in flight."""
    stopping = asyncio.Event()
    runner = Runner(name="tilth-up", query_seconds=_POLL_S, prefetch_seconds=0, pause_on_shutdown=False)
    async with get_client() as client:
        following = Following(file, runner, client, api_url, say)
        await following.begin()
        running = asyncio.create_task(runner.start())
        await asyncio.sleep(0)  # it takes SIGTERM for itself when it starts
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        waiting = asyncio.create_task(stopping.wait())
        while not stopping.is_set() and not running.done():
            await following.follow()
            await following.report()
            await asyncio.wait([running, waiting], timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await runner.astop()
        await running


def main() -> None:
    """Serves until it is stopped, or until the process that started it is gone."""
    die_with_parent()
    people, sys.stdout = sys.stdout, sys.stderr  # what runs print goes to the log

    def say(line: str) -> None:
        people.write(f"{datetime.now():%H:%M:%S} {line}\n")
        people.flush()

    asyncio.run(_serve_or_exit(Path(sys.argv[1]), sys.argv[2], say))


async def _serve_or_exit(file: Path, api_url: str, say: Callable[[str], None]) -> None:
    try:
        await serve(file, api_url, say)
    except Exception:
        # At once: a runner that lost its server would wait half a minute for its runs. Who started it clears away.
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    main()
