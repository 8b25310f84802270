"""Why the rejected reply lost, in the words of the user who complained about it."""

from __future__ import annotations

from typing import Final

import polars as pl

from tilth.schemas import conform, content_ids, polars_schema
from tilth.schemas.ids import messages_key
from tilth.transforms.pairs import replies, sentences
from tilth.transforms.pairs.standing import worded

SHORT_TURN_CHARS: Final = 280
MIN_STRENGTH: Final = 0.55  # below it a signal is implicit, such as a request put again: no reason in words
_PAIR_KEY: Final = ["record_id", "prompt_id", "reply"]


def complaint(min_strength: float = MIN_STRENGTH) -> pl.Expr:
    """Whether a feedback row is a clear complaint in words, and not about what looks like a correct refusal."""
    clear = worded() & (pl.col("strength") >= min_strength)
    return clear & (pl.col("polarity") == "negative") & ~pl.col("on_refusal").fill_null(False)


def quoted(turn: str, start: str, end: str) -> pl.Expr:
    """What of a turn holds the complaint, verbatim, from columns with the turn and the span of the evidence.

    The whole turn up to 280 characters, of a longer one the sentences from the first to the last piece of evidence.
    """
    whole = pl.col(turn).str.len_chars() <= SHORT_TURN_CHARS
    cut = sentences(pl.col(turn), pl.col(start), pl.col(end))
    return pl.when(whole).then(pl.col(turn).str.strip_chars()).otherwise(cut)


def spoken_complaints(
    feedback: pl.DataFrame, conversations: pl.DataFrame, min_strength: float = MIN_STRENGTH
) -> pl.DataFrame:
    """Each `complaint` once, with the `prompt`, `prompt_id` and text (`reply`) of what it faults and its own `turn`.

    Feedback columns as in the table, its id as `feedback_id`; `record_id` and `split` of the conversation. Feedback
    about turns of unknown conversations is left out.
    """
    kept = ("conversation_id", "message_index", "evidence", "labels", "strength", "method")
    spoken = feedback.filter(complaint(min_strength)).select(*kept, feedback_id="id", index="target_index")
    about = replies(spoken.sort("conversation_id").unique("feedback_id", keep="first"), conversations)
    keyed = about.with_columns(
        content_ids(about, "prompts", [messages_key("prompt")]).alias("prompt_id"), reply=_only_text("reply")
    )
    messages = conversations.unique("id", keep="first").select("messages", conversation_id="id")
    said = keyed.join(messages, on="conversation_id")
    turn = pl.col("messages").list.get(pl.col("message_index"), null_on_oob=True).struct.field("content")
    return said.with_columns(turn=turn).drop("messages")


def user_complaints(pairs: pl.DataFrame, feedback: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Rows of `rationales`, kind `user_complaint`: one per pair and user turn that faults its rejected reply.

    `text` is verbatim, as `quoted` cuts it. `evidence` quotes the pieces themselves, side `rejected`. A complaint
    belongs to a pair when it was made in the record of the pair about a reply with the same text to the same prompt;
    complaints about what looks like a correct refusal are left out. Thumbs have no words and give no rationale.

    Args:
        pairs: rows of the table, from this part of the conversations.
        feedback: rows of the table, with the same signal on every path that holds it.
        conversations: rows of the table, every conversation of a record among them.
    """
    complaints = _complaints(feedback, conversations, pairs)
    wanted = _with_record(pairs, conversations).select(
        "record_id", "prompt_id", "split", pair_id="id", reply=_only_text("rejected")
    )
    matched = complaints.drop("split").join(wanted.unique(["record_id", "pair_id"], keep="any"), on=_PAIR_KEY)
    return _rows(matched)


def _with_record(pairs: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    records = conversations.unique("id", keep="first").select("record_id", conversation_id="id")
    return pairs.join(records, on="conversation_id")


def _only_text(side: str) -> pl.Expr:
    return pl.col(side).list.first().struct.field("content")


def _complaints(feedback: pl.DataFrame, conversations: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Complaints in the records of `pairs`."""
    with_pairs = conversations.filter(
        pl.col("record_id").is_in(_with_record(pairs, conversations)["record_id"].implode())
    )
    return spoken_complaints(feedback, with_pairs).drop("prompt")


def _rows(matched: pl.DataFrame) -> pl.DataFrame:
    spans = (
        matched.explode("evidence", empty_as_null=True)
        .filter(pl.col("evidence").is_not_null())
        .unnest("evidence")
    )
    quote = pl.struct(side=pl.lit("rejected"), quote=pl.col("text").str.strip_chars())
    turns = spans.group_by("pair_id", "conversation_id", "message_index", "turn", "split").agg(
        pl.col("start").min(),
        pl.col("end").max(),
        quotes=quote.sort_by("start", "end").unique(maintain_order=True),
        feedback_ids=pl.col("feedback_id").unique().sort(),
        method=pl.col("method").min(),  # "model" where a model is among those who found it
    )
    rows = turns.select(
        "pair_id", "conversation_id", "feedback_ids", "split",
        text=quoted("turn", "start", "end"), evidence="quotes", method="method", kind=pl.lit("user_complaint"),
    )  # fmt: skip
    ids = content_ids(rows, "rationales", [pl.col("pair_id"), pl.col("kind"), pl.col("text")])
    found = conform(rows.with_columns(ids.alias("id"), no_factors()), "rationales").sort(
        "id", "conversation_id", "feedback_ids"
    )
    return found.unique(["id", "conversation_id"], keep="first", maintain_order=True)


def no_factors() -> pl.Expr:
    """`factors` where nothing was measured: empty, since Iceberg's own reader knows no null list of structs."""
    return pl.lit([], polars_schema("rationales")["factors"]).alias("factors")
