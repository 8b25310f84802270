"""Who runs the pieces of a run: here and now, or an orchestrator's own kind."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tilth.catalog import AuditReport
from tilth.transforms.stage import Progress

T = TypeVar("T")


@dataclass(slots=True)
class Conductor:
    """Runs named pieces of work here and now, and notes their wall time. A Prefect flow has its own kind."""

    progress: Progress | None = None
    apart: bool = False  # stages in a child process, which whatever ends this one takes with it
    seconds: dict[str, float] = field(default_factory=dict)

    def perform(self, name: str, work: Callable[[], T]) -> T:
        """Runs `work` as the step `name` and returns what it returns."""
        started = time.perf_counter()
        try:
            return self.do(name, work)
        finally:
            self.seconds[name] = round(time.perf_counter() - started, 3)

    def do(self, name: str, work: Callable[[], T]) -> T:  # noqa: ARG002  (an orchestrator uses the name)
        """How a step is run; an orchestrator's conductor makes a task of it."""
        return work()

    def waiting(self) -> None:
        """Told before this run waits for another that is at the same work."""
        sys.stderr.write("another run is at the same work: waiting until it ends\n")

    def audited(self, report: AuditReport) -> None:
        """Told of the audit's result, before it decides."""
