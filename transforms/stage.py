"""Stages: a step is run over tasks, its output is Parquet, what is done is remembered.

A task holds handles and options, never rows. Its outputs are named by a key made of its inputs' digests and the
step's configuration, so a second run finds what is finished, and a changed input or configuration is a new key. The
order of tasks is the order of outputs, whatever the runner does. Beam is behind `tilth.transforms.shell`.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final, Protocol, cast

import fsspec
import polars as pl
import pyarrow as pa

from tilth.schemas import TABLES, TilthError, empty, fingerprint
from tilth.transforms.parts import (
    ROW_GROUP_ROWS,
    Shard,
    is_there,
    quarantine_ids,
    read_part,
    write_bytes,
    write_part,
)

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work: named input handles and plain options."""

    name: str  # zero-padded ordinal; outputs are listed in the order of names
    inputs: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values of a step's own choosing


def rows_of(task: Task, name: str, schema: pl.Schema | None = None) -> pl.DataFrame:
    """All rows that a task was given under a name; without any, none of `schema`, by default of the table's."""
    if shards := task.inputs.get(name):
        return pl.concat([read_part(shard) for shard in shards])
    return empty(name) if schema is None else pl.DataFrame(schema=schema)


class Step(Protocol):
    """What a stage runs on each task. A frozen dataclass: its fields are its configuration.

    A field with `compare=False` (how hard to push, where to keep a cache) decides nothing about the outcome and is
    no part of the key that finished work is known by.
    """

    name: ClassVar[str]
    version: ClassVar[str]  # bumped when equal input would give other output

    def run(self, task: Task, out: Output) -> None:
        """Reads the task's inputs, applies pure rules, hands frames to `out`."""
        ...


class LaneStep(Step, Protocol):
    """A step that runs many tasks at once, so that nothing waits between them (a window of requests in flight)."""

    lanes: (
        int  # tasks are dealt out to so many; each is one element of the Beam graph, so one worker's for good
    )

    def run_lane(self, works: Iterable[Work], note: Callable[[Mapping[str, Any]], None]) -> None:
        """Runs tasks in any order and interleaving; calls `done` of each as it is finished.

        `note` publishes how it goes (JSON values, `rows` among them); the last one stays with the stage.
        """
        ...


def title(step: Step) -> str:
    """What a stage of this step is called: the step's name, and for what where a recipe runs it for several things.

    It names folders too: what a path could take amiss in a purpose (a model's name has slashes) is replaced, and a hash
    keeps such names apart.
    """
    purpose: str = getattr(step, "purpose", step.name)
    plain = _UNSAFE.sub("-", purpose)
    apart = "" if plain == purpose else f"-{fingerprint(purpose)[:6]}"
    return step.name if purpose == step.name else f"{step.name}-{plain}{apart}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one task made: parts by table, counts by name."""

    task: str
    key: str
    outputs: dict[str, list[Shard]]
    counts: dict[str, int]

    def to_json(self) -> bytes:
        """The manifest as JSON bytes."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """The inverse of `to_json`."""
        raw = json.loads(data)
        outputs = {name: [Shard(**shard) for shard in shards] for name, shards in raw["outputs"].items()}
        return cls(raw["task"], raw["key"], outputs, raw["counts"])


class Output:
    """Collects what a step writes for one task."""

    def __init__(self, stem: str, places: Mapping[str, str], default: str) -> None:
        self._stem, self._places, self._default = stem, places, default
        self.outputs: dict[str, list[Shard]] = {}
        self.counts: dict[str, int] = {}

    def write(self, table: str, frame: pl.DataFrame, row_group_rows: int = ROW_GROUP_ROWS) -> None:
        """Writes one part of `table`; a frame without rows writes nothing.

        A name in `TABLES` gets that table's exact types; another name is an intermediate of the pipeline's own.
        """
        if frame.is_empty():
            return
        if table == "quarantine":
            self._count_reasons(frame)
            frame = frame if "id" in frame.columns else quarantine_ids(frame)
        shards = self.outputs.setdefault(table, [])
        place = self._places.get(table, f"{self._default}/{table}")
        uri = f"{place}/{self._stem}-{len(shards):04d}.parquet"
        shards.append(write_part(frame, uri, table if table in TABLES else None, row_group_rows))

    def count(self, name: str, amount: int) -> None:
        """Adds to a named count."""
        self.counts[name] = self.counts.get(name, 0) + amount

    def _count_reasons(self, frame: pl.DataFrame) -> None:
        rows = pl.col("source_rows").fill_null(0)
        summed = frame.group_by("source", "reason").agg(
            rows.sum().alias("rows"), (rows == 0).sum().alias("candidates")
        )
        for source, reason, lost, candidates in summed.sort("source", "reason").iter_rows():
            self.count(f"quarantined.{reason}", lost)
            self.count(f"dropped.{reason}", candidates)
            self.count(f"set_aside@{source}", lost)


@dataclass(frozen=True, slots=True)
class Stage:
    """A step in its place: where its manifests and intermediates go, where its tables go."""

    step: Step
    directory: str  # <run>/stages/<step name>
    places: Mapping[str, str] = field(default_factory=dict)  # table -> directory, for final tables

    def key(self, task: Task) -> str:
        """What the task's outputs are known by: the step, its configuration, the inputs' digests, the options."""
        inputs = {name: [shard.digest for shard in shards] for name, shards in task.inputs.items()}
        config = [self.step.name, self.step.version, self.step]
        return fingerprint({"step": config, "task": task.name, "inputs": inputs, "options": task.options})

    def manifest_uri(self, task: Task) -> str:
        """Where the task's manifest is, once it is done."""
        return f"{self.directory}/done/{task.name}-{self.key(task)}.json"

    def done(self, task: Task) -> Manifest | None:
        """The manifest of a finished task whose parts are all still there, else None."""
        fs, path = fsspec.core.url_to_fs(self.manifest_uri(task))
        if not fs.exists(path):
            return None
        manifest = Manifest.from_json(fs.cat_file(path))
        return (
            manifest if all(is_there(s.uri) for shards in manifest.outputs.values() for s in shards) else None
        )


class Work:
    """One task of a stage on its way to its manifest."""

    def __init__(self, task: Task, stage: Stage) -> None:
        self.task, self._stage = task, stage
        self._key = stage.key(task)
        self.out = Output(f"{task.name}-{self._key[:12]}", stage.places, stage.directory)

    def run(self) -> None:
        """Runs the stage's step on the task."""
        self._stage.step.run(self.task, self.out)

    def done(self) -> str:
        """Writes the manifest and returns its URI: from now on the task is finished."""
        uri = self._stage.manifest_uri(self.task)
        write_bytes(Manifest(self.task.name, self._key, self.out.outputs, self.out.counts).to_json(), uri)
        return uri


def run_tasks(tasks: Sequence[Task], stage: Stage) -> list[str]:
    """Runs tasks to their manifests and returns those that are done. A `TilthError` is kept for the driver."""
    try:
        if hasattr(stage.step, "run_lane"):
            return _run_lane(tasks, stage, cast("LaneStep", stage.step))
        return [_run_one(Work(task, stage)) for task in tasks]
    except TilthError as error:
        write_bytes(pickle.dumps(error), f"{stage.directory}/failed.pickle")
        raise


def _run_one(work: Work) -> str:
    work.run()
    # Arrow's pool keeps what parts were read and written with; the next stage may need the memory elsewhere.
    pa.default_memory_pool().release_unused()
    return work.done()


def _run_lane(tasks: Sequence[Task], stage: Stage, step: LaneStep) -> list[str]:
    uri = f"{stage.directory}/notes/{tasks[0].name}.json"
    step.run_lane(
        (Work(task, stage) for task in tasks), lambda note: write_bytes(json.dumps(note).encode(), uri)
    )
    return [stage.manifest_uri(task) for task in tasks]


def lanes(stage: Stage, tasks: Sequence[Task]) -> list[list[Task]]:
    """What one worker runs: a task each, or for a step with lanes the tasks dealt out to them."""
    count = min(getattr(stage.step, "lanes", len(tasks)), len(tasks))
    return [list(tasks[lane::count]) for lane in range(count)]


Execute = Callable[[Stage, Sequence[Task]], None]
"""Runs tasks of a stage somewhere; `tilth.transforms.shell.Runner` makes them."""


@dataclass(frozen=True, slots=True)
class Headway:
    """How far a stage is: tasks done of all, or rows where the step tells of itself in notes (one per lane)."""

    stage: str
    done: int
    total: int
    notes: Sequence[Mapping[str, Any]] = ()


Progress = Callable[[Headway], None]
"""Told now and then how far a stage is."""


def run_stage(stage: Stage, tasks: Sequence[Task], execute: Execute) -> list[Manifest]:
    """Manifests of all tasks, in order; only those that are not done yet are executed.

    Raises the first `TilthError` of a task as it was raised in the worker. Afterwards `notes` tells of this call
    alone.
    """
    _forget_notes(stage)
    waiting = [task for task in tasks if stage.done(task) is None]
    if waiting:
        _execute(stage, waiting, execute)
    manifests = [stage.done(task) for task in tasks]
    missing = [task.name for task, manifest in zip(tasks, manifests, strict=True) if manifest is None]
    if missing:
        raise TilthError(
            f"stage {title(stage.step)!r} ended without finishing all of its tasks",
            found=f"{len(missing)} of {len(tasks)} tasks without output, the first is {missing[0]}",
            wanted="one manifest per task",
            do="run the same command again: finished tasks are kept",
        )
    return [manifest for manifest in manifests if manifest is not None]


def _execute(stage: Stage, tasks: Sequence[Task], execute: Execute) -> None:
    failure = f"{stage.directory}/failed.pickle"
    fs, path = fsspec.core.url_to_fs(failure)
    if fs.exists(path):
        fs.rm(path)
    try:
        execute(stage, tasks)
    except Exception as error:
        if fs.exists(path):
            raise pickle.loads(fs.cat_file(path)) from error
        raise


def notes(stage: Stage, tasks: Sequence[Task] | None = None) -> list[Mapping[str, Any]]:
    """What the lanes of a stage told last, in this sitting; with `tasks`, only the lanes that run these."""
    fs, folder = fsspec.core.url_to_fs(f"{stage.directory}/notes")
    if tasks is None:
        paths = sorted(fs.glob(f"{folder}/*.json"))
    else:
        paths = [f"{folder}/{lane[0].name}.json" for lane in lanes(stage, tasks)]
    return [json.loads(fs.cat_file(path)) for path in paths if fs.exists(path)]


def _forget_notes(stage: Stage) -> None:
    fs, folder = fsspec.core.url_to_fs(f"{stage.directory}/notes")
    if fs.exists(folder):
        fs.rm(folder, recursive=True)


def total(manifests: Sequence[Manifest], name: str) -> int:
    """The sum of a count over manifests."""
    return sum(manifest.counts.get(name, 0) for manifest in manifests)


def parts(manifests: Sequence[Manifest], table: str) -> list[Shard]:
    """All parts of a table, in the order of tasks."""
    return [shard for manifest in manifests for shard in manifest.outputs.get(table, [])]


def outputs(made: Manifest, *tables: str) -> dict[str, tuple[Shard, ...]]:
    """What a task made of these tables, as inputs of another; empty tuples where it made none."""
    return {table: tuple(made.outputs.get(table, ())) for table in tables}


def numbered(
    items: Sequence[Mapping[str, Any]], inputs: Sequence[Mapping[str, tuple[Shard, ...]]]
) -> list[Task]:
    """Tasks named by ordinal from their options and inputs."""
    pairs = zip(items, inputs, strict=True)
    return [Task(f"{n:06d}", inputs=given, options=options) for n, (options, given) in enumerate(pairs)]
