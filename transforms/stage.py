"""The Beam shell: run a step over tasks, write Parquet, remember what is done.

What travels through Beam is a task: handles and options, never rows. A task's outputs are named by a key made of
its inputs' digests and the step's configuration, so a second run finds what is finished and a changed input or
configuration is a new key. The order of tasks is the order of outputs, whatever the runner does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import fsspec
import polars as pl

from tilth.schemas import TABLES, TilthError, fingerprint
from tilth.transforms.parts import Shard, quarantine_ids, write_bytes, write_part


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work: named input handles and plain options (JSON values only)."""

    name: str  # zero-padded ordinal; outputs are listed in the order of names
    inputs: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values of a step's own choosing


class Step(Protocol):
    """What a stage runs on each task. A frozen dataclass: its fields are its configuration."""

    name: ClassVar[str]
    version: ClassVar[str]

    def run(self, task: Task, out: Output) -> None:
        """Reads the task's inputs, applies pure rules, hands frames to `out`."""
        ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one task made: parts by table and counts by name."""

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

    def __init__(self, task: str, key: str, places: Mapping[str, str], default: str) -> None:
        self._task, self._key, self._places, self._default = task, key, places, default
        self.outputs: dict[str, list[Shard]] = {}
        self.counts: dict[str, int] = {}

    def write(self, table: str, frame: pl.DataFrame) -> None:
        """Writes one part of `table`; a frame without rows writes nothing.

        A name in `TABLES` gets that table's exact types; another name is an intermediate of the pipeline's own.
        """
        if frame.is_empty():
            return
        shards = self.outputs.setdefault(table, [])
        place = self._places.get(table, f"{self._default}/{table}")
        uri = f"{place}/{self._task}-{self._key[:12]}-{len(shards):04d}.parquet"
        if table == "quarantine" and "id" not in frame.columns:
            frame = quarantine_ids(frame)
        shards.append(write_part(frame, uri, table if table in TABLES else None))

    def keep(self, table: str, shard: Shard) -> None:
        """Passes a part on as it is: it belongs to this task's output of `table`."""
        self.outputs.setdefault(table, []).append(shard)

    def count(self, name: str, amount: int) -> None:
        """Adds to a named count."""
        self.counts[name] = self.counts.get(name, 0) + amount
