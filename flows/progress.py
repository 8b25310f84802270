"""Progress bars on standard error: one a stage, counted in finished tasks, or in rows where a model is asked."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any  # Any: JSON values of a note

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tilth.transforms.stage import Headway


class Bars:
    """A context in which `update` moves the bar of a stage; silent unless a person is looking."""

    def __init__(self, *, enabled: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (
            TextColumn("{task.description:>8}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[told]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not (enabled and console.is_terminal))
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, seen: Headway) -> None:
        """Moves the bar of a stage; the first call makes it."""
        if seen.stage not in self._bars:
            self._bars[seen.stage] = self._progress.add_task(seen.stage, total=seen.total, told="")
        told = telling(seen)
        self._progress.update(self._bars[seen.stage], completed=seen.done, total=seen.total, told=told)


def telling(seen: Headway) -> str:
    """What stands beside the bar of a stage that asks a model: time left, tokens/s, requests in flight, cost."""
    if not seen.notes:
        return ""
    left = _left(seen, seen.notes)
    parts = [] if left is None else [f"{left} left"]
    parts.append(f"{sum(map(_tokens_per_s, seen.notes)):,.0f} tokens/s")
    parts.append(f"{sum(note['in_flight'] for note in seen.notes)} in flight")
    if cost := sum(note["cost"] for note in seen.notes):
        parts.append(f"cost {cost:,.2f}")
    return ", ".join(parts)


def _tokens_per_s(note: Mapping[str, Any]) -> float:
    seconds = note["seconds"]
    return (note["prompt_tokens"] + note["completion_tokens"]) / seconds if seconds else 0.0


def _left(seen: Headway, notes: Sequence[Mapping[str, Any]]) -> timedelta | None:
    # By rows that took a call: rows from the cache come at once, and first.
    asked = sum(note["rows"] - note["hits"] for note in notes)
    if seen.done >= seen.total or asked <= 0:
        return None
    seconds = max(note["seconds"] for note in notes)
    return timedelta(seconds=round((seen.total - seen.done) * seconds / asked))
