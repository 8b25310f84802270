"""The steps around a judge: items in, requests out; answers in, judgments out. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Protocol
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
        write_questions(questions, out)
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
