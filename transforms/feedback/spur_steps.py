"""The steps around SPUR's model: rows in, requests out; answers in, scores out. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tilth.transforms.feedback import spur
from tilth.transforms.feedback.spur_rubric import Rubric, SpurConfig, numbered_items
from tilth.transforms.inference.asking import answered, write_questions
from tilth.transforms.stage import Output, Task, rows_of


@dataclass(frozen=True, slots=True)
class Apart:
    """Divides labelled conversations. Input: `labelled`. Writes `examples`, and `trials` for the thresholds."""

    config: SpurConfig = field(default_factory=SpurConfig)
    name: ClassVar[str] = "spur_apart"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task over all parts."""
        examples, trials = spur.apart(rows_of(task, "labelled"), self.config)
        out.write("examples", examples)
        out.write("trials", trials)


@dataclass(frozen=True, slots=True)
class ExtractRequests:
    """Asks for reasons. Input: labelled `conversations`. Writes `requests` and `asked`."""

    config: SpurConfig = field(default_factory=SpurConfig)
    name: ClassVar[str] = "spur_extract"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        write_questions(spur.extract_requests(rows_of(task, "conversations"), self.config), out)


@dataclass(frozen=True, slots=True)
class MergeRequests:
    """Asks for a rubric with a batch of reasons worked in. Options: `running` and `found`, by side."""

    config: SpurConfig = field(default_factory=SpurConfig)
    name: ClassVar[str] = "spur_merge"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per round."""
        held = task.options["running"].items()
        running = {
            side: numbered_items(side, [(n, d) for n, d in items], self.config.items) for side, items in held
        }
        write_questions(spur.merge_requests(running, task.options["found"], self.config), out)


@dataclass(frozen=True, slots=True)
class ScoreRequests:
    """Asks about all items of a rubric. Input: `conversations` (id, messages). Writes `requests` and `asked`."""

    rubric: Rubric
    config: SpurConfig = field(default_factory=SpurConfig)
    name: ClassVar[str] = "spur_score"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations = rows_of(task, "conversations").select("id", "messages")
        write_questions(spur.score_requests(conversations, self.rubric, self.config), out)


@dataclass(frozen=True, slots=True)
class ReadScores:
    """Reads scores. Inputs: `asked`, `completions`, `quarantine`. Writes `scores` and `set_aside`."""

    rubric: Rubric
    model: str
    name: ClassVar[str] = "spur_scores"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        completions, failed = answered(task)
        found = spur.scores(rows_of(task, "asked"), completions, failed, self.rubric, self.model)
        out.write("scores", found.scores)
        out.write("set_aside", found.set_aside)
        out.count("conversations", found.scores.height + found.set_aside.height)
