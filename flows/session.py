"""One sitting of a run: its stages in their places, its models by the parts they play, its books."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType, TracebackType
from typing import Any, Self  # Any: JSON values

import fsspec

from tilth.flows.conductor import Conductor
from tilth.flows.settings import Settings
from tilth.pipelines.means import Means
from tilth.transforms.inference.accounting import account, remember_rate, used_of
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.cache import if_there
from tilth.transforms.inference.engines import identify
from tilth.transforms.inference.usage import Usage
from tilth.transforms.inference.worker import Account
from tilth.transforms.stage import Execute, Manifest, Stage, Step, Task, notes, run_stage, title


class Session:
    """Runs a recipe's steps in `<workspace>/runs/<run id>`, and keeps the books of what its models used.

    Args:
        settings: engines by role, prices, caps, the runner.
        run_id: what the run is known by; the same run goes on where it stopped.
        conductor: runs named pieces of work.
        places: table -> directory, for tables that are not to be removed with the stages.
        passing: (step, table) whose rows a later step makes final; they stay with the stage.
        stream: the stream of incremental runs whose finished tasks are looked up and kept.
    """

    def __init__(
        self,
        settings: Settings,
        run_id: str,
        conductor: Conductor,
        places: Mapping[str, str] = MappingProxyType({}),
        passing: frozenset[tuple[str, str]] = frozenset(),
        stream: str | None = None,
    ) -> None:
        self._settings, self._conductor = settings, conductor
        self._places, self._passing = places, passing | {("ask", "quarantine")}
        place = f"runs/{run_id}" if stream is None else f"streams/{stream}"
        self.run_id, self.directory = run_id, f"{settings.workspace.rstrip('/')}/{place}"
        self._stream, self._used = stream, set[str]()
        self._asked: dict[str, Ask] = {}
        self._open = contextlib.ExitStack()
        self._execute: Execute | None = None

    def __enter__(self) -> Self:
        beam, conductor = self._settings.beam(), self._conductor
        self._execute = self._open.enter_context(beam.session(conductor.progress, apart=conductor.apart))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def means(self) -> Means:
        """What a recipe works with."""
        return Means(self.conduct, self.ask)

    def conduct(self, step: Step, tasks: Sequence[Task]) -> list[Manifest]:
        """Runs a step over tasks, those that are not done yet."""
        execute, stage = self._execute, self.stage(step)
        assert execute is not None, "a session is entered first"  # noqa: S101  (a mistake of ours)
        self._used.update(stage.manifest_uri(task) for task in tasks)
        return self._conductor.perform(title(step), lambda: run_stage(stage, tasks, execute) if tasks else [])

    def stage(self, step: Step) -> Stage:
        """A step in its place."""
        places = {t: uri for t, uri in self._places.items() if (step.name, t) not in self._passing}
        return Stage(step, f"{self.directory}/stages/{title(step)}", places)

    def ask(self, purpose: str, role: str) -> Ask:
        """The step that asks the model of a role for a purpose; see `Means`."""
        settings, engine = self._settings, self._settings.role(role)
        spending = Account(self.run_id, settings.price_list(), settings.limits())
        step = Ask(
            identify(engine), engine, settings.answers_url(), spending, settings.push(), purpose=purpose
        )
        self._asked[purpose] = step
        return step

    # The books

    def accounting(self) -> dict[str, Any]:
        """What models used: for each purpose in this sitting, and in all since the run began."""
        told = {purpose: notes(self.stage(step)) for purpose, step in self._asked.items()}
        prices, spent = self._settings.price_list(), self._spent()
        sittings = {
            purpose: account(self._asked[purpose].identity, said, spent, prices)
            for purpose, said in told.items()
        }
        for one in sittings.values():
            remember_rate(self._settings.workspace.rstrip("/"), one)
        used = used_of([note for said in told.values() for note in said])
        return {
            "purposes": {purpose: {"model": one.model, **one.sitting} for purpose, one in sittings.items()},
            "sitting": dataclasses.asdict(used),
            "run": account("", [], spent, prices).run,
        }

    def _spent(self) -> Usage:
        if not self._asked:
            return Usage()
        with if_there(self._settings.answers_url()) as cache:
            return cache.spent(self.run_id) if cache else Usage()

    def clear(self) -> None:
        """Removes the intermediate files, unless the settings keep them; of a stream, what this run did not use."""
        stages = f"{self.directory}/stages"
        if self._settings.keep_stages:
            return
        if self._stream is not None:
            _prune(stages, self._used)
            return
        fs, path = fsspec.core.url_to_fs(stages)
        if fs.exists(path):
            fs.rm(path, recursive=True)


def _prune(stages: str, used: Set[str]) -> None:
    """Removes what finished tasks left behind that no manifest of `used` knows: manifests, then intermediate parts."""
    fs, folder = fsspec.core.url_to_fs(stages)
    kept = {fsspec.core.url_to_fs(uri)[1] for uri in used}
    manifests = {path for path in fs.find(folder) if path.rpartition("/")[0].endswith("/done")}
    if unused := list(manifests - kept):
        fs.rm(unused)
    needed = {
        fsspec.core.url_to_fs(shard.uri)[1]
        for path in manifests & kept
        for shards in Manifest.from_json(fs.cat_file(path)).outputs.values()
        for shard in shards
    }
    stale = [path for path in fs.find(folder) if path.endswith(".parquet") and path not in needed]
    if stale:
        fs.rm(stale)
