"""The steps around a judge: items in, requests out; answers in, judgments out. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import polars as pl

from tilth.transforms.inference.answers import set_aside
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import COMPLETIONS
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Output, Task, rows_of


@dataclass(frozen=True, slots=True)
class JudgeRequests:
    """Renders what judges are asked about items. Input: `items` parts. Writes `requests` and `asked`."""

    protocol: Protocol
    name: ClassVar[str] = "judge_requests"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        items = rows_of(task, "items")
        questions = judge_requests(items, self.protocol)
        out.write("requests", questions.requests)
        out.write("asked", questions.asked)
        out.count("items", items.height)


@dataclass(frozen=True, slots=True)
class ReadJudgments:
    """Reads what one judge answered. Inputs: `items`, `asked`, `completions`, `quarantine`. Writes `judgments`."""

    protocol: Protocol
    judge: str
    model: str
    name: ClassVar[str] = "judgments"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        items = rows_of(task, "items")
        asked = rows_of(task, "asked")
        completions, failed = answered(task)
        rows = judgments(items, asked, completions, failed, self.judge, self.protocol, self.model)
        out.write("judgments", rows)
        for verdict, count in rows.group_by("verdict").len().iter_rows():
            out.count(f"{verdict}@{self.judge}", count)


def answered(task: Task) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the step `Ask` made of a part's requests: `COMPLETIONS`, and `FAILED` for those without an answer."""
    completions = [read_part(shard) for shard in task.inputs.get("completions", ())]
    failed = [set_aside(read_part(shard)) for shard in task.inputs.get("quarantine", ())]
    return pl.concat([pl.DataFrame(schema=COMPLETIONS), *completions]), pl.concat(
        [pl.DataFrame(schema=FAILED), *failed]
    )
