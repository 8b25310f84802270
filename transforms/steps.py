"""The steps of the model-free recipes: each reads parts, calls pure rules, writes parts. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

import polars as pl

from tilth.schemas import conform, empty, polars_schema
from tilth.transforms.feedback import VERSION as FEEDBACK_VERSION
from tilth.transforms.feedback import FeedbackRules, mine, observe_reactions
from tilth.transforms.hygiene import SplitConfig, assign
from tilth.transforms.pairs import (
    PairPolicy,
    bucket,
    recovery_pairs,
    settle,
    sibling_pairs,
    unpaired_labels,
)
from tilth.transforms.parts import read_part, read_range
from tilth.transforms.rationales import user_complaints
from tilth.transforms.stage import Output, Task, rows_of

# Candidates are sorted by so many buckets of prompts; a settle task reads a range of them.
BUCKETS: Final = 1024
CANDIDATE_ROWS: Final = 1024  # per row group, so that a range can be read without the rest


@dataclass(frozen=True, slots=True)
class Assign:
    """Finds duplicates over all conversations and gives each its split; reads keys only.

    Inputs: the `keys` parts of ingest. Writes one `assignments` part (keep, reason, split) for each, row for row.
    Memory: about 60 bytes per conversation.
    """

    name: ClassVar[str] = "assign"
    version: ClassVar[str] = "1"
    splits: SplitConfig = field(default_factory=SplitConfig)

    def run(self, task: Task, out: Output) -> None:
        """One task over all parts."""
        shards = task.inputs["keys"]
        assigned = assign(pl.concat([read_part(shard) for shard in shards]), self.splits)
        offset = 0
        for shard in shards:
            out.write("assignments", assigned.slice(offset, shard.rows))
            offset += shard.rows


@dataclass(frozen=True, slots=True)
class Mine:
    """Sets duplicates aside and mines feedback by rules and reactions.

    Inputs: one `conversations` part and its `assignments`. Writes final `conversations` and `feedback`, and
    `signals`: feedback as every path of a tree sees it, which pairing needs.
    """

    name: ClassVar[str] = "mine"
    version: ClassVar[str] = f"1+{FEEDBACK_VERSION}"
    rules: FeedbackRules = field(default_factory=FeedbackRules)

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        (shard,), (assigned,) = task.inputs["conversations"], task.inputs["assignments"]
        verdicts = read_part(assigned)
        everything = read_part(shard).with_columns(
            verdicts.get_column("split"), verdicts.get_column("reason")
        )
        conversations = everything.filter(verdicts.get_column("keep")).drop("reason")
        out.write("conversations", conversations)
        out.write("quarantine", _set_aside(everything.filter(~verdicts.get_column("keep"))))
        mined = mine(conversations, self.rules)
        signals = pl.concat([mined.feedback, observe_reactions(conversations)])
        out.write("feedback", signals.filter("owned").drop("owned"))
        out.write("signals", signals)
        for language, count in mined.passed_over.iter_rows():
            out.count(f"passed_over.{language}", count)


def _set_aside(rows: pl.DataFrame) -> pl.DataFrame:
    payload = pl.struct("source_id", "messages").struct.json_encode().str.slice(0, 65_536)
    return rows.select(
        "source",
        pl.lit("assign").alias("stage"),
        "reason",
        pl.concat_str(
            [pl.col("source"), pl.col("source_id").fill_null(pl.col("id"))], separator="#id="
        ).alias("key"),
        pl.lit("another record of the run has the same id or the same content").alias("detail"),
        payload.alias("payload"),
        pl.col("record_rows").alias("source_rows"),
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """Proposes pairs, labels and rationales from what users said and did.

    Inputs: final `conversations` and their `signals`. Writes candidates; `Settle` decides over all of them.
    """

    name: ClassVar[str] = "pair"
    version: ClassVar[str] = "1"
    policy: PairPolicy = field(default_factory=PairPolicy)

    def run(self, task: Task, out: Output) -> None:
        """One task per part."""
        conversations = rows_of(task, "conversations")
        signals = rows_of(task, "signals", pl.Schema({**polars_schema("feedback"), "owned": pl.Boolean()}))
        recovered = recovery_pairs(conversations, signals, self.policy)
        siblings = sibling_pairs(conversations, self.policy, signals)
        labels = unpaired_labels(conversations, signals, self.policy)
        pairs = pl.concat([recovered.kept, siblings.kept])
        out.write("candidate_pairs", in_buckets(pairs), CANDIDATE_ROWS)
        out.write("candidate_unpaired", in_buckets(labels.kept), CANDIDATE_ROWS)
        out.write("candidate_rationales", user_complaints(pairs, signals, conversations))
        out.write("quarantine", pl.concat([recovered.dropped, siblings.dropped, labels.dropped]))


@dataclass(frozen=True, slots=True)
class Settle:
    """Decides between candidates from everywhere: duplicates, contradictions, splits; shuffles what stays.

    Inputs: all candidate parts. A task takes one of several shares of the prompts (options `bucket`, `buckets`), so
    equal prompts meet.
    """

    name: ClassVar[str] = "settle"
    version: ClassVar[str] = "1"
    seed: int = 0

    def run(self, task: Task, out: Output) -> None:
        """One task per bucket."""
        pairs = _bucket_of(task, "pairs")
        unpaired = _bucket_of(task, "unpaired")
        rationales = rows_of(task, "rationales")
        rationales = rationales.join(pairs, left_on="pair_id", right_on="id", how="semi")
        settled = settle(pairs, unpaired, rationales, self.seed)
        out.write("pairs", settled.pairs)
        out.write("unpaired", settled.unpaired)
        out.write("rationales", settled.rationales)
        out.write("quarantine", settled.dropped)


def in_buckets(candidates: pl.DataFrame) -> pl.DataFrame:
    """Candidates sorted by the bucket of their prompt, as `Settle` reads them."""
    return candidates.with_columns(bucket(candidates, BUCKETS)).sort("bucket", maintain_order=True)


def _bucket_of(task: Task, table: str) -> pl.DataFrame:
    number, of = task.options["bucket"], task.options["buckets"]
    low, high = -(-number * BUCKETS // of), -(-(number + 1) * BUCKETS // of)
    frames = (read_range(shard, "bucket", low, high).drop("bucket") for shard in task.inputs[table])
    return pl.concat([empty(table), *(conform(frame, table) for frame in frames)])
