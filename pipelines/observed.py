"""The recipe `observed`: what users said and did in logged conversations, without a model.

sources -> ingest -> assign -> mine -> pair -> settle -> rule rationales, rubrics
           |         |         |       |       |         rationales by measured differences; what a reply must do
           |         |         |       |       pairs, unpaired, rationales (complaints)
           |         |         |       candidates
           |         |         conversations, feedback
           |         duplicates, splits (keys only)
           conversations as logged, quarantine
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tilth.schemas import QuarantineOverflow, Reason
from tilth.transforms.feedback import FeedbackRules
from tilth.transforms.hygiene import SplitConfig
from tilth.transforms.ingest import Ingest
from tilth.transforms.pairs import PairPolicy
from tilth.transforms.parts import Shard
from tilth.transforms.rationales.factors import factor_agreement
from tilth.transforms.rationales.steps import RuleRationales
from tilth.transforms.rubrics.observed import ObservedRubrics
from tilth.transforms.stage import Manifest, Task, numbered, outputs, parts, total
from tilth.transforms.steps import BUCKETS, Assign, Mine, Pair, Settle

if TYPE_CHECKING:  # settings name `Observed`; what asks a model is loaded where one is asked
    from tilth.pipelines.means import Conduct, Inputs, Means

NAME = "observed"
# What the rows of each table were made from; what is not a table of the release is a source.
LINEAGE: Mapping[str, tuple[str, ...]] = {
    "conversations": ("sources",),
    "feedback": ("conversations",),
    "pairs": ("conversations", "feedback"),
    "unpaired": ("conversations", "feedback"),
    "rationales": ("pairs", "feedback"),
    "rubrics": ("pairs", "rationales"),
    "quarantine": ("sources", "conversations", "feedback", "rubrics"),
}
TABLES = tuple(LINEAGE)


@dataclass(frozen=True, slots=True)
class Observed:
    """The recipe's configuration; the fields are the keys of section `observed` in `tilth.yaml`."""

    seed: int = 0
    ingest: Ingest = field(default_factory=Ingest)
    splits: SplitConfig = field(default_factory=SplitConfig)
    feedback: FeedbackRules = field(default_factory=FeedbackRules)
    pairs: PairPolicy = field(default_factory=PairPolicy)
    bucket_rows: int = 100_000  # conversations per settle task, at most 1024 tasks; bounds its memory


@dataclass(frozen=True, slots=True)
class Observation:
    """What a run of the recipe made, before audit and commit."""

    tables: Mapping[str, list[Shard]]
    manifests: Mapping[str, list[Manifest]]  # by stage
    properties: Mapping[str, str] = field(
        default_factory=dict
    )  # kept with every version; keys start with `tilth.`


@dataclass(frozen=True, slots=True)
class Logged:
    """What every recipe over conversation logs begins with: conversations with splits, and feedback by rules."""

    ingested: list[Manifest]
    mined: list[Manifest]  # outputs: conversations, feedback, signals, quarantine

    def by_part(self) -> dict[str, Inputs]:
        """The `conversations` of each part, by its name."""
        return {f"{n:06d}": outputs(made, "conversations") for n, made in enumerate(self.mined)}

    @property
    def conversations(self) -> int:
        """How many conversations were logged, duplicates included."""
        return sum(shard.rows for shard in parts(self.ingested, "conversations"))


def read_logs(
    reads: Sequence[Mapping[str, Any]], config: Observed, conduct: Conduct, max_quarantine_share: float = 1.0
) -> Logged:
    """Ingests planned reads (`tilth.transforms.ingest.plan`), sets duplicates aside, gives splits, mines by rules.

    Raises `QuarantineOverflow` when more than `max_quarantine_share` of the source rows were set aside.
    """
    ingested = conduct(config.ingest, numbered(reads, [{}] * len(reads)))
    check_share(ingested, max_quarantine_share)
    logged = parts(ingested, "conversations")
    keys = tuple(parts(ingested, "keys"))
    assigned = (
        parts(conduct(Assign(config.splits), numbered([{}], [{"keys": keys}])), "assignments") if keys else []
    )
    mined = conduct(
        Mine(config.feedback), _tasks([_one(c, a) for c, a in zip(logged, assigned, strict=True)])
    )
    check_share([*ingested, *mined], max_quarantine_share)
    return Logged(ingested, mined)


def observe(
    reads: Sequence[Mapping[str, Any]], config: Observed, means: Means, max_quarantine_share: float = 1.0
) -> Observation:
    """Runs the recipe over planned reads. Raises `QuarantineOverflow`; see `read_logs`."""
    logged = read_logs(reads, config, means.conduct, max_quarantine_share)
    signals = [outputs(m, "conversations", "signals") for m in logged.mined]
    paired = means.conduct(Pair(config.pairs), _tasks(signals))
    settled = settle(paired, config, logged.conversations, means.conduct)
    pairs = [outputs(m, "pairs", "rationales") for m in settled if "pairs" in m.outputs]
    explained = means.conduct(RuleRationales(), _tasks(pairs))
    demanded = means.conduct(ObservedRubrics(), _tasks(pairs))
    stages = {"ingest": logged.ingested, "mine": logged.mined, "pair": paired, "settle": settled}
    stages |= {"rule_rationales": explained, "rubrics": demanded}
    return Observation(
        {table: _final(table, stages) for table in TABLES}, stages, agreement_property(explained)
    )


def settle(
    candidates: Sequence[Manifest], config: Observed, conversations: int, conduct: Conduct
) -> list[Manifest]:
    """Decides between candidates from everywhere; see the step `Settle`."""
    return conduct(Settle(config.seed), _buckets(candidates, conversations, config.bucket_rows))


def _final(table: str, stages: Mapping[str, list[Manifest]]) -> list[Shard]:
    where = {
        "conversations": ["mine"],
        "feedback": ["mine"],
        "quarantine": list(stages),
        "rubrics": ["rubrics"],
    }
    where["rationales"] = ["settle", "rule_rationales"]
    return [shard for stage in where.get(table, ["settle"]) for shard in parts(stages[stage], table)]


def _one(conversations: Shard, assignments: Shard) -> Mapping[str, tuple[Shard, ...]]:
    return {"conversations": (conversations,), "assignments": (assignments,)}


def _tasks(inputs: Sequence[Mapping[str, tuple[Shard, ...]]]) -> list[Task]:
    return numbered([{}] * len(inputs), inputs)


def _buckets(paired: Sequence[Manifest], conversations: int, bucket_rows: int) -> list[Task]:
    count = min(BUCKETS, max(1, -(-conversations // bucket_rows)))
    inputs = {name: tuple(parts(paired, f"candidate_{name}")) for name in ("pairs", "unpaired", "rationales")}
    options = [{"bucket": number, "buckets": count} for number in range(count)]
    return numbered(options, [inputs] * count)


def check_share(manifests: Sequence[Manifest], allowed: float) -> None:
    """Raises `QuarantineOverflow`, naming the worst reasons, when too large a share was set aside."""
    rows = total(manifests, "rows_in")
    reasons = {name: count for name, count in quarantined(manifests).items() if name != Reason.FORGOTTEN}
    share = sum(reasons.values()) / rows if rows else 0.0
    if share > allowed:
        worst = ", ".join(f"{reason}: {count}" for reason, count in list(reasons.items())[:3])
        raise QuarantineOverflow(
            f"{share:.1%} of {rows} source rows could not be used",
            found=worst,
            wanted=f"at most {allowed:.1%}",
            do="look with `tilth sources inspect`, mend the source, or raise max_quarantine_share",
        )


def quarantined(manifests: Sequence[Manifest], prefix: str = "quarantined.") -> dict[str, int]:
    """Source rows set aside by reason, most first; with prefix `dropped.`, candidates."""
    reasons = {name for manifest in manifests for name in manifest.counts if name.startswith(prefix)}
    counts = {name.removeprefix(prefix): total(manifests, name) for name in reasons}
    return dict(sorted(((k, v) for k, v in counts.items() if v), key=lambda item: (-item[1], item[0])))


def agreement_property(explained: Sequence[Manifest]) -> dict[str, str]:
    """How far each measured factor goes with the label, as the property `tilth.factors`; none without pairs."""
    prefix = "factor."
    names = {name for manifest in explained for name in manifest.counts if name.startswith(prefix)}
    counts = {name.removeprefix(prefix): total(explained, name) for name in names}
    rows = factor_agreement(counts).to_dicts() if counts else []
    return {"tilth.factors": json.dumps(rows)} if rows else {}
