"""The steps on both sides of judging for training: labelled pairs in, pairs over judgments out. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from tilth.transforms.inference.requests import REQUESTS
from tilth.transforms.judging.curation import Curation, judge_training_pairs
from tilth.transforms.judging.items import ASKED, ITEMS, items
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.rubrics.criteria import sides_of
from tilth.transforms.stage import Output, Task, rows_of
from tilth.transforms.steps import CANDIDATE_ROWS, in_buckets


@dataclass(frozen=True, slots=True)
class LabelItems:
    """Lists pairs to be judged; the first reply of an item is the chosen one. Input: `pairs`. Writes `items`.

    Counts the rows under the option `source`, where it is given.
    """

    name: ClassVar[str] = "label_items"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        pairs = rows_of(task, "pairs")
        out.write("items", labelled_items(pairs))
        if source := task.options.get("source"):
            out.count(f"rows_in@{source}", pairs.height)


def labelled_items(pairs: pl.DataFrame) -> pl.DataFrame:
    """`ITEMS` of rows of `pairs`, without wishes: the first reply is the chosen one."""
    _, sides = sides_of(pairs)
    both = [list(replies) for replies in pairs.select("chosen", "rejected").iter_rows()]
    rows = pairs.select("prompt", "prompt_id", "conversation_id", "split").with_columns(
        pl.Series("replies", both, dtype=ITEMS["replies"]),
        sides.select(response_ids=pl.concat_list("chosen_id", "rejected_id")).to_series(),
        checklist=pl.lit([], pl.List(pl.String)),
    )
    return items(rows)


@dataclass(frozen=True, slots=True)
class JudgeTraining:
    """Sets right judgments against wrong ones; the first reply of every item is the better one.

    Inputs: `items`, `requests`, `asked`, `judgments`. Writes `candidate_pairs`, which `Settle` decides over, and
    `quarantine`.
    """

    protocol: Protocol
    config: Curation = field(default_factory=Curation)
    name: ClassVar[str] = "judge_training"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        listed = rows_of(task, "items", ITEMS)
        requests = rows_of(task, "requests", REQUESTS)
        asked = rows_of(task, "asked", ASKED)
        labels = listed.select("item_id", label=pl.lit("win"))
        judgments = rows_of(task, "judgments")
        ruled = judge_training_pairs(listed, requests, asked, judgments, labels, self.protocol, self.config)
        out.write("candidate_pairs", in_buckets(ruled.kept), CANDIDATE_ROWS)
        out.write("quarantine", ruled.dropped)
