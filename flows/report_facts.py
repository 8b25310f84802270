"""What a report says of a dataset, gathered as plain values.

Counts come from the tables, streamed; the rest from what is stored with the version. Text of rows is only gathered for
samples, which are asked for by number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final  # Any: JSON values

import polars as pl

from tilth.catalog import Catalog, Version
from tilth.schemas import BadInput, NotFound

STEPS: Final = (
    0,
    *(step * 10**power for power in range(7) for step in (1, 2, 5)),
)  # 0, 1, 2, 5, 10, ... 5,000,000
COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    "conversations": ("language", "model"),
    "feedback": ("polarity", "dialogue_state", "method"),
    "pairs": ("origin", "verdict", "method"),
    "unpaired": ("label", "method"),
    "rationales": ("kind", "side", "method"),
    "rubrics": ("method",),
    "preferences": ("method",),
    "responses": ("role", "model"),
    "judgments": ("kind", "judge", "verdict"),
    "ratings": ("model",),
    "quarantine": ("stage", "reason"),
}
"""Columns whose values are counted, by table."""
MEASURED: Final[Mapping[str, tuple[str, ...]]] = {
    "feedback": ("strength",),
    "pairs": ("margin",),
    "unpaired": ("weight",),
    "rationales": ("vote_share",),
    "rubrics": ("separation",),
    "ratings": ("rating",),
    "evaluation": ("distance",),
}
"""Columns of numbers whose distribution is shown, by table."""
CHATS: Final = ("messages", "prompt", "chosen", "rejected", "completion", "reference")
_MOST_NAMES: Final = 12
_NUMBER_BINS: Final = 12
_DRIFTED: Final = ("_share", "_mean")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says. Holds no text of a row but in `samples`.

    Args:
        version: the dataset. tables: dataset -> rows, of all tables of its release. splits: split -> rows.
        counts: column -> value -> rows, most first; the rest under "(others)".
        labels: polarity and label -> signals, of the feedback behind the dataset.
        numbers: column -> edges and counts of bins, low, median and high.
        lengths: messages -> counts of bins of characters between `STEPS`. pairwise: bin of chosen and rejected -> rows.
        models: model -> rows in which it wrote the chosen and the rejected reply, or the reply.
        judges: a row for each judge. factors: a row for each measured factor.
        checks: of the audit, failures first. drift: metric, value before and now. before: the version compared with.
        set_aside: what was not used: heading -> reason -> count. lineage: table -> what it is made from.
        made: other things stored with the version. samples: rows, with their text.
    """

    version: Version
    tables: Mapping[str, int]
    splits: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    labels: Mapping[tuple[str, str], int]
    numbers: Mapping[str, Mapping[str, Any]]
    lengths: Mapping[str, Sequence[int]]
    pairwise: Mapping[tuple[int, int], int]
    models: Mapping[str, Sequence[int]]
    judges: Sequence[Mapping[str, Any]]
    factors: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, Any]]
    drift: Sequence[Mapping[str, Any]]
    before: str | None
    set_aside: Mapping[str, Mapping[str, int]]
    lineage: Mapping[str, Sequence[str]]
    made: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def gather(catalog: Catalog, workspace: str, name: str, samples: int = 0) -> Facts:
    """What is known of a dataset. Raises `NotFound` for an unknown one."""
    version = catalog.resolve(name)
    rows = catalog.frame(_named(version))
    table = version.table
    stored = {key.removeprefix("tilth."): _plain(value) for key, value in version.properties.items()}
    behind = _behind(catalog, version, stored.get("parents") or [])
    lengths = [column for column in CHATS if column in rows.collect_schema().names()]
    before, drift = _drift(catalog, version)
    return Facts(
        version=version,
        tables={one.name: one.rows for one in catalog.release(version)},
        splits=_count(rows, pl.col("split")) if "split" in rows.collect_schema().names() else {},
        counts={column: _count(rows, pl.col(column)) for column in COUNTED.get(table, ())},
        labels=_labels(catalog, behind),
        numbers={column: _spread(rows, column) for column in MEASURED.get(table, ())},
        lengths={column: _binned(rows, column) for column in lengths},
        pairwise=_pairwise(rows) if table == "pairs" else {},
        models=_models(rows, table),
        judges=_judges(workspace, behind),
        factors=stored.get("factors") or [],
        checks=_checks(version),
        drift=drift,
        before=before,
        set_aside=_set_aside(stored.get("summary") or {}),
        lineage=stored.get("lineage") or {},
        made=_made(stored),
        samples=_samples(rows, samples),
    )


def _named(version: Version) -> str:
    return f"{version.name}@{version.version}"


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _behind(catalog: Catalog, version: Version, parents: Sequence[str]) -> list[Version]:
    """The datasets of its release, then those of the releases that it was made from, as far as they are there."""
    found = list(catalog.release(version))
    for name in parents:
        try:
            parent = catalog.resolve(name)
        except NotFound:
            continue
        found += _behind(catalog, parent, _plain(parent.properties.get("tilth.parents", "[]")))
    return found


def _count(rows: pl.LazyFrame, value: pl.Expr) -> dict[str, int]:
    """Rows by value, most first; values beyond the most frequent together. Null is "(none)"."""
    named = value.cast(pl.String).fill_null("(none)").alias("value")
    found = rows.select(named).group_by("value").len().collect(engine="streaming")
    listed = list(found.sort(["len", "value"], descending=[True, False]).iter_rows())
    kept, rest = listed[:_MOST_NAMES], listed[_MOST_NAMES:]
    return dict([*kept, *([("(others)", sum(count for _, count in rest))] if rest else [])])


def _chars(column: str) -> pl.Expr:
    """Characters of all messages of a column."""
    content = pl.element().struct.field("content").str.len_chars()
    return pl.col(column).list.eval(content).list.sum()


def _bin(value: pl.Expr) -> pl.Expr:
    """The place in `STEPS` of the last edge that is not above the value."""
    return pl.sum_horizontal(*((value >= edge).cast(pl.Int32) for edge in STEPS[1:-1]))


def _binned(rows: pl.LazyFrame, column: str) -> list[int]:
    binned = rows.filter(pl.col(column).is_not_null()).select(at=_bin(_chars(column)))
    found = dict(binned.group_by("at").len().collect(engine="streaming").iter_rows())
    return [found.get(at, 0) for at in range(len(STEPS) - 1)]


def _pairwise(rows: pl.LazyFrame) -> dict[tuple[int, int], int]:
    binned = rows.select(chosen=_bin(_chars("chosen")), rejected=_bin(_chars("rejected")))
    found = binned.group_by("chosen", "rejected").len().collect(engine="streaming")
    return {(chosen, rejected): count for chosen, rejected, count in found.iter_rows()}


def _spread(rows: pl.LazyFrame, column: str) -> dict[str, Any]:
    """Bins of equal width, with the ends and the middle; nothing without values."""
    value = pl.col(column)
    known = rows.filter(value.is_finite())
    low, median, high = known.select(
        low=value.min(), median=value.median(), high=value.max()
    ).collect(engine="streaming").row(0)  # fmt: skip
    if low is None:
        return {}
    bins = _NUMBER_BINS if high > low else 1
    width = (high - low) / bins or 1.0
    at = ((value - low) / width).floor().clip(0, bins - 1).cast(pl.Int32)
    found = dict(known.group_by(at=at).len().collect(engine="streaming").iter_rows())
    edges = [low + width * place for place in range(bins)] + [high if high > low else low + width]
    counts = [found.get(place, 0) for place in range(bins)]
    return {"edges": edges, "counts": counts, "low": low, "median": median, "high": high}


def _labels(catalog: Catalog, behind: Sequence[Version]) -> dict[tuple[str, str], int]:
    """Signals by polarity and label, of the nearest feedback."""
    for version in behind:
        if version.table == "feedback":
            rows = catalog.frame(_named(version)).select("polarity", "labels").explode("labels")
            counted = rows.drop_nulls().group_by("polarity", "labels").len().collect(engine="streaming")
            listed = counted.sort(["polarity", "len", "labels"], descending=[True, True, False]).iter_rows()
            return {(polarity, label): count for polarity, label, count in listed}
    return {}


def _models(rows: pl.LazyFrame, table: str) -> dict[str, list[int]]:
    """Rows by the model that wrote chosen and rejected, or the one reply."""
    if table == "pairs":
        sides = [
            _count(rows, pl.col("models").struct.field(side)) for side in ("chosen", "rejected")
        ]  # fmt: skip
    elif "model" in rows.collect_schema().names():
        sides = [_count(rows, pl.col("model"))]
    else:
        sides = []
    names = sorted({name for side in sides for name in side} - {"(none)"})
    return {name: [side.get(name, 0) for side in sides] for name in names}


def _judges(workspace: str, behind: Sequence[Version]) -> list[dict[str, Any]]:
    """What the nearest judgments of pairs say of each judge."""
    from tilth.flows.judge import Asked, judge_report

    for version in behind:
        if version.table == "judgments" and version.rows:
            try:
                found = judge_report(Asked(dataset=_named(version)), workspace)
            except BadInput:  # ratings alone: no votes on pairs
                continue
            return [
                {
                    "judge": one["judge"],
                    "items": one["items"],
                    "votes": one["votes"],
                    "failed": one["failed_votes"],
                    "verdicts": one["verdicts"],
                    "first_preferred": one["position"]["first_preferred"]["value"],
                    "conflict": one["position"]["conflict"]["value"],
                }
                for one in found["judges"]
            ]
    return []


def _checks(version: Version) -> list[Mapping[str, Any]]:
    """What the stored audit says of a version's table, failures first; nothing where none is kept."""
    report = version.stored_audit()
    return [check for check in (report.rows() if report else ()) if check["table"] == version.table]


def _drift(catalog: Catalog, version: Version) -> tuple[str | None, list[dict[str, Any]]]:
    """Shares and means that differ from those of the version before, furthest first."""
    older = catalog.earlier(version)
    now, then = version.metrics(), older[0].metrics() if older else {}
    told = [
        {"metric": metric, "before": then[metric], "now": value}
        for metric, value in now.items()
        if (metric == "rows" or metric.endswith(_DRIFTED))
        and value is not None
        and then.get(metric) not in (None, value)
    ]
    return (older[0].version if then else None), sorted(told, key=_change, reverse=True)


def _change(one: Mapping[str, Any]) -> float:
    return abs(one["now"] - one["before"]) / (abs(one["before"]) or 1.0)


def _set_aside(summary: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    headings = {
        "quarantined": "Source rows in quarantine, by reason",
        "dropped": "Candidates for pairs and labels that were not used, by reason",
        "passed_over": "Conversations that were not mined, by language",
    }
    found = {heading: dict(summary.get(key) or {}) for key, heading in headings.items()}
    return {heading: counts for heading, counts in found.items() if counts}


def _made(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is stored, what a reader is told: never the configuration itself, nor where files lie."""
    summary = stored.get("summary") or {}
    sources = [
        {**one, "source": str(one["source"]).rstrip("/").rpartition("/")[2]}
        for one in summary.get("sources") or ()
    ]
    keys = ("run_id", "config_sha", "code_version", "parents", "licences", "stream", "elo")
    told = {key: stored[key] for key in keys if stored.get(key)}
    return {**told, "sources": sources, "warnings": list(summary.get("warnings") or ())}


def _samples(rows: pl.LazyFrame, count: int) -> list[dict[str, Any]]:
    """The rows with the smallest ids: ids are hashes, so this is a draw, and the same one each time."""
    return rows.bottom_k(count, by="id").collect(engine="streaming").sort("id").to_dicts() if count else []
