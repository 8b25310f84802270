"""What is known of judges from their votes, in one nested plain value: for JSON, for tables, for plots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final  # Any: the values of a report

import polars as pl

from tilth.schemas import BadInput
from tilth.schemas.labels import VERDICTS as OUTCOMES
from tilth.transforms.judging.aggregate import by_judge, by_panel
from tilth.transforms.judging.agreement import agreement, alpha, confusion, rank_correlation
from tilth.transforms.judging.bias import flags, length, position
from tilth.transforms.judging.calibration import calibrate
from tilth.transforms.judging.noise import accuracy, consistency, denoised, in_both_orders, towards_gold
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.read_votes import LabelTable
from tilth.transforms.judging.votes import FACTS, checked

Report = dict[str, Any]

_DECIDED: Final = ("win", "loss", "tie")
_UNSETTLED: Final = ("tie", "inconsistent", "failed")


def with_gold(facts: pl.DataFrame, gold: pl.DataFrame) -> pl.DataFrame:
    """`FACTS` with what people said in another table. Raises `BadInput` where the two contradict each other."""
    joined = facts.join(gold.select("item_id", other="gold"), on="item_id", how="full", coalesce=True)
    against = joined.filter(pl.col("gold") != pl.col("other")).height
    if against:
        raise BadInput("gold of the verdicts and gold of its own", found=f"{against} items that contradict")
    return joined.with_columns(pl.coalesce("gold", "other")).select(FACTS.names()).sort("item_id")


def report(
    votes: pl.DataFrame,
    facts: pl.DataFrame,
    aggregation: Aggregation,
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Report:
    """What these votes say of each judge, of the panel, and of how judges agree; null is what they cannot say.

    Args:
        votes: `VOTES`.
        facts: `FACTS`, of any items; those without votes do not count.
        aggregation: how votes become verdicts.
        weights: of the whole panel; without, every judge that voted has weight 1.
        seed: draws orders (`random`) and folds (calibration).

    Raises `BadInput` for votes that cannot be meant, `ConfigError` for a judge that the panel does not have.
    """
    votes = checked(votes)
    facts = facts.join(votes.select("item_id").unique(), on="item_id", how="semi")
    weights = weights or dict.fromkeys(votes.get_column("judge").unique().sort().to_list(), 1.0)
    one = by_judge(votes, aggregation)
    verdicts = by_panel(votes, aggregation, weights)
    gold = facts.filter(pl.col("gold").is_not_null())
    return {
        "kind": "votes",
        "items": verdicts.height,
        "gold_items": gold.height,
        "votes": votes.height,
        "aggregation": asdict(aggregation),
        "judges": [
            {"judge": judge, "weight": weights[judge], **_judge(*parts, facts, seed)}
            for judge, parts in _by_name(votes, one)
        ],
        "panel": _panel(verdicts, gold, seed),
        "agreement": _between(one),
    }


def _by_name(
    votes: pl.DataFrame, one: pl.DataFrame
) -> Iterator[tuple[str, tuple[pl.DataFrame, pl.DataFrame]]]:
    for judge in one.get_column("judge").unique().sort():
        yield judge, (votes.filter(judge=judge), one.filter(judge=judge))


def _judge(votes: pl.DataFrame, one: pl.DataFrame, facts: pl.DataFrame, seed: int) -> Report:
    gold = facts.filter(pl.col("gold").is_not_null())
    return {
        "items": one.height,
        "votes": votes.height,
        "failed_votes": int((votes.get_column("verdict") == "failed").sum()),
        **_outcomes(one),
        "position": asdict(position(votes, one, gold)),
        "length": asdict(length(votes, one, facts)),
        "consistency": _self_consistency(votes),
        "gold": _against_gold(votes, one, gold, seed),
    }


def _outcomes(verdicts: pl.DataFrame) -> Report:
    said = verdicts.get_column("verdict")
    return {
        "verdicts": {verdict: int((said == verdict).sum()) for verdict in OUTCOMES},
        **{verdict: asdict(flags(verdicts, pl.col("verdict") == verdict)) for verdict in _UNSETTLED},
    }


def _self_consistency(votes: pl.DataFrame) -> Report:
    runs = votes.with_columns(item_id=pl.format("{}/{}", "item_id", "first"))
    return consistency(runs)._asdict()


def _against_gold(votes: pl.DataFrame, one: pl.DataFrame, gold: pl.DataFrame, seed: int) -> Report:
    right = accuracy(towards_gold(one, gold), seed)
    preferred = gold.filter(pl.col("gold") != "tie").select("item_id")
    runs = in_both_orders(votes).join(preferred, on="item_id", how="semi")
    free = denoised(right.both, consistency(runs).noise)
    return {**_agreement_with(one, gold), "accuracy": {**asdict(right), "both_denoised": free}}


def _agreement_with(verdicts: pl.DataFrame, gold: pl.DataFrame) -> Report:
    both = verdicts.select("item_id", said=_decided()).join(gold.select("item_id", "gold"), on="item_id")
    return asdict(agreement(both.get_column("said").to_list(), both.get_column("gold").to_list()))


def _decided() -> pl.Expr:
    """Win, loss or tie; an inconsistent or a failed verdict is no opinion about the item."""
    return pl.when(pl.col("verdict").is_in(_DECIDED)).then("verdict")


def _panel(verdicts: pl.DataFrame, gold: pl.DataFrame, seed: int) -> Report:
    return {
        **_outcomes(verdicts),
        "conflict": asdict(flags(verdicts, pl.col("conflict"))),
        "bpde": verdicts.select(pl.col("bpde").mean()).item(),
        "needs_person": int(verdicts.get_column("needs_person").sum()),
        "gold": _agreement_with(verdicts, gold),
        **_calibration(verdicts, gold, seed),
    }


def _calibration(verdicts: pl.DataFrame, gold: pl.DataFrame, seed: int) -> Report:
    if gold.is_empty():
        return {"calibration": None, "not_calibrated": "no gold"}
    try:
        return {"calibration": asdict(calibrate(verdicts, gold, seed=seed)), "not_calibrated": None}
    except BadInput as error:
        return {"calibration": None, "not_calibrated": f"found {error.found}, wanted {error.wanted}"}


def _between(one: pl.DataFrame) -> Report:
    """How judges agree with each other: all of them together, and two by two."""
    margin = pl.col("score_a") - pl.col("score_b")
    table = one.select("item_id", "judge", said=_decided(), margin=margin)
    judges = table.get_column("judge").unique().sort().to_list()
    said, margins = (_columns(table, value, judges) for value in ("said", "margin"))
    pairs = [
        {
            "one": left,
            "other": right,
            **asdict(agreement(said[left], said[right])),
            "spearman": rank_correlation(margins[left], margins[right]).rho,
        }
        for left, right in itertools.combinations(judges, 2)
    ]
    return {"alpha": alpha([said[judge] for judge in judges]) if judges else None, "pairs": pairs}


def _columns(table: pl.DataFrame, value: str, judges: Sequence[str]) -> dict[str, list[Any]]:
    """One list per judge over the same items; null where a judge has nothing to say of one."""
    items = table.select("item_id").unique().sort("item_id")
    return {
        judge: items.join(table.filter(judge=judge), on="item_id", how="left", maintain_order="left")
        .get_column(value)
        .to_list()
        for judge in judges
    }


# Yes-or-no labels


def label_report(table: LabelTable) -> Report:
    """What yes-or-no labels say of each judge against people, and of how judges agree; null is what they cannot say.

    With groups (the models that took an exam), `group_score_delta` is the mean over groups of the judge's share of
    yes less people's, in points, and `ranking` how the judge ranks them (Judging the Judges, arXiv 2406.12624).
    """
    people = table.people.to_list()
    said = {name: table.judges.get_column(name).to_list() for name in table.judges.columns}
    yes = table.people.cast(pl.Float64).mean()
    return {
        "kind": "labels",
        "items": table.people.len(),
        "gold_items": table.people.len() - table.people.null_count(),
        "people_yes": yes,
        "judges": [
            {
                "judge": name,
                **asdict(agreement(labels, people)),
                **asdict(confusion(labels, people)),
                **_by_group(table, name),
            }
            for name, labels in said.items()
        ],
        "agreement": {
            "alpha": alpha(list(said.values())),
            "pairs": [
                {"one": left, "other": right, **asdict(agreement(said[left], said[right]))}
                for left, right in itertools.combinations(said, 2)
            ],
        },
    }


def _by_group(table: LabelTable, judge: str) -> Report:
    if table.groups is None:
        return {"group_score_delta": None, "ranking": None}
    columns = {"group": table.groups, "people": table.people, "judge": table.judges.get_column(judge)}
    rows = pl.DataFrame(columns).drop_nulls()
    means = rows.group_by("group").agg(pl.col("people", "judge").cast(pl.Float64).mean()).sort("group")
    delta = means.select((100 * (pl.col("judge") - pl.col("people"))).mean()).item()
    ranking = rank_correlation(means.get_column("judge").to_list(), means.get_column("people").to_list())
    return {"group_score_delta": delta, "ranking": ranking._asdict()}
