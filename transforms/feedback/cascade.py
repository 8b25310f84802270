"""A cascade: rules settle the turns they are sure of, a trained classifier what it is sure of, a model sees the rest.

Every user turn that follows a reply ends up settled or asked about, once, however many paths of a tree hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import polars as pl

from tilth.schemas import PL_MESSAGES, ConfigError, content_ids
from tilth.schemas.ids import messages_key
from tilth.transforms.feedback.mining import Heard, hear
from tilth.transforms.feedback.refusals import flagged
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.table import feedback_rows

Mode = Literal["rules", "cascade", "all"]
TURNS: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "message_index": pl.Int32,
        "target_index": pl.Int32,  # the last reply with text before it
        "turn_id": pl.String,  # shared by the paths of a tree that hold the turn
        "first": pl.Boolean,  # this row stands for the turn; the others are the same turn on other paths
        "settled_by": pl.String,  # rules | quiet | classifier | unread (other languages, without a model); null: ask
    }
)
_TURN: Final = ["conversation_id", "message_index"]
# A classifier tells polarity, no label: these are the widest of each side.
_WIDEST: Final = {"positive": "praise", "negative": "negative_feedback"}


@dataclass(frozen=True, slots=True)
class Cascade:
    """Who decides about a turn. Strengths, scores and probabilities lie in [0, 1].

    Defaults follow from the dev fold of `samples/feedback_labelled.jsonl`, 435 turns, half of which are feedback, hard
    on purpose. From `sure` = 0.8 the rules settle 60 turns at a precision of .95 (held-out fold: 27 at .89); from 0.6
    it would be 140 at .93 (held out: 60 at .77). The two `quiet` bounds settle 69 turns, of which 66 are no feedback
    (held out: 37, 31); with both at 0.1 it would be 183 turns and 28 missed (held out: 102, 32).

    Args:
        mode: `rules`: the model sees nothing. `cascade`: it sees what is unsettled. `all`: it sees every turn with
            text that follows a reply.
        sure: from this strength on the rules' signal stands, where the turn has signals of one polarity only.
        quiet_sat: a turn without any sign of feedback and with a lower score of satisfaction, and
        quiet_dsat: a lower score of dissatisfaction than this, is none.
        low: with a classifier: below this probability of either side a turn is no feedback.
        high: from this probability of one side on, while the other is below `low`, it is feedback.
        evidence_chars: the longest quote for a classifier's signal, whose evidence is the turn itself.
    """

    mode: Mode = "cascade"
    sure: float = 0.8
    quiet_sat: float = 0.05
    quiet_dsat: float = 0.02
    low: float = 0.05
    high: float = 0.95
    evidence_chars: int = 300

    def __post_init__(self) -> None:
        if self.mode not in ("rules", "cascade", "all"):
            raise ConfigError("the mode of mining", found=self.mode, wanted="rules, cascade or all")
        if not 0 <= self.low < self.high <= 1:
            found = f"low={self.low}, high={self.high}"
            raise ConfigError("the uncertain band", found=found, wanted="0 to 1, low below high")


class Settled(NamedTuple):
    """What was settled without a model, and what is left for one.

    `feedback`: rows of the table with `owned`. Signals of turns that are still to be asked about are among them: they
    stand unless the model answers (`joined`). `turns`: `TURNS`. `counts`: turns and conversations by what became of
    them; a turn of several paths counts once.
    """

    feedback: pl.DataFrame
    turns: pl.DataFrame
    counts: dict[str, int]

    @property
    def asked(self) -> pl.DataFrame:
        """The turns that the model is to be asked about, each once."""
        return self.turns.filter("first", pl.col("settled_by").is_null())


def settle_turns(
    conversations: pl.DataFrame,
    config: Cascade = Cascade(),
    rules: FeedbackRules = FeedbackRules(),  # noqa: B008  (frozen)
    probabilities: pl.DataFrame | None = None,
    classifier: str = "",
) -> Settled:
    """Settles what rules, and a classifier if there is one, are sure of.

    Both are for English: turns of conversations in other languages are all left to the model.

    Args:
        conversations: rows of the table; all paths of a tree among them, ids unique.
        config: thresholds and mode.
        rules: what the rules take for a signal.
        probabilities: calibrated, per turn: conversation_id, message_index, p_sat, p_dsat.
        classifier: what `method_version` says of the classifier's rows.
    """
    heard = hear(conversations, rules)
    found = _decided(_known(conversations, heard, probabilities), config)
    turns = found.select(pl.col(name).cast(kind) for name, kind in TURNS.items())
    by_classifier = found.filter(pl.col("settled_by") == "classifier")
    certain = _certain(by_classifier, conversations, config, f"classifier {classifier}".strip())
    standing = _standing(heard.mined.feedback, found, config)
    feedback = flagged(_sorted(pl.concat([standing, certain])), conversations, rules)
    return Settled(feedback, turns, _counts(turns, conversations))


def joined(
    settled: Settled, labels: pl.DataFrame, answered: pl.DataFrame, conversations: pl.DataFrame
) -> pl.DataFrame:
    """The feedback of all methods: rows of the table with `owned`, no turn and polarity twice.

    Where the model answered about a turn, its labels stand in place of the rules'; where it did not, theirs stay. A
    flag for a rightly refused request that either side raised holds for every complaint about that reply.

    Args:
        settled: what was known before.
        labels: the model's rows (`labelling.labelled`).
        answered: conversation_id and message_index of the turns that the model answered about, on every path.
        conversations: those of `settled`.
    """
    all_of_them = flagged(pl.concat([settled.feedback, labels]), conversations)
    overruled = pl.col("method") != "model"
    kept = all_of_them.join(answered.with_columns(answered=True), on=_TURN, how="left", maintain_order="left")
    return _sorted(kept.filter(~(overruled & pl.col("answered").fill_null(False))).drop("answered"))


def _sorted(feedback: pl.DataFrame) -> pl.DataFrame:
    return feedback.sort("conversation_id", "message_index", "polarity", maintain_order=True)


# The turns and what is known of them


def _known(conversations: pl.DataFrame, heard: Heard, probabilities: pl.DataFrame | None) -> pl.DataFrame:
    """Turns with the rules' scores, their strongest signal, how many polarities they found, and probabilities."""
    turns = _turns(conversations, heard.english)
    said = heard.mined.feedback.group_by(_TURN).agg(
        pl.col("strength").max(), pl.len().alias("signals"), pl.col("polarity").first()
    )
    scores = heard.scores.select(*_TURN, "sat", "dsat", signs=pl.col("labels").list.len() > 0)
    given = (
        scores.clear().select(*_TURN, p_sat="sat", p_dsat="dsat") if probabilities is None else probabilities
    )
    known = turns
    for frame in (said, scores, given.select(*_TURN, "p_sat", "p_dsat")):
        known = known.join(frame, on=_TURN, how="left", maintain_order="left")
    return known


def _turns(conversations: pl.DataFrame, english: pl.Series) -> pl.DataFrame:
    """Every user turn that follows a reply with text."""
    length = pl.col("said").list.len()
    about = conversations.select("record_id", "owned_from", conversation_id="id", said="messages")
    listed = about.with_columns(english.alias("english"), _in_tree()).with_row_index("row").filter(length > 0)
    flat = listed.with_columns(message_index=pl.int_ranges(0, length, dtype=pl.Int32))
    flat = flat.explode("said", "message_index").unnest("said")
    has_text = pl.col("content").str.contains(r"[^\s]").fill_null(False)
    reply = pl.when((pl.col("role") == "assistant") & has_text).then("message_index")
    flat = flat.with_columns(reply.forward_fill().over("row").alias("target_index"), blank=~has_text)
    turns = flat.filter(pl.col("role") == "user", pl.col("target_index").is_not_null()).drop(
        "role", "content"
    )
    owned = (pl.col("message_index") >= pl.col("owned_from")).fill_null(True)
    named = turns.with_columns(_turn_ids(turns, conversations), owned=owned)
    ranked = named.sort(["owned", "conversation_id"], descending=[True, False], maintain_order=True)
    first = ranked.with_columns(first=pl.col("turn_id").is_first_distinct())
    return first.sort("conversation_id", "message_index")


def _in_tree() -> pl.Expr:
    """Only conversations of one record can hold the same turn: the others need no reading of their text."""
    return (pl.len().over("record_id") > 1).alias("in_tree")


def _turn_ids(turns: pl.DataFrame, conversations: pl.DataFrame) -> pl.Series:
    """The same for turns of one record that are equal in everything up to them."""
    prefix = pl.col("messages").cast(PL_MESSAGES).list.head(pl.col("message_index") + 1)
    messages = conversations.select("messages").select(pl.all().gather(turns.get_column("row")))
    alone = pl.when(~pl.col("in_tree")).then("conversation_id")
    shared = pl.when("in_tree").then(prefix).otherwise(pl.lit([], PL_MESSAGES))
    rows = pl.concat([turns, messages], how="horizontal").select(
        "record_id", "message_index", alone=alone, prefix=shared
    )
    keys = [
        pl.col("record_id"),
        pl.col("alone"),
        pl.col("message_index").cast(pl.String),
        messages_key("prefix"),
    ]
    return content_ids(rows, "turns", keys).alias("turn_id")


# Who decides


def _decided(known: pl.DataFrame, config: Cascade) -> pl.DataFrame:
    """`known` with `settled_by`, `side` (what the classifier is sure of); every path says what the first says."""
    decided = known.with_columns(_side(config)).with_columns(_settled_by(config))
    same = [pl.col(name).filter("first").first().over("turn_id") for name in ("settled_by", "side")]
    return decided.with_columns(same)


def _settled_by(config: Cascade) -> pl.Expr:
    english = pl.col("english")
    if config.mode == "rules":
        unheard = pl.when(english | pl.col("blank")).then(pl.lit("quiet")).otherwise(pl.lit("unread"))
        return (
            pl.when(pl.col("signals").is_null()).then(unheard).otherwise(pl.lit("rules")).alias("settled_by")
        )
    if config.mode == "all":
        return pl.when("blank").then(pl.lit("quiet")).alias("settled_by")
    sure = (pl.col("signals") == 1) & (pl.col("strength") >= config.sure)
    faint = (pl.col("sat") < config.quiet_sat) & (pl.col("dsat") < config.quiet_dsat)
    quiet = pl.col("blank") | (english & ~pl.col("signs") & pl.col("signals").is_null() & faint)
    return (
        pl.when(sure)
        .then(pl.lit("rules"))
        .when(quiet)
        .then(pl.lit("quiet"))
        .when(english & pl.col("side").is_not_null())
        .then(pl.lit("classifier"))
        .alias("settled_by")
    )


def _side(config: Cascade) -> pl.Expr:
    """What the classifier is sure of: positive, negative or none; null in the uncertain band."""
    sat, dsat = pl.col("p_sat"), pl.col("p_dsat")
    return (
        pl.when((sat < config.low) & (dsat < config.low))
        .then(pl.lit("none"))
        .when((sat >= config.high) & (dsat < config.low))
        .then(pl.lit("positive"))
        .when((dsat >= config.high) & (sat < config.low))
        .then(pl.lit("negative"))
        .alias("side")
    )


def _standing(feedback: pl.DataFrame, found: pl.DataFrame, config: Cascade) -> pl.DataFrame:
    """The rules' rows but those that the classifier is sure are wrong."""
    if config.mode != "cascade":
        return feedback
    decided = found.select(*_TURN, "settled_by", "side")
    rows = feedback.join(decided, on=_TURN, how="left", maintain_order="left")
    wrong = (pl.col("settled_by") == "classifier") & (pl.col("side") != pl.col("polarity"))
    return rows.filter(~wrong.fill_null(False)).drop("settled_by", "side")


def _certain(found: pl.DataFrame, conversations: pl.DataFrame, config: Cascade, version: str) -> pl.DataFrame:
    """The classifier's own rows: turns it is sure of and the rules found nothing in."""
    heard = pl.col("polarity").eq_missing(pl.col("side")) | (pl.col("signals").fill_null(0) > 1)
    rows = found.filter(pl.col("side") != "none", ~heard)
    contents = conversations.get_column("messages").gather(rows.get_column("row"))
    text = (
        pl.col("messages")
        .list.get(pl.col("message_index"))
        .struct.field("content")
        .str.head(config.evidence_chars)
    )
    label = pl.col("side").replace_strict(_WIDEST, return_dtype=pl.String)
    quote = pl.struct(
        label.alias("label"),
        text.alias("text"),
        start=pl.lit(0, pl.Int32),
        end=text.str.len_chars().cast(pl.Int32),
    )
    signals = rows.with_columns(contents.alias("messages")).select(
        "row", "message_index", "target_index",
        polarity="side", labels=pl.concat_list(label), strength=pl.max_horizontal("p_sat", "p_dsat"),
        evidence=pl.concat_list(quote), dialogue_state=pl.lit("feedback"), on_refusal=pl.lit(value=False),
    )  # fmt: skip
    return feedback_rows(signals, conversations, "model", version)


# What is reported


def _counts(turns: pl.DataFrame, conversations: pl.DataFrame) -> dict[str, int]:
    """Turns and conversations by what became of them; each turn once."""
    once = turns.filter("first")
    by = dict(once.group_by("settled_by").len().iter_rows())
    spoken = once.filter(pl.col("settled_by").is_null()).get_column("conversation_id").n_unique()
    return {
        "conversations": conversations.height,
        "conversations_without_call": conversations.height - spoken,
        "turns": once.height,
        "settled_by_rules": by.get("rules", 0),
        "settled_as_quiet": by.get("quiet", 0),
        "settled_by_classifier": by.get("classifier", 0),
        "unread": by.get("unread", 0),
        "asked": by.get(None, 0),
    }
