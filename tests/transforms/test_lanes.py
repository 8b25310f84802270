"""Steps with lanes: many tasks in one worker's hands, each finished by itself, none lost when the lane dies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import pytest

from tilth.schemas import TilthError
from tilth.transforms.inference.ask import Ask
from tilth.transforms.inference.engines import EngineConfig
from tilth.transforms.inference.worker import Account
from tilth.transforms.parts import read_part
from tilth.transforms.shell import Runner
from tilth.transforms.stage import Output, Stage, Task, Work, lanes, numbered, parts, run_stage, title


@dataclass(frozen=True, slots=True)
class Backwards:
    """Takes all tasks of its lane before it finishes the last one first; gives up after `most` of them."""

    name: ClassVar[str] = "backwards"
    version: ClassVar[str] = "1"
    factor: int = 2
    lanes: int = field(default=1, compare=False)
    most: int = field(default=10**9, compare=False)

    def run(self, task: Task, out: Output) -> None:
        number = task.options["number"]
        out.write("doubled", pl.DataFrame({"number": [number * self.factor]}))

    def run_lane(self, works: Iterable[Work], note: Callable[[Mapping[str, Any]], None]) -> None:
        taken = list(works)[::-1]
        for ordinal, work in enumerate(taken):
            if ordinal == self.most:
                raise TilthError("no more today")
            work.run()
            work.done()
        note({"rows": len(taken)})


def _tasks(count: int = 7) -> list[Task]:
    return numbered([{"number": n} for n in range(count)], [{}] * count)


def _numbers(stage: Stage, tasks: list[Task]) -> list[int]:
    with Runner().session() as execute:
        done = run_stage(stage, tasks, execute)
    return [read_part(shard).item() for shard in parts(done, "doubled")]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_every_task_is_in_one_lane(count: int, tmp_path: Path) -> None:
    """Tasks are dealt out to as many lanes as there are, or one each, and outputs keep the order of tasks."""
    stage, tasks = Stage(Backwards(lanes=count), str(tmp_path)), _tasks()
    dealt = lanes(stage, tasks)
    assert len(dealt) == min(count, 7)
    assert sorted(task.name for lane in dealt for task in lane) == [task.name for task in tasks]
    assert _numbers(stage, tasks) == [0, 2, 4, 6, 8, 10, 12]


def test_what_a_lane_has_finished_is_kept(tmp_path: Path) -> None:
    """When a lane fails, its finished tasks are not run again; the error is the one that was raised."""
    failing = Stage(Backwards(most=4), str(tmp_path))
    with pytest.raises(TilthError, match="no more today"):
        _numbers(failing, _tasks())
    left = [task for task in _tasks() if failing.done(task) is None]
    assert [task.name for task in left] == ["000000", "000001", "000002"]
    assert _numbers(Stage(Backwards(), str(tmp_path)), _tasks()) == [0, 2, 4, 6, 8, 10, 12]
    assert json.loads((tmp_path / "notes" / "000000.json").read_text()) == {"rows": 3}


def test_how_hard_a_step_pushes_is_no_part_of_its_key() -> None:
    """Fields that take no part in equality change neither the key nor the finished work; the others do."""
    step, (task, *_) = Backwards(), _tasks()
    key = Stage(step, "x").key(task)
    assert Stage(replace(step, lanes=8, most=3), "x").key(task) == key
    assert Stage(replace(step, factor=3), "x").key(task) != key


def test_a_purpose_with_slashes_is_one_safe_folder() -> None:
    """A model's name in a purpose leads to no other folder, and two names that look alike keep folders of their own."""
    account = Account("run")
    steps = [
        Ask("m", EngineConfig(), "sqlite:///a", account, purpose=purpose)
        for purpose in ("ask", "label", "judge-org/a", "judge-org.a", "judge-../../a")
    ]
    titles = [title(step) for step in steps]
    assert titles[:2] == ["ask", "ask-label"]
    assert len(set(titles)) == len(titles)
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for one in titles)
