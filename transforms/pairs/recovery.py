"""Pairs of a reply that drew dissatisfaction and the later reply to the same request that drew satisfaction.

Source: the recoveries of WildFeedback (arXiv 2408.15549, section 3, without its rewriting by a model) and of
Naturally Occurring Feedback (arXiv 2407.10944). Where we differ: a later reply is never preferred for being
later (it is better only in 25 to 29 % of cases by arXiv 2507.23158), so it must have drawn satisfaction of
its own, and what the user asked for in between must not be new.
"""

from __future__ import annotations

import polars as pl

from tilth.schemas import PL_MESSAGES, Reason
from tilth.transforms.pairs.candidates import Objection, Ruled, replies, rule_pairs
from tilth.transforms.pairs.constraints import new_words
from tilth.transforms.pairs.policy import PairPolicy
from tilth.transforms.pairs.sentences import sentences
from tilth.transforms.pairs.standing import opinions, says, thumbs, worded


def recovery_pairs(conversations: pl.DataFrame, feedback: pl.DataFrame, policy: PairPolicy) -> Ruled:
    """Pairs of origin `observed_recovery`: the first satisfying reply over one that was complained about.

    A candidate is a reply with a complaint (in words, at least `min_recovery`; a thumb alone says
    nothing about what came next) and the first later reply of the same conversation with clear satisfaction,
    with no new request and at most `max_turns_between` user turns between them. It is dropped as
    `correct_refusal` when the complaint is about what looks like a correct refusal, as `contradictory` when
    anyone praised the former or blamed the latter anywhere in the record, as `new_constraints` when the user
    asked for something new in between, and for what `tilth.transforms.pairs.candidates.rule_pairs` finds.
    Scores are the strengths: satisfaction for the chosen reply, minus the complaint for the rejected one.
    Several paths of one record that show the same two replies give one pair.

    Args:
        conversations: rows of the table, every conversation of a record among them.
        feedback: rows of the table, with the same signal on every path that holds it.
        policy: the thresholds.
    """
    found = _recoveries(opinions(feedback, conversations), policy)
    candidates = _with_turns(found, conversations, policy)
    measured = _measured(candidates, _corrections(feedback, candidates, policy), policy)
    return rule_pairs(measured, _objections(policy))


def _recoveries(signals: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    blamed = _blamed(signals, policy)
    praised = _praised(signals.join(blamed, on="conversation_id", how="semi"), policy)
    later = blamed.join(praised, on="conversation_id").filter(pl.col("chosen_at") > pl.col("index"))
    first = later.sort("chosen_at").unique(["conversation_id", "index"], keep="first", maintain_order=True)
    return _same_request(first, signals).with_columns(
        feedback_ids=pl.col("complaint_ids").list.set_union("praise_ids").list.sort(),
        contradictory=pl.col("rejected_praised") | pl.col("chosen_blamed"),
        method=pl.when(pl.col("complaint_modelled") | pl.col("praise_modelled"))
        .then(pl.lit("model"))
        .otherwise(pl.lit("rules")),
    )


def _blamed(signals: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    clear = (pl.col("polarity") == "negative") & (pl.col("strength") >= policy.min_recovery)
    return (
        signals.filter(worded() & clear)
        .group_by("conversation_id", "index")
        .agg(
            rejected_key=pl.col("reply_key").first(),
            rejected_score=-pl.col("strength").max(),
            rejected_praised=pl.col("praised").any(),
            on_refusal=pl.col("on_refusal").fill_null(False).any(),
            complaint_ids=pl.col("id").unique().sort(),
            complaint_modelled=(pl.col("method") == "model").any(),
        )
    )


def _praised(signals: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    satisfied = says((*policy.satisfied_labels, *policy.better_labels))
    words = worded() & satisfied & (pl.col("strength") >= policy.min_recovery)
    thumb = thumbs() & (pl.col("strength") >= policy.min_reaction)
    return (
        signals.filter((pl.col("polarity") == "positive") & (words | thumb))
        .group_by("conversation_id", chosen_at="index")
        .agg(
            chosen_key=pl.col("reply_key").first(),
            chosen_score=pl.col("strength").max(),
            chosen_blamed=pl.col("blamed").any(),
            praise_ids=pl.col("id").unique().sort(),
            praise_modelled=(pl.col("method") == "model").any(),
        )
    )


def _same_request(found: pl.DataFrame, signals: pl.DataFrame) -> pl.DataFrame:
    """`found` without those that a new request breaks, and whether a complaint in between `asks` for something."""
    asking = signals.filter(pl.col("dialogue_state") == "new_request")
    at = asking.select("conversation_id", "polarity", at="message_index")
    within = (pl.col("at") > pl.col("index")) & (pl.col("at") < pl.col("chosen_at"))
    between = found.join(at, on="conversation_id").filter(within)
    pleased, displeased = (between.filter(pl.col("polarity") == kind) for kind in ("positive", "negative"))
    keys = ["conversation_id", "index"]
    asks = displeased.select(*keys, asks=pl.lit(True)).unique()
    kept = found.join(pleased, on=keys, how="anti").join(asks, on=keys, how="left")
    return kept.with_columns(pl.col("asks").fill_null(False))


def _with_turns(found: pl.DataFrame, conversations: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    """The candidates with both replies and the messages between, once per record."""
    rejected = replies(found, conversations).rename({"reply": "rejected"})
    chosen = replies(
        rejected.select("conversation_id", "rejected_key", index="chosen_at", begins="index"), conversations
    )
    between = pl.col("prompt").list.slice(pl.col("begins") + 1, pl.col("index") - pl.col("begins") - 1)
    later = chosen.select(
        "conversation_id", "rejected_key", between=between, chosen="reply", later_calls="calls_tools"
    )
    both = rejected.join(later, on=["conversation_id", "rejected_key"])
    user_turns = pl.col("between").list.filter(pl.element().struct.field("role") == "user").list.len()
    near = both.filter(user_turns <= policy.max_turns_between).sort("conversation_id")
    once = near.unique(["record_id", "rejected_key", "chosen_key"], keep="first", maintain_order=True)
    return once.with_columns(calls_tools=pl.col("calls_tools") | pl.col("later_calls"))


def _corrections(feedback: pl.DataFrame, candidates: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    """The sentences in which the user corrects facts between the replies, joined, by candidate."""
    spans = candidates.select("conversation_id", "rejected_key", "between", begins="index", ends="chosen_at")
    quotes = (
        feedback.filter(worded() & says(policy.correction_labels))
        .select("conversation_id", "message_index", "evidence")
        .explode("evidence", empty_as_null=True)
        .unnest("evidence")
        .filter(pl.col("label").is_in(policy.correction_labels))
    )
    within = quotes.join(spans, on="conversation_id").filter(
        (pl.col("message_index") > pl.col("begins")) & (pl.col("message_index") < pl.col("ends"))
    )
    turn = pl.col("between").list.get(pl.col("message_index") - pl.col("begins") - 1).struct.field("content")
    corrected = within.with_columns(corrected=sentences(turn, pl.col("start"), pl.col("end")))
    return corrected.group_by("conversation_id", "rejected_key").agg(pl.col("corrected").str.join("\n"))


def _measured(candidates: pl.DataFrame, corrections: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    """The candidates with their count (`new`) and `share` of new content words."""
    keys = ["conversation_id", "rejected_key"]
    rows = candidates.join(corrections, on=keys, how="left", maintain_order="left")
    return rows.hstack(new_words(_texts(rows, policy))).with_columns(
        origin=pl.lit("observed_recovery"),
        models=pl.struct(chosen="model", rejected="model"),
    )


def _texts(rows: pl.DataFrame, policy: PairPolicy) -> pl.DataFrame:
    content = pl.element().struct.field("content")
    users = pl.col("between").list.filter(pl.element().struct.field("role") == "user")
    known = pl.concat_list("prompt", pl.col("rejected").cast(PL_MESSAGES)).list.eval(content).list.join("\n")
    return rows.select(
        known=pl.concat_str([known, pl.col("corrected").fill_null("")], separator="\n"),
        said=users.list.eval(content).list.join("\n"),
        beyond=pl.when("asks").then(0).otherwise(policy.max_new_words),
    )


def _objections(policy: PairPolicy) -> list[Objection]:
    used_tools = pl.col("between").list.eval(pl.element().struct.field("role") == "tool").list.any()
    allowed = pl.when("asks").then(0).otherwise(policy.max_new_words)
    asked_more = (pl.col("new") > allowed) & (pl.col("share") > policy.max_new_share)
    counts = pl.format("{} new content words, share {}", "new", pl.col("share").round(2))
    refused, opposed = "the complaint is about what looks like a refusal", "the record also says the opposite"
    tools = "tool results between the replies, which the prompt does not hold"
    return [
        Objection(pl.col("on_refusal"), Reason.CORRECT_REFUSAL, refused),
        Objection(pl.col("contradictory"), Reason.CONTRADICTORY, opposed),
        Objection(used_tools, Reason.NEW_CONSTRAINTS, tools),
        Objection(asked_more, Reason.NEW_CONSTRAINTS, counts),
    ]
