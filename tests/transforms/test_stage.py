"""Stages: finished tasks are kept, changed ones are redone, errors come through as they were raised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import fsspec
import polars as pl
import pytest

from tilth.schemas import BadInput, ConfigError, TilthError
from tilth.transforms.parts import Shard, read_part, write_part
from tilth.transforms.shell import Runner
from tilth.transforms.stage import (
    Manifest,
    Output,
    Stage,
    Step,
    Task,
    numbered,
    parts,
    run_stage,
    run_tasks,
    total,
)


@dataclass(frozen=True, slots=True)
class Double:
    """Doubles a number; fails on the number it was told to fail on."""

    name: ClassVar[str] = "double"
    version: ClassVar[str] = "1"
    factor: int = 2
    fail_on: int = -1

    def run(self, task: Task, out: Output) -> None:
        number = task.options["number"]
        if number == self.fail_on:
            raise BadInput("this number is refused", found=number, wanted="another")
        out.write("doubled", pl.DataFrame({"number": [number * self.factor]}))
        out.count("rows", 1)


class CountingExecute:
    """Runs tasks one after another and remembers which."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.ran: list[str] = []
        self.stop_after = stop_after

    def __call__(self, stage: Stage, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if len(self.ran) == self.stop_after:
                raise KilledHere
            run_tasks([task], stage)
            self.ran.append(task.name)


class KilledHere(Exception):
    """Stands for a kill: the driver never comes back."""


def _tasks(count: int = 5) -> list[Task]:
    return numbered([{"number": n} for n in range(count)], [{}] * count)


def _numbers(manifests: list[Manifest]) -> list[int]:
    return [read_part(shard).item() for shard in parts(manifests, "doubled")]


def test_outputs_come_in_the_order_of_tasks(tmp_path: Path) -> None:
    """The order of tasks is the order of outputs, and counts add up."""
    execute = CountingExecute()
    manifests = run_stage(
        Stage(Double(), str(tmp_path)), _tasks(), lambda s, t: execute(s, list(reversed(t)))
    )
    assert _numbers(manifests) == [0, 2, 4, 6, 8]
    assert total(manifests, "rows") == 5


def test_finished_tasks_are_not_run_again(tmp_path: Path) -> None:
    """A second run of the same stage executes nothing."""
    stage = Stage(Double(), str(tmp_path))
    first, second = CountingExecute(), CountingExecute()
    assert run_stage(stage, _tasks(), first) == run_stage(stage, _tasks(), second)
    assert (len(first.ran), len(second.ran)) == (5, 0)


def test_a_killed_stage_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """After a kill only the unfinished tasks are run."""
    stage = Stage(Double(), str(tmp_path))
    with pytest.raises(KilledHere):
        run_stage(stage, _tasks(), CountingExecute(stop_after=3))
    again = CountingExecute()
    assert _numbers(run_stage(stage, _tasks(), again)) == [0, 2, 4, 6, 8]
    assert again.ran == ["000003", "000004"]


def test_a_lost_part_is_made_again(tmp_path: Path) -> None:
    """A manifest whose part is gone does not count as done."""
    stage = Stage(Double(), str(tmp_path))
    manifests = run_stage(stage, _tasks(), CountingExecute())
    Path(parts(manifests, "doubled")[2].uri).unlink()
    again = CountingExecute()
    assert _numbers(run_stage(stage, _tasks(), again)) == [0, 2, 4, 6, 8]
    assert again.ran == ["000002"]


@pytest.mark.parametrize(
    ("step", "tasks"),
    [
        (Double(factor=3), _tasks(1)),
        (Double(), numbered([{"number": 7}], [{}])),
        (Double(), numbered([{"number": 0}], [{"logs": (Shard("elsewhere", 1, "other digest"),)}])),
    ],
    ids=["configuration", "options", "inputs"],
)
def test_whatever_changes_is_computed_anew(tmp_path: Path, step: Step, tasks: list[Task]) -> None:
    """Changed configuration, options or input content is a new key: nothing stale is returned."""
    base = Stage(Double(), str(tmp_path))
    run_stage(base, _tasks(1), CountingExecute())
    again = CountingExecute()
    run_stage(Stage(step, str(tmp_path)), tasks, again)
    assert again.ran == ["000000"]


def test_a_stage_that_did_nothing_says_so(tmp_path: Path) -> None:
    """A runner that drops tasks in silence is an error, not an empty result."""
    with pytest.raises(TilthError, match="5 of 5 tasks without output"):
        run_stage(Stage(Double(), str(tmp_path)), _tasks(), lambda _s, _t: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["local", "processes"])
def test_beam_runs_tasks_and_errors_come_through(tmp_path: Path, name: str) -> None:
    """On Beam a stage gives its outputs in order, and a worker's TilthError arrives as it was raised."""
    with Runner(name).session() as execute:
        manifests = run_stage(Stage(Double(), str(tmp_path / "good")), _tasks(), execute)
        assert _numbers(manifests) == [0, 2, 4, 6, 8]
        with pytest.raises(BadInput, match="this number is refused") as caught:
            run_stage(Stage(Double(fail_on=3), str(tmp_path / "bad")), _tasks(), execute)
    assert (caught.value.found, caught.value.wanted) == (3, "another")


def test_an_unknown_runner_is_named(tmp_path: Path) -> None:
    """A runner that Beam does not know is a usage error that names it."""
    with pytest.raises(ConfigError, match="NoSuchRunner"), Runner("NoSuchRunner").session() as execute:
        run_stage(Stage(Double(), str(tmp_path)), _tasks(), execute)


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    """Writing is deterministic: the digest of a part follows from its rows alone."""
    frame = pl.DataFrame({"id": [f"{n}" for n in range(50_000)], "n": range(50_000)})
    one, two = (write_part(frame, str(tmp_path / f"{n}.parquet")) for n in "ab")
    assert one.digest == two.digest
    assert Path(one.uri).read_bytes() == Path(two.uri).read_bytes()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """A part is there whole or not at all."""
    with pytest.raises(ValueError, match="does not have"):
        write_part(pl.DataFrame({"unknown": [1]}), str(tmp_path / "pairs.parquet"), "pairs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("root", ["", "memory://"], ids=["a folder", "an object store"])
def test_a_part_may_have_any_name(tmp_path: Path, root: str) -> None:
    """Brackets and stars in the name of a folder are no pattern, and no draft is left beside the part."""
    folder = f"{root}{tmp_path}/logs [a*b]"
    part = write_part(pl.DataFrame({"n": [1, 2]}), f"{folder}/one.parquet")
    assert read_part(part)["n"].to_list() == [1, 2]
    fs, path = fsspec.core.url_to_fs(folder)
    assert [one.rpartition("/")[2] for one in fs.ls(path, detail=False)] == ["one.parquet"]
