"""What `tilth judge report` does: reads votes from the catalog or a file, reports on judges, prints tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple  # Any: the values of a report

import polars as pl
from rich.console import Console
from rich.markup import escape

from tilth.flows.show import print_rows
from tilth.schemas import BadInput, ConfigError
from tilth.transforms.judging.protocol import Aggregation, Judge
from tilth.transforms.judging.read_votes import LabelTable, VerdictOf, read_gold, read_votes
from tilth.transforms.judging.report import Report, label_report, report, with_gold
from tilth.transforms.judging.votes import FACTS, votes_of


@dataclass(frozen=True, slots=True)
class Asked:
    """What `tilth judge report` is asked; None leaves a setting to the protocol that is stored with the dataset.

    Args:
        dataset: judgments of the catalog, as `wildfeedback.judgments`, or with `@version`; empty for a file.
        verdicts: a table of verdicts; empty for a dataset.
        gold: a table with `item_id` and `gold`, or empty.
        columns: names of columns, each `known=given`.
        verdict_of: whose verdict a file holds: `canonical` or `shown`.
        rule: see `Aggregation`.
        tie_margin: see `Aggregation`.
        weights: the panel, as `large=2,small=1`.
        seed: draws orders and folds.
    """

    dataset: str = ""
    verdicts: str = ""
    gold: str = ""
    columns: tuple[str, ...] = ()
    verdict_of: VerdictOf = "canonical"
    rule: str | None = None
    tie_margin: float | None = None
    weights: str | None = None
    seed: int = 0


class _Read(NamedTuple):
    """Votes, facts of the items, and the settings that are stored with them."""

    votes: pl.DataFrame
    facts: pl.DataFrame
    stored: Mapping[str, Any]


def judge_report(asked: Asked, workspace: str) -> Report:
    """What is known of the judges of a dataset or a file: see `report` and `label_report`.

    Raises `ConfigError` unless exactly one of dataset and file is named, `NotFound` for a dataset that is not there,
    and `BadInput` for tables that cannot be read or hold no votes on pairs.
    """
    if bool(asked.dataset) == bool(asked.verdicts):
        raise ConfigError("what to report on", wanted="a dataset or --verdicts FILE, one of them")
    columns = _map(asked.columns)
    read = _from_catalog(workspace, asked.dataset) if asked.dataset else _from_file(asked, columns)
    if isinstance(read, LabelTable):
        return {"source": asked.verdicts, **label_report(read)}
    if read.votes.is_empty():
        raise BadInput(
            asked.dataset or asked.verdicts,
            found="no votes on pairs",
            wanted="judgments that compare two replies",
            do="ratings are no votes: name judgments of wildfeedback, or of ultrafeedback's tournament",
        )
    facts = with_gold(read.facts, read_gold(asked.gold)) if asked.gold else read.facts
    aggregation = _aggregation(asked, read.stored)
    weights = _weights(asked.weights) or _stored_weights(read)
    found = report(read.votes, facts, aggregation, weights, asked.seed)
    return {"source": asked.dataset or asked.verdicts, **found}


def _map(columns: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in columns]
    wrong = [known for known, sign, given in pairs if not (known and sign and given)]
    if wrong:
        raise ConfigError("--map", found=", ".join(wrong), wanted="known=given, as item_id=question_id")
    return {known: given for known, _, given in pairs}


def _from_file(asked: Asked, columns: Mapping[str, str]) -> _Read | LabelTable:
    table = read_votes(asked.verdicts, columns, asked.verdict_of)
    return table if isinstance(table, LabelTable) else _Read(table.votes, table.facts, {})


def _from_catalog(workspace: str, name: str) -> _Read:
    from tilth.catalog import open_catalog

    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(name)
        if version.table != "judgments":
            raise ConfigError("a dataset of judgments", found=name, wanted=f"{version.family}.judgments")
        rows = catalog.frame(f"{version.name}@{version.version}")
        judgments = rows.filter(pl.col("kind") == "pairwise").drop("text").collect()
        beside = [one for one in catalog.release(version) if one.table == "responses"]
        said = [
            catalog.frame(f"{one.name}@{one.version}").select("id", chars=_CHARS).collect() for one in beside
        ]
    stored = json.loads(version.properties.get("tilth.protocol", "{}"))
    return _Read(votes_of(judgments), _facts(judgments, said[0] if said else None), stored)


_CHARS: Final = (
    pl.col("completion")
    .list.eval(pl.element().struct.field("content").str.len_chars())
    .list.sum()
    .cast(pl.Int64)
)


def _facts(judgments: pl.DataFrame, said: pl.DataFrame | None) -> pl.DataFrame:
    """The lengths of the replies that were compared, where the release has them."""
    items = judgments.select(
        "item_id", *(pl.col("response_ids").list.get(n).alias(side) for n, side in enumerate("ab"))
    ).unique()
    for side in "ab":
        chars = (
            said.rename({"id": side, "chars": f"chars_{side}"})
            if said is not None
            else pl.DataFrame(schema={side: pl.String, f"chars_{side}": pl.Int64})
        )
        items = items.join(chars, on=side, how="left")
    return items.with_columns(gold=pl.lit(None, pl.String)).select(FACTS.names()).sort("item_id")


def _aggregation(asked: Asked, stored: Mapping[str, Any]) -> Aggregation:
    given = {"rule": asked.rule, "tie_margin": asked.tie_margin}
    settings: dict[str, Any] = dict(stored.get("aggregation", {}))
    settings.update({name: value for name, value in given.items() if value is not None})
    return Aggregation(**settings)


def _weights(text: str | None) -> dict[str, float] | None:
    judges = [Judge.of(one.strip()) for one in (text or "").split(",") if one.strip()]
    return {judge.name: judge.weight for judge in judges} or None


def _stored_weights(read: _Read) -> dict[str, float] | None:
    return {judge["name"]: judge["weight"] for judge in read.stored.get("judges", ())} or None


# Printing


def print_judge_report(found: Report) -> None:
    """Prints a report for people: what cannot be known is left blank."""
    console = Console(highlight=False)
    counts = f"{found['items']:,} items, {found['gold_items']:,} with gold"
    console.print(f"[bold]{escape(found['source'])}[/bold]: {counts}", soft_wrap=True)
    if found["kind"] == "votes":
        _print_votes(console, found)
    else:
        _print_labels(found)


def _print_votes(console: Console, found: Report) -> None:
    how = found["aggregation"]
    console.print(
        f"{found['votes']:,} votes; rule {how['rule']}, ties up to a margin of {how['tie_margin']:g}"
    )
    judges = found["judges"]
    print_rows([_verdicts(one) for one in [*judges, {"judge": "panel", **found["panel"]}]], "", "verdicts")
    print_rows([_position(one) for one in judges], "", "position (0.5: no bias)")
    if any(one["length"]["longer_preferred"]["n"] for one in judges):
        print_rows([_length(one) for one in judges], "", "length")
    if found["gold_items"]:
        print_rows([*(_gold(one) for one in judges), *_gold_of_others(found)], "", "against gold")
    _print_between(found["agreement"])
    _print_panel(console, found["panel"])


def _verdicts(one: Report) -> dict[str, Any]:
    shares = {name: _interval(one[name]) for name in ("tie", "inconsistent", "failed")}
    votes = {"votes": one.get("votes"), "failed votes": one.get("failed_votes")}
    counts = {name: one["verdicts"][name] for name in ("win", "loss")}
    return {"judge": one["judge"], "weight": one.get("weight"), **votes, **counts, **shares}


def _position(one: Report) -> dict[str, Any]:
    place, same = one["position"], one["consistency"]
    return {
        "judge": one["judge"],
        "first shown preferred": _interval(place["first_preferred"]),
        "conflict": _interval(place["conflict"]),
        "right first - second": _interval(place["accuracy_difference"]),
        "without flips": _number(place["denoised"]),
        "agrees with itself": _number(same["p"]),
    }


def _length(one: Report) -> dict[str, Any]:
    size = one["length"]
    return {
        "judge": one["judge"],
        "longer preferred": _interval(size["longer_preferred"]),
        "by people": _interval(size["gold_longer"]),
        "right where longer": _interval(size["right_where_longer"]),
        "elsewhere": _interval(size["right_elsewhere"]),
        "difference": _interval(size["accuracy_difference"]),
        "without flips": _number(size["denoised"]),
    }


def _gold(one: Report) -> dict[str, Any]:
    gold = one["gold"]
    names = {"both": "right in both", "random": "in a random order", "both_denoised": "without flips"}
    right = {word: _number(gold["accuracy"][name]) for name, word in names.items()}
    return {"judge": one["judge"], **_agreement(gold), **right}


def _gold_of_others(found: Report) -> list[dict[str, Any]]:
    size = found["judges"][0]["length"]
    alone = {
        "agreement": size["baseline"],
        "kappa": size["baseline_kappa"],
        "n": None,
        "pi": None,
        "alpha": None,
    }
    rows = [{"judge": "panel", **_agreement(found["panel"]["gold"])}]
    return rows if size["baseline"] is None else [*rows, {"judge": "(length alone)", **_agreement(alone)}]


def _agreement(one: Report) -> dict[str, Any]:
    return {"n": one["n"], **{name: _number(one[name]) for name in ("agreement", "kappa", "pi", "alpha")}}


def _print_between(between: Report) -> None:
    if between["pairs"]:
        alpha = _number(between["alpha"]) or "unknown"
        rows = [{"judges": f"{one['one']}, {one['other']}", **_agreement(one)} for one in between["pairs"]]
        print_rows(rows, "", f"agreement between judges (alpha of all: {alpha})")


def _print_panel(console: Console, panel: Report) -> None:
    console.print(f"for a person: {panel['needs_person']:,} items, those whose votes are least at one")
    made = panel["calibration"]
    if made is None:
        console.print(f"not calibrated: {escape(panel['not_calibrated'])}")
        return
    errors = {"Brier": "brier", "ECE": "ece"}
    rows = [
        {"": word, "votes": made[f"{name}_before"], "calibrated": made[f"{name}_after"]}
        for word, name in errors.items()
    ]
    print_rows(rows, "", f"calibration on {made['n']:,} gold items ({made['method']} of {made['signal']})")
    print_rows([dict(one) for one in made["after"]], "", "calibrated probabilities, on items not fitted on")


def _print_labels(found: Report) -> None:
    print_rows([{"judge": one["judge"], **_agreement(one)} for one in found["judges"]], "", "against people")
    errors = {
        "precision": "precision",
        "recall": "recall",
        "false_positive_rate": "false positives",
        "score_delta": "score delta",
        "group_score_delta": "mean by group",
        "right_criterion": "P_c",
        "yes_otherwise": "P_+",
    }
    rows = [
        {
            "judge": one["judge"],
            **{word: _number(one[name]) for name, word in errors.items()},
            "ranking": _ranking(one),
        }
        for one in found["judges"]
    ]
    print_rows(rows, "", "errors and leniency")
    _print_between(found["agreement"])


def _ranking(one: Report) -> str:
    return _number(one["ranking"]["rho"]) if one["ranking"] else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(share: Mapping[str, Any]) -> str:
    if share["value"] is None:
        return ""
    return f"{share['value']:.3f} [{share['low']:.3f}, {share['high']:.3f}]"
