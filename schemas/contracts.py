"""Row contracts: what must hold in a table, as polars expressions that yield flags and numbers, never text.

A contract turns each row into a slim row (`Contract.project`) of booleans and numbers, and a part of a table
into `Metrics` that add up: measuring parts and merging is exactly measuring the whole, so sums are of
integers only and of other numbers only the extremes are kept. What needs all rows at once is in
`tilth.schemas.across`. Which counts are allowed is not decided here but in `tilth.schemas.expectations`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import polars as pl

from tilth.schemas.errors import Reason
from tilth.schemas.labels import (
    CRITERION_CHECKS,
    CRITERION_KINDS,
    CRITERION_SOURCES,
    DIALOGUE_STATES,
    DSAT,
    JUDGMENT_KINDS,
    JUDGMENT_VERDICTS,
    RATIONALE_KINDS,
    RESPONSE_ROLES,
    SAT,
    WRITTEN_KINDS,
)
from tilth.schemas.likeness import likeness
from tilth.schemas.metrics import Bins, Contract, Metrics
from tilth.schemas.reading import LANGUAGE, PII, reading
from tilth.schemas.refusals import refuses

ROLES: Final = ("system", "user", "assistant", "tool")
SPLITS: Final = ("train", "validation", "test")
POLARITIES: Final = ("positive", "negative")
POSITIVE_LABELS: Final = (*SAT, "thumbs_up")
NEGATIVE_LABELS: Final = (*DSAT, "thumbs_down")
METHODS: Final = ("rules", "observed", "reaction", "model")
OBSERVED_ORIGINS: Final = ("observed_recovery", "human_rank", "reaction")
TOURNAMENT: Final = "tournament"
JUDGED_ORIGINS: Final = ("expert", "on_policy", "rated", "best_of_n", TOURNAMENT, "rubric", "judge")
ORIGINS: Final = (*OBSERVED_ORIGINS, *JUDGED_ORIGINS)
GUIDED_ORIGINS: Final = ("observed_recovery", "expert", "on_policy")  # those that rest on what a user said
PAYLOAD_BYTES: Final = 65_536
DETAIL_CHARS: Final = 500

_ID: Final = r"^[0-9a-f]{32}$"
_ROLE: Final = pl.element().struct.field("role")
_CONTENT: Final = pl.element().struct.field("content")


def measure(table: str, frame: pl.DataFrame) -> Metrics:
    """The metrics of one part of `table`."""
    return CONTRACTS[table].measure(frame)


# Expressions that several contracts share. All of them yield true for a row that is bad.


def _malformed(column: str) -> pl.Expr:
    return ~pl.col(column).str.contains(_ID)


def _unknown(column: str, known: Sequence[str]) -> pl.Expr:
    return ~pl.col(column).is_in(known)


def _blank(column: str) -> pl.Expr:
    return pl.col(column).str.strip_chars() == ""


def _outside(column: str, high: float) -> pl.Expr:
    """Not in (0, high]; NaN is outside."""
    return ~((pl.col(column) > 0) & (pl.col(column) <= high) & pl.col(column).is_not_nan())


def _none(column: str) -> pl.Expr:
    return pl.col(column).list.len() == 0


def _some(column: str, bad: pl.Expr) -> pl.Expr:
    """Whether `bad` holds, or is unknown, for some element."""
    return pl.col(column).list.eval(bad.fill_null(True)).list.any()


def _any(flags: Iterable[pl.Expr]) -> pl.Expr:
    return functools.reduce(operator.or_, flags)


def _messages(*columns: str) -> dict[str, pl.Expr]:
    return {
        "bad_role": _any(_some(column, ~_ROLE.is_in(ROLES)) for column in columns),
        "null_content": _any(_some(column, _CONTENT.is_null()) for column in columns),
        "nul_character": _any(
            _some(column, _CONTENT.fill_null("").str.contains("\0", literal=True)) for column in columns
        ),
    }


def _speechless(column: str) -> pl.Expr:
    """No turns, or nothing but white space in all of them."""
    return ~pl.col(column).list.eval(_CONTENT.str.strip_chars() != "").list.any()


def _reply(column: str) -> pl.Expr:
    """A reply that holds turns of others, or does not end with the assistant's."""
    foreign = _some(column, ~_ROLE.is_in(("assistant", "tool")))
    return foreign | (pl.col(column).list.last().struct.field("role") != "assistant")


def _prompt() -> dict[str, pl.Expr]:
    last = pl.col("prompt").list.last().struct.field("role")
    return {
        "prompt_id_malformed": _malformed("prompt_id"),
        "prompt_empty": _speechless("prompt"),
        "prompt_last_role_not_user": last.ne_missing("user"),
    }


def _chars(column: str) -> pl.Expr:
    return pl.col(column).list.eval(_CONTENT.str.len_chars()).list.sum().cast(pl.Int64)


def _turns(column: str) -> pl.Expr:
    return pl.col(column).list.len().cast(pl.Int64)


def _said(column: str) -> pl.Expr:
    """All text of the messages."""
    return pl.col(column).list.eval(_CONTENT.fill_null("")).list.join("\n")


def _asked(column: str) -> pl.Expr:
    """What users say in the messages."""
    said = pl.when(_ROLE == "user").then(_CONTENT)
    return pl.col(column).list.eval(said).list.join(" ", ignore_nulls=True)


def _row_defects() -> dict[str, pl.Expr]:
    return {"id_malformed": _malformed("id"), "split_unknown": _unknown("split", SPLITS)}


def _conversations() -> Contract:
    messages = pl.col("messages")
    initials = messages.list.eval(_ROLE.str.slice(0, 1)).list.join("", ignore_nulls=True)
    last_reaction = pl.col("reactions").list.eval(pl.element().struct.field("message_index")).list
    given = pl.col("message_ids").is_not_null()
    return Contract(
        prepare=reading("conversations", _asked("messages")),
        bins={"language": LANGUAGE},
        defects={
            **_row_defects(),
            **_messages("messages"),
            "source_null": pl.col("source").is_null(),
            "record_id_null": pl.col("record_id").is_null(),
            "messages_empty": _none("messages"),
            "no_assistant_turn": ~messages.list.eval(_ROLE == "assistant").list.any(),
            "no_user_turn": ~messages.list.eval(_ROLE == "user").list.any(),
            "user_speaks_twice": initials.str.contains("uu", literal=True),
            "record_rows_negative": pl.col("record_rows") < 0,
            "owned_from_outside": ~pl.col("owned_from").is_between(0, messages.list.len()),
            "reaction_outside": (
                (last_reaction.max() >= messages.list.len()) | (last_reaction.min() < 0)
            ).fill_null(False),
            "message_ids_differ": given & (pl.col("message_ids").list.len() != messages.list.len()),
        },
        facts={
            "user_known": pl.col("user_key").is_not_null(),
            "with_reactions": pl.col("reactions").list.len() > 0,
            "held_out": pl.col("split") != "train",
            "model_unknown": pl.col("model").is_null(),
            **PII,
        },
        numbers={"turns": _turns("messages"), "chars": _chars("messages")},
    )


def _feedback() -> Contract:
    labels, target, said = pl.col("labels"), pl.col("target_index"), pl.col("message_index")
    reaction = pl.col("method") == "reaction"
    quote = pl.element().struct
    resolves = (
        (quote.field("start") >= 0)
        & (quote.field("end") - quote.field("start") == quote.field("text").str.len_chars())
        & (quote.field("text") != "")
    )
    agreeing = (
        pl.when(pl.col("polarity") == "positive")
        .then(labels.list.eval(~pl.element().is_in(POSITIVE_LABELS)).list.any())
        .otherwise(labels.list.eval(~pl.element().is_in(NEGATIVE_LABELS)).list.any())
    )
    return Contract(
        prepare=reading("feedback"),
        bins={"method": Bins.of_words(pl.col("method"), METHODS)},
        defects={
            **_row_defects(),
            "conversation_id_malformed": _malformed("conversation_id"),
            "polarity_unknown": _unknown("polarity", POLARITIES),
            "labels_empty": _none("labels"),
            "label_unknown": _some("labels", ~pl.element().is_in((*POSITIVE_LABELS, *NEGATIVE_LABELS))),
            "label_against_polarity": agreeing,
            "strength_outside": _outside("strength", 1),
            "target_negative": target < 0,
            "target_after_message": (target > said) | (~reaction & (target == said)),
            "evidence_missing": ~reaction & (pl.col("evidence").list.len().fill_null(0) == 0),
            "evidence_does_not_resolve": (
                pl.col("evidence").is_not_null() & _some("evidence", ~resolves).fill_null(False)
            ),
            "dialogue_state_unknown": ~reaction & _unknown("dialogue_state", DIALOGUE_STATES),
            "on_refusal_null": pl.col("on_refusal").is_null(),
            "method_unknown": _unknown("method", METHODS),
            "method_version_null": pl.col("method_version").is_null(),
        },
        facts={
            "positive": pl.col("polarity") == "positive",
            "on_refusal": pl.col("on_refusal"),
            "by_reaction": reaction,
            **PII,
        },
        numbers={
            "strength": pl.col("strength"),
            "evidence_spans": pl.col("evidence").list.len().fill_null(0).cast(pl.Int64),
        },
    )


RATIO_EDGES: Final = (1 / 8, 1 / 4, 1 / 2, 2 / 3, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0)


def _with_sides(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds what is looked at in both sides of a pair together."""
    read = reading("pairs", _said("chosen"))(frame)
    sides = frame.select(_said("chosen").alias("chosen"), _said("rejected").alias("rejected"))
    refusing = sides.select(
        refuses(pl.col(side)).fill_null(False).alias(f"{side}_refuses") for side in ("chosen", "rejected")
    )
    lengths = frame.select(chosen_chars=_chars("chosen"), rejected_chars=_chars("rejected"))
    ratio = lengths.select(length_ratio=(pl.col("chosen_chars") + 1) / (pl.col("rejected_chars") + 1))
    return pl.concat([read, likeness(sides), refusing, lengths, ratio], how="horizontal")


def _pairs() -> Contract:
    chosen, rejected, ratio = pl.col("chosen"), pl.col("rejected"), pl.col("length_ratio")
    models = pl.col("models").struct
    difference = (pl.col("chosen_score") - pl.col("rejected_score") - pl.col("margin")).abs()
    return Contract(
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt", "chosen", "rejected"),
            "chosen_empty": _speechless("chosen"),
            "rejected_empty": _speechless("rejected"),
            "chosen_not_a_reply": _reply("chosen"),
            "rejected_not_a_reply": _reply("rejected"),
            "chosen_equals_rejected": chosen.eq_missing(rejected),
            "near_equal": pl.col("near_equal"),
            "alike": pl.col("alike"),
            "margin_not_positive": ~((pl.col("margin") > 0) & pl.col("margin").is_finite()),
            "margin_is_not_the_difference": (difference > 1e-9).fill_null(False),
            "origin_unknown": _unknown("origin", ORIGINS),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
            # Ranked siblings rest on the ranks of their conversation, not on signals.
            "feedback_ids_empty": (
                pl.col("origin").is_in(GUIDED_ORIGINS) & (pl.col("feedback_ids").list.len().fill_null(0) == 0)
            ),
            "judgment_ids_empty": (
                pl.col("origin").is_in(JUDGED_ORIGINS) & (pl.col("judgment_ids").list.len().fill_null(0) == 0)
            ),
        },
        facts={
            "chosen_longer": pl.col("chosen_chars") > pl.col("rejected_chars"),
            "twice_as_long": ratio > 2,
            "half_as_long": ratio < 0.5,
            "chosen_refuses": pl.col("chosen_refuses"),
            "rejected_refuses": pl.col("rejected_refuses"),
            "model_unknown": models.field("chosen").is_null() | models.field("rejected").is_null(),
            "recovered": pl.col("origin") == "observed_recovery",
            "held_out": pl.col("split") != "train",
            **PII,
        },
        numbers={
            "prompt_turns": _turns("prompt"),
            "prompt_chars": _chars("prompt"),
            "chosen_chars": pl.col("chosen_chars"),
            "rejected_chars": pl.col("rejected_chars"),
            "length_ratio": ratio,
            "margin": pl.col("margin"),
        },
        averaged={"log_length_ratio": ratio.log()},
        bins={
            "origin": Bins.of_words(pl.col("origin"), ORIGINS),
            "language": LANGUAGE,
            "length_ratio": Bins.of_numbers(ratio, RATIO_EDGES),
        },
        prepare=_with_sides,
    )


def _unpaired() -> Contract:
    return Contract(
        prepare=reading("unpaired", _said("completion")),
        bins={"language": LANGUAGE},
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt", "completion"),
            "completion_empty": _speechless("completion"),
            "completion_not_a_reply": _reply("completion"),
            "label_null": pl.col("label").is_null(),
            "weight_outside": _outside("weight", 1),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
            "feedback_ids_empty": pl.col("feedback_ids").list.len().fill_null(0) == 0,
        },
        facts={
            "labelled_true": pl.col("label"),
            "refuses": refuses(_said("completion")),
            "model_unknown": pl.col("model").is_null(),
            "held_out": pl.col("split") != "train",
            **PII,
        },
        numbers={
            "prompt_turns": _turns("prompt"),
            "prompt_chars": _chars("prompt"),
            "completion_chars": _chars("completion"),
            "weight": pl.col("weight"),
        },
    )


def _with_quotes(frame: pl.DataFrame) -> pl.DataFrame:
    return _with_missing_quotes(reading("rationales", pl.col("text"))(frame))


def _with_missing_quotes(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds `quote_missing`: whether some quote of what a user said does not stand in the row's text."""
    said = pl.when(pl.col("kind") == "user_complaint").then(pl.col("evidence"))
    quotes = frame.select("text", quote=said.list.eval(pl.element().struct.field("quote")))
    rows = quotes.with_row_index("row").filter(pl.col("quote").list.len() > 0).explode("quote")
    quote = pl.col("quote").str.strip_chars()
    stands = (quote != "") & pl.col("text").str.contains(quote, literal=True)
    lost = rows.filter(~stands.fill_null(False)).get_column("row").unique()
    return frame.with_columns(
        pl.int_range(pl.len()).cast(pl.get_index_type()).is_in(lost.implode()).alias("quote_missing")
    )


def _rationales() -> Contract:
    kind, written = pl.col("kind"), pl.col("kind").is_in(WRITTEN_KINDS)
    cited, measured = pl.col("evidence").list.len().fill_null(0), pl.col("factors").list.len().fill_null(0)
    factor = pl.element().struct.field("favours")
    return Contract(
        prepare=_with_quotes,
        bins={"kind": Bins.of_words(kind, RATIONALE_KINDS), "language": LANGUAGE},
        defects={
            **_row_defects(),
            "pair_id_malformed": _malformed("pair_id"),
            "text_empty": _blank("text"),
            "kind_unknown": _unknown("kind", RATIONALE_KINDS),
            "evidence_empty": kind.is_in(("user_complaint", "specific", "judgment")) & (cited == 0),
            "factors_empty": (kind == "factors") & (measured == 0),
            "favours_unknown": (
                pl.col("factors").is_not_null()
                & _some("factors", factor.is_not_null() & ~factor.is_in(("chosen", "rejected")))
            ),
            "quote_not_in_text": pl.col("quote_missing"),
            "side_unknown": (
                pl.col("evidence").is_not_null()
                & _some("evidence", ~pl.element().struct.field("side").is_in(_QUOTED))
            ),
            "about_unknown": pl.col("side").is_not_null() & ~pl.col("side").is_in(("chosen", "rejected")),
            "order_is_no_permutation": written & ~_both_ways(pl.col("order")),
            "label_not_recovered": written & ~pl.col("recovers_label"),
            "judgment_ids_empty": written & (pl.col("judgment_ids").list.len().fill_null(0) == 0),
            "model_null": written & pl.col("model").is_null(),
            "vote_share_outside": written & _outside("vote_share", 1),
            "rank_not_positive": (pl.col("rank") < 1).fill_null(False),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={
            "recovers_label": pl.col("recovers_label"),
            "by_user": kind == "user_complaint",
            "by_model": written,
            "held_out": pl.col("split") != "train",
            **PII,
        },
        numbers={"chars": pl.col("text").str.len_chars().cast(pl.Int64)},
    )


_QUOTED: Final = ("chosen", "rejected", "user", "prompt")


def _both_ways(order: pl.Expr) -> pl.Expr:
    return (order.list.sort() == pl.lit([0, 1], pl.List(pl.Int32))).fill_null(False)


def _rubrics() -> Contract:
    criterion = pl.element().struct
    weight, checked = criterion.field("weight"), criterion.field("check")
    by_program = checked == "program"
    weights = pl.col("criteria").list.eval(weight)
    described = pl.col("criteria").list.eval(criterion.field("description").str.strip_chars())
    ids = pl.col("criteria").list.eval(criterion.field("id"))
    voiced = criterion.field("source") == "complaint"
    return Contract(
        prepare=reading("rubrics", _asked("prompt")),
        bins={"language": LANGUAGE},
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt"),
            "criteria_empty": _none("criteria"),
            "criterion_id_malformed": _some("criteria", ~criterion.field("id").str.contains(_ID)),
            "criterion_id_repeated": ids.list.n_unique() != ids.list.len(),
            "description_empty": _some("criteria", criterion.field("description").str.strip_chars() == ""),
            "description_repeated": (
                described.list.eval(pl.element().str.to_lowercase()).list.n_unique() != described.list.len()
            ),
            "weight_not_finite": _some("criteria", ~(weight.is_finite() & (weight != 0))),
            "no_positive_weight": ~(weights.list.max() > 0),
            "criterion_kind_unknown": _some("criteria", ~criterion.field("kind").is_in(CRITERION_KINDS)),
            "check_unknown": _some("criteria", ~checked.is_in(CRITERION_CHECKS)),
            "criterion_source_unknown": _some(
                "criteria", ~criterion.field("source").is_in(CRITERION_SOURCES)
            ),
            "program_missing": _some("criteria", by_program != criterion.field("program").is_not_null()),
            "complaint_without_feedback": _some(
                "criteria", voiced & (criterion.field("feedback_ids").list.len().fill_null(0) == 0)
            ),
            "separation_outside": _not_a_share("separation"),
            "redundancy_outside": _not_a_share("redundancy"),
            "coverage_outside": _not_a_share("coverage"),
            "balance_outside": _not_a_share("balance"),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={
            "with_program": pl.col("criteria").list.eval(by_program).list.any(),
            "with_feedback": pl.col("feedback_ids").list.len() > 0,
            "separates": pl.col("separation") > 0.5,
            "held_out": pl.col("split") != "train",
            **PII,
        },
        numbers={
            "criteria": pl.col("criteria").list.len().cast(pl.Int64),
            "prompt_chars": _chars("prompt"),
            "separation": pl.col("separation"),
        },
    )


def _not_a_share(column: str) -> pl.Expr:
    """Neither null nor in [0, 1]."""
    return pl.col(column).is_not_null() & ~pl.col(column).is_between(0, 1).fill_null(False)


def _empty_texts(column: str) -> pl.Expr:
    """No texts, or a blank one among them."""
    return _none(column) | _some(column, pl.element().str.strip_chars() == "")


def _preferences() -> Contract:
    return Contract(
        prepare=reading("preferences"),
        defects={
            **_row_defects(),
            "prompt_id_malformed": _malformed("prompt_id"),
            "preferences_empty": _empty_texts("preferences"),
            "target_negative": pl.col("target_index") < 0,
            "feedback_ids_empty": pl.col("feedback_ids").list.len().fill_null(0) == 0,
            "method_unknown": _unknown("method", METHODS),
            "prompt_version_null": pl.col("prompt_version").is_null(),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={"held_out": pl.col("split") != "train", **PII},
        numbers={"statements": pl.col("preferences").list.len().cast(pl.Int64)},
    )


def _responses() -> Contract:
    return Contract(
        prepare=reading("responses", _said("completion")),
        bins={"role": Bins.of_words(pl.col("role"), RESPONSE_ROLES), "language": LANGUAGE},
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt", "completion"),
            "completion_empty": _speechless("completion"),
            "completion_not_a_reply": _reply("completion"),
            "role_unknown": _unknown("role", RESPONSE_ROLES),
            "model_null": ~pl.col("role").is_in(("logged", "side")) & pl.col("model").is_null(),
            "guided_null": pl.col("guided").is_null(),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={
            "flagged": pl.col("flags").list.len() > 0,
            "moderated": pl.col("flags").is_not_null(),
            "guided": pl.col("guided"),
            "refuses": refuses(_said("completion")),
            "model_unknown": pl.col("model").is_null(),
            **PII,
        },
        numbers={"completion_chars": _chars("completion")},
    )


def _judgments() -> Contract:
    places, replies = pl.col("order"), pl.col("response_ids")
    sides = replies.list.len()
    failed, verdict = pl.col("verdict") == "failed", pl.col("verdict")
    by_kind = (
        pl.when(pl.col("kind") == "pairwise")
        .then(~verdict.is_in(("win", "loss", "tie", "failed")))
        .when(pl.col("kind") == "pointwise")
        .then(~verdict.is_in(("rated", "failed")))
        .otherwise(~verdict.is_in(("ranked", "failed")))
    )
    first, second = (pl.col("scores").list.get(n, null_on_oob=True) for n in (0, 1))
    against = (
        ((verdict == "win") & (first <= second))
        | ((verdict == "loss") & (first >= second))
        | ((verdict == "tie") & (first != second))
    )
    first_shown = places.list.first()
    return Contract(
        prepare=reading("judgments"),
        bins={"verdict": Bins.of_words(verdict, JUDGMENT_VERDICTS)},
        defects={
            "id_malformed": _malformed("id"),
            "split_unknown": _unknown("split", SPLITS),
            "item_id_malformed": _malformed("item_id"),
            "kind_unknown": _unknown("kind", JUDGMENT_KINDS),
            "verdict_unknown": _unknown("verdict", JUDGMENT_VERDICTS),
            "verdict_not_of_its_kind": by_kind,
            "judge_null": pl.col("judge").is_null() | pl.col("model").is_null(),
            "prompt_version_null": pl.col("prompt_version").is_null(),
            "protocol_malformed": _malformed("protocol"),
            "order_is_no_permutation": places.list.sort() != pl.int_ranges(0, sides, dtype=pl.Int32),
            "replies_not_of_the_kind": (
                ((pl.col("kind") == "pairwise") & (sides != 2))
                | ((pl.col("kind") == "pointwise") & (sides != 1))
                | (sides == 0)
            ),
            "replies_repeated": replies.list.n_unique() != sides,
            "scores_missing": ~failed & (pl.col("scores").list.len().fill_null(0) != sides),
            "scores_of_a_failure": failed & pl.col("scores").is_not_null(),
            "verdict_against_scores": ((pl.col("kind") == "pairwise") & against).fill_null(False),
            "reason_missing": failed & pl.col("reason").is_null(),
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={
            "failed": failed,
            "tie": verdict == "tie",
            "first_shown_preferred": ((verdict == "win") & (first_shown == 0))
            | ((verdict == "loss") & (first_shown == 1)),
            "second_shown_preferred": ((verdict == "win") & (first_shown == 1))
            | ((verdict == "loss") & (first_shown == 0)),
            **PII,
        },
        numbers={"text_chars": pl.col("text").str.len_chars().fill_null(0).cast(pl.Int64)},
    )


def _ratings() -> Contract:
    rating = pl.element().struct.field("rating")
    mean = pl.col("attributes").list.eval(rating).list.mean()
    return Contract(
        prepare=reading("ratings", _said("completion")),
        bins={"language": LANGUAGE},
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt", "completion"),
            "completion_empty": _speechless("completion"),
            "completion_not_a_reply": _reply("completion"),
            "attributes_empty": pl.col("attributes").list.len().fill_null(0) == 0,
            "attribute_not_finite": _some("attributes", ~rating.is_finite()),
            "rating_not_finite": ~pl.col("rating").is_finite(),
            "rating_is_not_the_mean": ((mean - pl.col("rating")).abs() > 1e-9).fill_null(False),
            "response_id_malformed": _malformed("response_id"),
            "judgment_ids_empty": pl.col("judgment_ids").list.len().fill_null(0) == 0,
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        facts={
            "refuses": refuses(_said("completion")),
            "model_unknown": pl.col("model").is_null(),
            "held_out": pl.col("split") != "train",
            **PII,
        },
        averaged={"rating": pl.when(pl.col("rating").is_finite()).then(pl.col("rating"))},
        numbers={"rating": pl.col("rating"), "completion_chars": _chars("completion")},
    )


def _evaluation() -> Contract:
    return Contract(
        prepare=reading("evaluation", _asked("prompt")),
        bins={"language": LANGUAGE},
        facts=PII,
        defects={
            **_row_defects(),
            **_prompt(),
            **_messages("prompt", "reference"),
            "checklist_empty": _empty_texts("checklist"),
            "reference_not_a_reply": _reply("reference"),
            "cluster_negative": pl.col("cluster") < 0,
            "distance_outside": ~pl.col("distance").is_between(0, 2),
            "in_training": pl.col("split") == "train",
            "feedback_ids_empty": pl.col("feedback_ids").list.len().fill_null(0) == 0,
            "method_unknown": _unknown("method", METHODS),
            "conversation_id_malformed": _malformed("conversation_id"),
        },
        numbers={
            "prompt_chars": _chars("prompt"),
            "statements": pl.col("checklist").list.len().cast(pl.Int64),
        },
    )


def _quarantine() -> Contract:
    reasons = tuple(reason.value for reason in Reason)
    return Contract(
        bins={"reason": Bins.of_words(pl.col("reason"), reasons)},
        defects={
            "id_malformed": _malformed("id"),
            "source_null": pl.col("source").is_null(),
            "stage_null": pl.col("stage").is_null(),
            "key_null": pl.col("key").is_null(),
            "reason_unknown": _unknown("reason", reasons),
            "source_rows_negative": pl.col("source_rows") < 0,
            "payload_too_large": (pl.col("payload").str.len_bytes() > PAYLOAD_BYTES).fill_null(False),
            "detail_too_long": (pl.col("detail").str.len_chars() > DETAIL_CHARS).fill_null(False),
        },
        facts={"candidate": pl.col("source_rows") == 0},
        numbers={"source_rows": pl.col("source_rows").cast(pl.Int64)},
    )


CONTRACTS: Final[Mapping[str, Contract]] = {
    "conversations": _conversations(),
    "feedback": _feedback(),
    "pairs": _pairs(),
    "unpaired": _unpaired(),
    "rationales": _rationales(),
    "rubrics": _rubrics(),
    "preferences": _preferences(),
    "responses": _responses(),
    "judgments": _judgments(),
    "ratings": _ratings(),
    "evaluation": _evaluation(),
    "quarantine": _quarantine(),
}
