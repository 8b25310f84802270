"""Pairs of replies to one prompt that people ranked, scored or put opposed thumbs on."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import Reason, content_ids, empty
from tilth.schemas.ids import messages_key
from tilth.transforms.pairs.candidates import Objection, Ruled, replies, rule_pairs
from tilth.transforms.pairs.policy import PairPolicy

_GROUP: Final = ["record_id", "index", "sibling_key"]


def sibling_pairs(
    conversations: pl.DataFrame, policy: PairPolicy, feedback: pl.DataFrame | None = None
) -> Ruled:
    """Pairs of origins `human_rank` and `reaction` from replies under one prefix of one record.

    `human_rank`: the reply with the lower rank or, where a reply has no rank, the higher score. Ranks are
    compared with ranks and scores with scores only. A rank r is stored as the score -r. A gap under
    `min_rank_gap` (or not over `min_score_gap`) is dropped as `tie`. `reaction`: a reply with at least
    `min_net` more thumbs up than down over one with at least as many more down than up; the scores are the
    differences. A reply without the reaction in question, or with several ranks or scores, is in no pair.

    Siblings are rows that own the reply (`owned_from`), so a set of siblings that many paths share is
    compared once. Equal prefixes under different messages of the source are different sets: their ranks are
    not comparable.

    Args:
        conversations: rows of the table, every conversation of a record among them.
        policy: the thresholds.
        feedback: rows of the table; `feedback_ids` are the reactions to either reply (else empty).
    """
    siblings = _siblings(_measured(conversations), conversations)
    ranked = pl.concat([_by_measure(siblings, "rank", policy), _by_measure(siblings, "score", policy)])
    candidates = pl.concat([ranked, _by_thumbs(siblings, policy)])
    founded = _founded(candidates, empty("feedback") if feedback is None else feedback)
    gap = pl.format("a gap of {} is none by policy", pl.col("margin"))
    return rule_pairs(founded, [Objection(pl.col("tied"), Reason.TIE, gap)])


def _measured(conversations: pl.DataFrame) -> pl.DataFrame:
    """The reactions to each owned reply as columns `rank`, `score`, `net` (null where nobody reacted so)."""
    reactions = (
        conversations.filter(pl.col("reactions").list.len() > 0)
        .unique("id", keep="first")
        .select("record_id", "owned_from", "reactions", conversation_id="id")
        .explode("reactions", empty_as_null=True)
        .unnest("reactions")
        .filter(pl.col("value").is_finite() & (pl.col("message_index") >= pl.col("owned_from").fill_null(0)))
    )
    kind, value = pl.col("kind"), pl.col("value")
    votes = value.clip(lower_bound=0)
    up, down = votes.filter(kind == "thumbs_up").sum(), votes.filter(kind == "thumbs_down").sum()
    measured = reactions.group_by("conversation_id", "record_id", index="message_index").agg(
        rank=_only(value.filter(kind == "rank")),
        score=_only(value.filter(kind == "score")),
        net=pl.when(kind.is_in(["thumbs_up", "thumbs_down"]).any()).then(up - down),
    )
    return measured.filter(pl.len().over("record_id", "index") > 1).drop("record_id")


def _only(values: pl.Expr) -> pl.Expr:
    return pl.when(values.n_unique() == 1).then(values.first())


def _siblings(measured: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Measured replies with their texts, numbered (`place`) in an order that is not that of rows."""
    rows = replies(measured, conversations)
    ids = conversations.unique("id", keep="first").select("message_ids", conversation_id="id")
    parents = rows.join(ids, on="conversation_id", how="left", maintain_order="left").select(
        pl.col("message_ids").list.get(pl.col("index").cast(pl.Int64) - 1, null_on_oob=True)
    )
    keys = content_ids(rows.hstack(parents), "siblings", [messages_key("prompt"), pl.col("message_ids")])
    keyed = rows.with_columns(keys.alias("sibling_key")).sort(*_GROUP, "conversation_id")
    return keyed.with_columns(place=pl.int_range(pl.len()).over(_GROUP)).filter(pl.len().over(_GROUP) > 1)


def _by_measure(siblings: pl.DataFrame, measure: str, policy: PairPolicy) -> pl.DataFrame:
    """Pairs of siblings with both a rank (or both a score and not both a rank), `chosen` the better."""
    rows = siblings.with_columns(worth=-pl.col("rank") if measure == "rank" else pl.col("score"))
    pairs = _compared(rows.filter(pl.col("worth").is_not_null()), policy)
    if measure == "score":
        pairs = pairs.filter(pl.col("rank").is_null() | pl.col("rank_other").is_null())
    gap = pl.col("worth") - pl.col("worth_other")
    tie = gap < policy.min_rank_gap if measure == "rank" else (gap <= policy.min_score_gap)
    return pairs.select(*_sides(), origin=pl.lit("human_rank"), tied=tie | (gap == 0))


def _compared(rows: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    """Each two siblings once, the one of more worth first, as far as `policy.rank_pairs` compares them."""
    worth = pl.col("worth")
    placed = rows.with_columns(
        level=worth.rank("dense").over(_GROUP),
        best=worth == worth.max().over(_GROUP),
        worst=worth == worth.min().over(_GROUP),
    )
    both = placed.join(placed, on=_GROUP, suffix="_other")
    before = pl.col("place") < pl.col("place_other")
    ordered = (worth > pl.col("worth_other")) | ((worth == pl.col("worth_other")) & before)
    wanted = {
        "all": pl.lit(True),
        "best_worst": pl.col("best") & pl.col("worst_other"),
        "adjacent": pl.col("level") - pl.col("level_other") <= 1,
    }[policy.rank_pairs]
    return both.filter(ordered & wanted)


def _by_thumbs(siblings: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    rows = siblings.with_columns(worth=pl.col("net"))
    liked = rows.filter(pl.col("net") >= policy.min_net)
    disliked = rows.filter(pl.col("net") <= -policy.min_net)
    pairs = liked.join(disliked, on=_GROUP, suffix="_other")
    return pairs.select(*_sides(), origin=pl.lit("reaction"), tied=pl.lit(False))


def _sides() -> list[pl.Expr]:
    return [
        pl.col("conversation_id", "conversation_id_other", "index", "source", "split", "prompt"),
        pl.col("tool_calls_json"),
        pl.col("reply").alias("chosen"),
        pl.col("reply_other").alias("rejected"),
        pl.col("worth").cast(pl.Float64).alias("chosen_score"),
        pl.col("worth_other").cast(pl.Float64).alias("rejected_score"),
        (pl.col("calls_tools") | pl.col("calls_tools_other")).alias("calls_tools"),
        pl.struct(chosen="model", rejected="model_other").alias("models"),
    ]


def _founded(pairs: pl.DataFrame, feedback: pl.DataFrame) -> pl.DataFrame:
    """`pairs` with the ids of the reactions to their replies."""
    reactions = (
        feedback.filter(pl.col("method") == "reaction")
        .group_by("conversation_id", index=pl.col("target_index").cast(pl.UInt32))
        .agg(ids=pl.col("id").unique())
    )
    chosen = pairs.join(reactions, on=["conversation_id", "index"], how="left", maintain_order="left")
    keys = ["conversation_id_other", "index"]
    both = chosen.join(
        reactions, left_on=keys, right_on=["conversation_id", "index"], how="left", suffix="_other"
    )
    none = pl.lit([], pl.List(pl.String))
    ids = pl.col("ids").fill_null(none).list.set_union(pl.col("ids_other").fill_null(none)).list.sort()
    named = both.with_columns(feedback_ids=ids, method=pl.lit("reaction"))
    return named.drop("ids", "ids_other", "conversation_id_other", "index")
