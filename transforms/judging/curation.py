"""Judgments of one item become pairs over judgments, right over wrong: what a judge is trained on.

Source: Self-Rationalization (arXiv 2410.05495), whose code was not released. Where we differ: both sides are answers of
one judge to the same question (one order of the replies), and an item whose most frequent verdict is a tie gives no
pair, since no difference of scores speaks for a tie.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tilth.schemas import ConfigError, Reason, TilthError
from tilth.transforms.judging.protocol import Protocol
from tilth.transforms.pairs.candidates import DROPPED, Ruled, rule_pairs

LABELS: Final = pl.Schema({"item_id": pl.String, "label": pl.String})
"""Which verdict of an item is right: win or loss of its first reply. An item without a row has no label."""
_TOGETHER: Final = ["item_id", "order", "judge"]  # what judgments share that can be set against each other
_STAGE: Final = "judge_training"


@dataclass(frozen=True, slots=True)
class Curation:
    """Which judgments are set against each other.

    Args:
        rule: `correct`: the verdict that is the item's label is right. `majority`: the verdict that most judgments of
            the item give, over all orders, samples and judges; where two are as frequent, none is.
        min_margin: how much further the chosen judgment's scores must speak for the right side than the rejected one's;
            the scale's own points. The paper filters by margin and does not say how much: 2 is ours.
        per_item: pairs of one item at most, those of the largest margins; no judgment stands in two.
    """

    rule: Literal["correct", "majority"] = "correct"
    min_margin: float = 2.0
    per_item: int = 1

    def __post_init__(self) -> None:
        if self.rule not in ("correct", "majority"):
            raise ConfigError("the rule of curation", found=self.rule, wanted="correct or majority")
        if not 0 < self.min_margin < float("inf") or self.per_item < 1:
            found = f"min_margin={self.min_margin}, per_item={self.per_item}"
            raise ConfigError("margin and pairs of curation", found=found, wanted="above 0; 1 or more")


def judge_training_pairs(
    items: pl.DataFrame,
    requests: pl.DataFrame,
    asked: pl.DataFrame,
    judgments: pl.DataFrame,
    labels: pl.DataFrame,
    protocol: Protocol,
    config: Curation = Curation(),
) -> Ruled:
    """Rows of `pairs`, origin `judge`, and one row of `quarantine` for each item that gives none.

    `prompt` is what the judge was asked; `chosen` and `rejected` are whole answers to it, as canonical JSON in the
    order shown; `verdict` is the right one. A side's score is how far its own scores speak for the right side, below 0
    against it. Of `judgment_ids` the first is the chosen one's. Failed judgments take no part; ids alone decide between
    equal margins. Judgments whose evidence is the same, but for case and white space, are never set against each other:
    such a pair would teach scores alone.

    Args:
        items: `ITEMS` of two replies.
        requests: `REQUESTS` that `judge_requests` made of them.
        asked: `ASKED` of these requests.
        judgments: rows of the table, of these items; those of other protocols count nowhere.
        labels: `LABELS`; read by the rule `correct` alone.
        protocol: how they were judged.
        config: which judgments are set against each other.
    """
    votes = _votes(judgments, protocol)
    right = _right(votes, labels, config)
    against = _against(_sides(votes.join(right, on="item_id")))
    paired = _widest(against, config)
    about = items.select("item_id", "conversation_id", "split")
    candidates = _asked(paired, requests, asked).join(about, on="item_id", maintain_order="left")
    ruled = rule_pairs(candidates.with_columns(_constants()), [])
    lost = items.join(candidates, on="item_id", how="anti").select("item_id").unique()
    return Ruled(ruled.kept, pl.concat([ruled.dropped, _without(lost, votes, right, against)]))


def _votes(judgments: pl.DataFrame, protocol: Protocol) -> pl.DataFrame:
    """The valid judgments of the protocol, each once."""
    valid = (pl.col("verdict") != "failed") & (pl.col("protocol") == protocol.digest)
    rows = judgments.filter((pl.col("kind") == "pairwise") & valid).unique("id", keep="first")
    return rows.select("id", *_TOGETHER, "model", "verdict", "scores", "text")


def _right(votes: pl.DataFrame, labels: pl.DataFrame, config: Curation) -> pl.DataFrame:
    """`LABELS` by the rule of curation, each item once, where there is one."""
    if config.rule == "correct":
        said = labels.select(LABELS.names()).unique()
        told = said.filter(pl.len().over("item_id") == 1)
    else:
        counted = votes.group_by("item_id", label="verdict").len()
        most = counted.filter(pl.col("len") == pl.col("len").max().over("item_id"))
        told = most.filter(pl.len().over("item_id") == 1).select(LABELS.names())
    return told.filter(pl.col("label").is_in(("win", "loss")))


def _sides(votes: pl.DataFrame) -> pl.DataFrame:
    """Votes (with `label`) as answers: `right`, `score` (how far it speaks for the label), `answer` as it was given."""
    first, second = (pl.col("scores").list.get(n) for n in (0, 1))
    swapped = pl.col("order").list.first() == 1
    shown = [pl.when(swapped).then(other).otherwise(one) for one, other in ((first, second), (second, first))]
    winner = pl.when(shown[0] > shown[1]).then(pl.lit("1")).when(shown[0] < shown[1]).then(pl.lit("2"))
    answer = pl.struct(
        evidence=pl.col("text").fill_null(""),
        score_1=shown[0].cast(pl.Int64),
        score_2=shown[1].cast(pl.Int64),
        verdict=winner.otherwise(pl.lit("tie")),
    )
    return votes.select(
        *_TOGETHER,
        "id",
        "model",
        "label",
        right=pl.col("verdict") == pl.col("label"),
        score=pl.when(pl.col("label") == "win").then(first - second).otherwise(second - first),
        evidence=pl.col("text").fill_null("").str.to_lowercase().str.replace_all(r"\s+", ""),
        answer=answer.struct.json_encode(),
    )


def _against(sides: pl.DataFrame) -> pl.DataFrame:
    """Each right answer with each wrong one of the same judge and order; the wrong one's columns end in `_wrong`."""
    right, wrong = sides.filter("right"), sides.filter(~pl.col("right"))
    both = right.join(wrong.drop("label"), on=_TOGETHER, suffix="_wrong")
    return both.with_columns(
        margin=pl.col("score") - pl.col("score_wrong"), same=pl.col("evidence") == pl.col("evidence_wrong")
    )


def _widest(against: pl.DataFrame, config: Curation) -> pl.DataFrame:
    """The pairs of the largest margins, `per_item` of each item, no judgment twice."""
    fits = against.filter(~pl.col("same") & (pl.col("margin") >= config.min_margin))
    ranked = fits.sort("item_id", "margin", "id", "id_wrong", descending=[False, True, False, False])
    used, taken = set[str](), Counter[str]()
    kept = list[bool]()
    for item, *ids in ranked.select("item_id", "id", "id_wrong").iter_rows():
        fresh = taken[item] < config.per_item and used.isdisjoint(ids)
        used.update(ids if fresh else ())
        taken[item] += fresh
        kept.append(fresh)
    return ranked.filter(pl.Series(kept, dtype=pl.Boolean))


def _asked(paired: pl.DataFrame, requests: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Pairs with the `prompt` that both of their answers are answers to."""
    posed = asked.join(requests.select("id", prompt="messages"), on="id")
    once = posed.select("item_id", "order", "prompt").unique(["item_id", "order"], keep="any")
    found = paired.join(once, on=["item_id", "order"], maintain_order="left")
    if found.height != paired.height:
        lost = paired.height - found.height
        raise TilthError("judgments without their requests", found=f"{lost}", do="please report this")
    return found.with_columns(
        *(_reply(answer, side) for side, answer in (("chosen", "answer"), ("rejected", "answer_wrong"))),
        chosen_score="score",
        rejected_score="score_wrong",
        verdict="label",
        judgment_ids=pl.concat_list("id", "id_wrong"),
        models=pl.struct(chosen="model", rejected="model_wrong"),
    ).drop("id", "model")


def _reply(answer: str, side: str) -> pl.Expr:
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=answer)).alias(side)


def _constants() -> list[pl.Expr]:
    values = {"origin": "judge", "method": "model", "source": "items", "calls_tools": False}
    return [pl.lit(value).alias(name) for name, value in values.items()]


# What gives no pair


def _without(
    lost: pl.DataFrame, votes: pl.DataFrame, right: pl.DataFrame, against: pl.DataFrame
) -> pl.DataFrame:
    """One row of `quarantine` for each item, with the first reason that holds."""
    about = lost.join(right, on="item_id", how="left")
    agrees = (pl.col("verdict") == pl.col("label")).sum()
    said = votes.join(right, on="item_id", how="left").group_by("item_id")
    counts = said.agg(pl.len().alias("valid"), agrees.alias("right"))
    met = against.group_by("item_id").agg(pl.len().alias("met"), apart=(~pl.col("same")).sum())
    facts = about.join(counts, on="item_id", how="left").join(met, on="item_id", how="left")
    known = facts.with_columns(pl.col("valid", "right", "met", "apart").fill_null(0))
    reason, detail = pl.lit(Reason.TIE.value), pl.lit("the scores do not lie as far apart as asked for")
    for found, why, text in reversed(_REASONS):
        reason = pl.when(found).then(pl.lit(why.value)).otherwise(reason)
        detail = pl.when(found).then(pl.lit(text)).otherwise(detail)
    rows = known.select(
        source=pl.lit("items"),
        stage=pl.lit(_STAGE),
        reason=reason,
        key=pl.lit("items#id=") + pl.col("item_id"),
        detail=detail,
        payload=pl.struct("item_id", "valid", "right").struct.json_encode(),
        source_rows=pl.lit(0, pl.Int32),
    )
    return rows.cast(DROPPED).sort("key")


_REASONS: Final = (
    (pl.col("valid") == 0, Reason.JUDGES_FAILED, "no valid judgment"),
    (
        pl.col("label").is_null(),
        Reason.TIE,
        "no verdict is the right one: no label, or no majority for a side",
    ),
    (pl.col("right") == 0, Reason.JUDGES_PREFER_REJECTED, "no judgment gives the right verdict"),
    (pl.col("right") == pl.col("valid"), Reason.SATURATED, "every judgment gives the right verdict"),
    (pl.col("met") == 0, Reason.JUDGES_INCONSISTENT, "no judge is both right and wrong in one order"),
    (pl.col("apart") == 0, Reason.IDENTICAL_SIDES, "right and wrong judgments have the same evidence"),
)
