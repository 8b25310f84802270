"""A step that does as it is told in a child process, and a runner that needs no Beam."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from tilth.schemas import BadInput
from tilth.transforms.stage import Execute, Output, Stage, Task, numbered, run_tasks

SECRET = "what a user said"
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(300)"


@dataclass(frozen=True, slots=True)
class InPlace:
    """Runs tasks in the process that it is in."""

    @contextlib.contextmanager
    def session(self) -> Generator[Execute]:
        def execute(stage: Stage, tasks: Sequence[Task]) -> None:
            run_tasks(tasks, stage)

        yield execute


@dataclass(frozen=True, slots=True)
class Obey:
    """Does what a task's option `order` says, then writes the number of its process."""

    name: ClassVar[str] = "obey"
    version: ClassVar[str] = "1"
    place: str

    def run(self, task: Task, out: Output) -> None:
        order = task.options["order"]
        if order == "chatter":
            print(SECRET, flush=True)  # noqa: T201
            os.write(1, SECRET.encode())
        elif order == "refuse":
            raise BadInput("this task is refused", found=7)
        elif order == "blurt":
            raise ValueError(SECRET)
        elif order == "fill the disk":
            raise OSError(28, "No space left on device", SECRET)
        elif order == "die once" and not (told := Path(self.place, "died")).exists():
            told.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif order == "hang":
            self._hang()
        out.write("pids", pl.DataFrame({"pid": [os.getpid()]}))

    def _hang(self) -> None:
        """Starts a process that ignores SIGTERM, says which two there are, and waits for it."""
        with subprocess.Popen([sys.executable, "-c", _STUBBORN], stdout=subprocess.PIPE) as one:
            assert one.stdout is not None
            one.stdout.readline()
            (begun := Path(self.place, "pids.new")).write_text(f"{os.getpid()} {one.pid}")
            begun.rename(Path(self.place, "pids"))


def told(place: Path, name: str, *orders: str) -> tuple[Stage, list[Task]]:
    """A stage of that name whose tasks do as they are told."""
    return Stage(Obey(str(place)), str(place / name)), numbered(
        [{"order": one} for one in orders], [{}] * len(orders)
    )
