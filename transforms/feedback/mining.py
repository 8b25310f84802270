"""Feedback by rules: what users say about replies, found without a model.

Sources: the 18 labels of WildFeedback (arXiv 2408.15549) and SPUR (arXiv 2403.12388); the similarity proxy of a
repeated request is that of Naturally Occurring Feedback (arXiv 2407.10944, UR1). They label with a model; here lexical
patterns, similarity and facts about the replies around a turn do it, so explicit signals are found and most implicit
ones are not.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl

from tilth.transforms.feedback.language import languages
from tilth.transforms.feedback.matching import HITS, matches
from tilth.transforms.feedback.patterns import EDGE, context, load
from tilth.transforms.feedback.rules import FeedbackRules
from tilth.transforms.feedback.table import feedback_rows
from tilth.transforms.feedback.taxonomy import DSAT, POLARITY
from tilth.transforms.feedback.turns import user_turns

_GREETING_CHARS: Final = 160
_SERIES_WORDS: Final = 5
# The output of a program that failed, pasted as it came.
_TRACE: Final = (
    r"Traceback \(most recent|\b[A-Z]\w*(?:Error|Exception)\b|\berror(?:\[\w+\])?:|Segmentation fault"
)
# "NASA is American" after "NASA is in Europe": group 1 is said by both.
_RETOLD: Final = r"^(?:[a-z']{1,6}[,.! ]+){0,2}?((?:[a-z]{3,} )?[a-z0-9*+/-]{3,} (?:is|was|are|were)) "
_PRONOUNS: Final = (
    r"\b(?:it|this|that|these|those|they|you|she|there|here|which|who|what) (?:is|was|are|were)$"
)
# "Quebec is not a country", "Oakland is too far": group 1 is what the turn finds fault with.
_FAULTED: Final = (
    r"^(?:[a-z']{1,6}[,.! ]+){0,2}?(?:the |that |but )?([a-z][a-z0-9]{2,3})[a-z0-9]*(?: [a-z0-9]+)? "
    r"(?:(?:isn|aren|wasn|doesn)'?t|is not|are not|was not|does not|has no|"
    r"is (?:a bit |way |much |far |still )?(?:too|over|above|out of) )"
)
# "It hasn't been delivered" after "It has been delivered": group 1 begins what is denied.
_DENIED: Final = (
    r"^(?:no[,.! ]+)?(?:it|that|this|they|he|she) (?:[a-z]+n't|(?:is|was|has|have|had|do|does|did) not)"
    r"(?: been| any| a| the| even)? ([a-z]{4})"
)
# "No! I want to cancel" answers no question; "40 miles? that's not near" and "And the child?" are no new ones.
_REFUSES: Final = r"^\W*no\b.*\b(?:want|said|asked|need|not)\b"
_DOUBTS: Final = r"^([a-z0-9 ]{2,30})\?+ .*(?:\b(?:not|no|but|said|is|are|only)\b|n't|[0-9])"
_REMINDS: Final = r"^\W*(?:and|but|what about|so|where'?s|where is|where are) (?:[a-z0-9']+ ?){1,5}\?\W*$"
_UNWANTED: Final = r"\b(?:without|avoid|no|never|free of)\b (?:any |using |mentioning )?([a-z]{3,5})"
_INSISTS: Final = r"\b(?:but|no|not|said|need|want|only|has to|have to|must|should|i'm|im|i am|please)\b|n't"
_STATES: Final = (
    r"\b(?:is|was|are|were|has|have|had|died|won|wrote|made|comes|lives)\b|\w's\b|="
    r"|^(?:no[,. ]+)?(?:they|it|he|she) [a-z]+ [a-z]+"
)
_CONTENT: Final = r"[a-z]{3,}|[0-9]+"
_BRIEF: Final = 14  # words; a longer turn shares words with what came before by chance
_TERSE: Final = 6  # so few may be nothing but the word that was missed
_PLAIN_REQUEST: Final = 300  # characters; the same for a longer request


class Mined(NamedTuple):
    """What mining makes of a frame of conversations."""

    feedback: pl.DataFrame
    passed_over: pl.DataFrame


class Heard(NamedTuple):
    """What the rules make of a frame of conversations in one reading."""

    mined: Mined
    scores: pl.DataFrame  # as `score_turns` gives them, of the English conversations alone
    english: pl.Series  # one boolean a conversation


def hear(conversations: pl.DataFrame, rules: FeedbackRules = FeedbackRules()) -> Heard:  # noqa: B008  (frozen)
    """What `mine` and, for English, `score_turns` find, at the cost of one of them."""
    spoken_in = languages(conversations)
    is_english = (spoken_in == "en").alias("english")
    english = conversations.filter(is_english)
    turns, signals = _read(english, rules)
    mined = Mined(_emitted(english, turns, signals, rules), _passed_over(spoken_in))
    return Heard(mined, _scored(english, turns, signals), is_english)


def mine(conversations: pl.DataFrame, rules: FeedbackRules = FeedbackRules()) -> Mined:  # noqa: B008  (frozen)
    """Finds the feedback in English conversations; counts the others by language.

    Args:
        conversations: table `conversations`; id, record_id, messages, owned_from, language and split are read.
        rules: thresholds.

    Returns:
        `feedback`: table `feedback` and a boolean `owned` (the turn belongs to this conversation, not to an earlier
        path of its tree); one row per user turn and polarity, ids equal for a turn that two paths share.
        `passed_over`: columns language and conversations.
    """
    spoken_in = languages(conversations)
    english = conversations.filter(spoken_in == "en")
    return Mined(_emitted(english, *_read(english, rules), rules), _passed_over(spoken_in))


def score_turns(conversations: pl.DataFrame, rules: FeedbackRules = FeedbackRules()) -> pl.DataFrame:  # noqa: B008
    """How satisfied and how dissatisfied each user turn sounds, for ranking; also below the emission threshold.

    Returns one row per user turn that follows a reply, of conversations in any language: conversation_id,
    message_index, sat and dsat in [0, 1), labels. Scores of 0.3 and more agree with the strengths of `mine` up to the
    small prior that orders turns without any signal.
    """
    return _scored(conversations, *_read(conversations, rules))


def _read(conversations: pl.DataFrame, rules: FeedbackRules) -> tuple[pl.DataFrame, pl.DataFrame]:
    """User turns and the signals in them."""
    turns = user_turns(conversations, rules)
    return turns, _signals(_hits(turns, rules), rules)


def _passed_over(spoken_in: pl.Series) -> pl.DataFrame:
    other = spoken_in.filter(spoken_in != "en").alias("language")
    return other.value_counts(name="conversations", sort=False).sort("language")


def _emitted(
    conversations: pl.DataFrame, turns: pl.DataFrame, signals: pl.DataFrame, rules: FeedbackRules
) -> pl.DataFrame:
    return _rows(conversations, turns, signals.filter(pl.col("strength") >= rules.min_strength))


def _scored(conversations: pl.DataFrame, turns: pl.DataFrame, signals: pl.DataFrame) -> pl.DataFrame:
    sides = [_side(signals, "positive", "sat"), _side(signals, "negative", "dsat")]
    scored = turns
    for side in sides:
        scored = scored.join(side, on="turn", how="left", maintain_order="left")
    return scored.select(
        conversations.get_column("id").gather(turns.get_column("row")).alias("conversation_id"),
        "message_index",
        (1 - (1 - pl.col("sat").fill_null(0.0)) * (1 - _faintly_pleased())).alias("sat"),
        (1 - (1 - pl.col("dsat").fill_null(0.0)) * (1 - _faintly_displeased())).alias("dsat"),
        pl.concat_list(pl.col("sat_labels").fill_null([]), pl.col("dsat_labels").fill_null([])).alias(
            "labels"
        ),
    )


def _side(signals: pl.DataFrame, polarity: str, name: str) -> pl.DataFrame:
    chosen = signals.filter(pl.col("polarity") == polarity)
    return chosen.select("turn", pl.col("strength").alias(name), pl.col("labels").alias(f"{name}_labels"))


def _hits(turns: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    """Lexical and implicit hits, weighted by what kind of turn they stand in."""
    hits = pl.concat([matches(turns), *_implicit(turns, rules)])
    about = turns.select("words", "invited", _only_answers(), _only_orders().alias("orders")).select(
        pl.all().gather(hits.get_column("turn"))
    )
    explicit = pl.col("weight") >= rules.explicit
    negative = pl.col("label").is_in(DSAT)
    long = pl.when(pl.col("words") > rules.wordy).then(rules.damp).otherwise(1.0)
    faint = pl.when(~explicit & (pl.col("words") > rules.wordy / 2)).then(rules.damp).otherwise(1.0)
    content = pl.col("orders") & ~pl.col("label").is_in(["revision", "insufficient_detail"])
    answer = pl.when(negative & (pl.col("only_answers") | content)).then(rules.answering).otherwise(1.0)
    pasted = pl.when(pl.col("invited") & (pl.col("words") > rules.repeat_min_words)).then(0.0).otherwise(1.0)
    weighted = pl.concat([hits, about], how="horizontal").with_columns(
        pl.col("weight") * long * faint * answer * pasted
    )
    return weighted.select(hits.columns).filter(pl.col("weight") > 0)


def _only_answers() -> pl.Expr:
    """The turn answers an open question of the assistant and does not address the assistant or the request.

    After a mere greeting ("how can I help?") there is no reply to complain about, unless the assistant itself is meant.
    """
    greeted = pl.col("ends").str.contains(context()["greets"]) & (
        pl.col("ends").str.len_chars() <= _GREETING_CHARS
    )
    alone = greeted & ~pl.col("spoken").str.contains(r"\b(?:you|your|u|bot)\b")
    addresses = pl.col("spoken").str.contains(context()["to_you"])
    open_question = pl.col("asked") & ~pl.col("suggested") & ~pl.col("confirming") & ~pl.col("lost")
    to_the_reply = pl.col("spoken").str.contains(context()["talks_back"])
    told = pl.col("ends").str.contains(context()["inquires"]) | pl.col("spoken").str.contains(
        context()["past_world"]
    )
    return (open_question & ~addresses | told & ~to_the_reply | alone).alias("only_answers")


def _only_orders() -> pl.Expr:
    """One sentence that asks for something new: what is wrong or bad in it is content."""
    orders = pl.col("spoken").str.contains(context()["tasks"])
    to_the_reply = pl.col("spoken").str.contains(context()["talks_back"] + r"|[.!?]\s+\w")
    return (orders & ~to_the_reply).alias("orders")


def _implicit(turns: pl.DataFrame, rules: FeedbackRules) -> list[pl.DataFrame]:
    repeats = turns.filter("repeats")
    sorry = turns.filter(pl.col("apologised") & (pl.col("words") <= rules.wordy))
    failed = turns.filter(
        pl.col("code") & pl.col("content").str.contains(_TRACE) & ~pl.col("spoken").str.contains(r"\?")
    )
    return [
        _whole(repeats, "revision", 0.5, rules),
        _whole(sorry, "negative_feedback", 0.4, rules),
        _whole(turns.filter(pl.col("lost") & ~_quiet()), "revision", 0.35, rules),
        _whole(failed, "negative_feedback", 0.45, rules),
        *_contradicting(turns, rules),
    ]


def _contradicting(turns: pl.DataFrame, rules: FeedbackRules) -> list[pl.DataFrame]:
    """Brief statements that take up words of the request the reply left out, or of the reply to set it right."""
    spoken, ends = pl.col("spoken"), pl.col("ends")
    brief = _brief(turns)
    asking, brief = brief.filter(spoken.str.contains(r"\?")), brief.filter(~spoken.str.contains(r"\?"))
    left_out = (pl.col("left_out") > 0) & (pl.col("left_out") * 3 >= pl.col("said"))
    fragment = (pl.col("known") == pl.col("said")) & ~pl.col("content").str.contains(
        '["“]'
    )  # a quote is new text
    again = left_out & (spoken.str.contains(_INSISTS) | fragment)
    unwanted = pl.col("request").str.to_lowercase().str.extract(_UNWANTED, 1)
    there = spoken.str.contains(unwanted, literal=True) & ends.str.contains(unwanted, literal=True)
    reminded = spoken.str.contains(_REMINDS) & left_out
    doubted = ends.str.contains(spoken.str.extract(_DOUBTS, 1), literal=True)
    restated = asking.filter(reminded | doubted)
    insisted = brief.filter(again | there)
    subject = spoken.str.extract(_FAULTED, 1)
    faulted = brief.filter(ends.str.contains(subject, literal=True) & ~pl.col("failed"))
    denied = brief.filter(ends.str.contains(spoken.str.extract(_DENIED, 1), literal=True) & ~pl.col("failed"))
    retold = spoken.str.extract(_RETOLD, 1)
    retold = ends.str.contains(retold, literal=True) & ~retold.str.contains(_PRONOUNS)
    question = pl.col("request").str.contains(
        r"(?i)\?|^\W*(?:who|what|when|where|which|how|is|are|was|did|do)\b"
    )
    stated = brief.filter(
        (question & spoken.str.contains(_STATES) & pl.col("taken_up") & ~pl.col("suggested"))
        | retold.fill_null(value=False),
        ~spoken.str.contains(r"^(?:[a-z]+[,.!]* )?(?:i|my|we|mine|i'm|im|me)\b"),
    )
    return [
        _whole(pl.concat([restated, insisted]), "revision", 0.4, rules),
        _whole(faulted, "negative_feedback", 0.45, rules),
        _whole(denied, "factual_error", 0.4, rules),
        _whole(stated, "factual_error", 0.35, rules),
    ]


def _brief(turns: pl.DataFrame) -> pl.DataFrame:
    """Brief turns that state or insist, with the words they share with the request and the reply.

    After a request as brief as they are ("20 °C", then "212") they are the next item of a series, not a remark.
    """
    spoken = pl.col("spoken")
    open_question = pl.col("asked") & ~pl.col("confirming") & ~spoken.str.contains(_REFUSES)
    brief = turns.filter((pl.col("words") <= _BRIEF) & ~open_question & ~_pleased())
    says = (pl.col("words") <= _TERSE) | spoken.str.contains("|".join((_INSISTS, _STATES, _REMINDS, _DOUBTS)))
    series = pl.col("request").str.count_matches(r"\S+") < _SERIES_WORDS
    plain = (pl.col("request").str.len_chars() <= _PLAIN_REQUEST) & ~series
    return brief.filter(says & plain).with_columns(_shared_words())


def _shared_words() -> list[pl.Expr]:
    """Content words: `said`, those `known` from the request or `left_out` by the reply, any `taken_up` from it."""
    common = rf"{EDGE}(?:{'|'.join(load('_similarity')['function_words'].split())}){EDGE}"
    now, then, reply = (
        text.str.extract_all(_CONTENT)
        for text in (
            pl.col("spoken").str.replace_all(common, " "),
            pl.col("request").str.to_lowercase(),
            pl.col("ends"),
        )
    )
    now = now.list.unique()
    left_out = now.list.set_intersection(then).list.set_difference(reply).list.len()
    return [
        now.list.len().alias("said"),
        left_out.alias("left_out"),
        now.list.set_intersection(then).list.len().alias("known"),
        (now.list.set_intersection(reply).list.len() > 0).alias("taken_up"),
    ]


def _pleased() -> pl.Expr:
    return pl.col("spoken").str.contains(
        r"\b(?:thanks?|bye|yes|yeah|great|good|perfect|nice|cool|love|interesting|wow|awesome|sounds|right|too bad)\b"
    )


def _quiet() -> pl.Expr:
    """A turn that neither says again nor goes on: yes, no, thanks, or nothing."""
    return (pl.col("words") <= 2) | pl.col("spoken").str.contains(
        r"\b(?:thank|thanks|bye|yes|great|perfect)\b"
    )


def _whole(turns: pl.DataFrame, label: str, weight: float, rules: FeedbackRules) -> pl.DataFrame:
    """Hits whose evidence is the turn itself, cut at `rules.evidence_chars`."""
    end = turns.get_column("content").str.len_chars().clip(upper_bound=rules.evidence_chars)
    hits = turns.select("turn", label=pl.lit(label), weight=pl.lit(weight), start=pl.lit(0), end=end)
    return hits.select(pl.col(name).cast(kind) for name, kind in HITS.items())


def _signals(hits: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    """One row per turn and polarity: strength (noisy-or over labels), labels by weight, one quote per label."""
    best = hits.sort(
        ["turn", "weight", "label", "start", "end"], descending=[False, True, False, False, True]
    ).unique(["turn", "label"], keep="first", maintain_order=True)
    polarity = pl.col("label").replace_strict(POLARITY, return_dtype=pl.String).alias("polarity")
    signals = (
        best.with_columns(polarity)
        .group_by("turn", "polarity", maintain_order=True)
        .agg(
            (1 - (1 - pl.col("weight")).product()).clip(upper_bound=0.99).alias("strength"),
            pl.col("label").alias("labels"),
            pl.struct("label", "start", "end").alias("spans"),
        )
    )
    return _without_overruled(signals, rules)


def _without_overruled(signals: pl.DataFrame, rules: FeedbackRules) -> pl.DataFrame:
    """Drops politeness around a complaint ("thanks but …") and faint complaints around praise."""
    other = signals.select("turn", pl.col("strength").alias("against"), pl.col("polarity").alias("other"))
    other = other.with_columns(pl.col("other").replace({"positive": "negative", "negative": "positive"}))
    signals = signals.join(
        other, left_on=["turn", "polarity"], right_on=["turn", "other"], how="left", maintain_order="left"
    )
    polite = pl.col("labels").list.set_difference(
        ["gratitude", "acknowledgement", "positive_closure", "humor"]
    )
    against = pl.col("against").fill_null(0.0)
    overruled = (
        pl.when(pl.col("polarity") == "positive")
        .then(
            (against >= rules.min_strength) & (polite.list.len() == 0) & (against + 0.35 > pl.col("strength"))
        )
        .otherwise((pl.col("strength") < rules.explicit) & (against >= rules.explicit))
    )
    return signals.filter(~overruled).drop("against")


def _faintly_displeased() -> pl.Expr:
    """A prior below every emitted signal: what a dissatisfied user's turn looks like when no pattern finds it."""
    return pl.sum_horizontal(
        pl.col("failed") * 0.12,
        pl.col("apologised") * 0.05,
        pl.col("similar") * 0.08,
        (pl.col("words") <= 12) * 0.02,
        pl.col("spoken").str.contains(r"\b(?:no|not|but|why|dont|still|again|instead|n't|don't|wrong)\b")
        * 0.05,
        (pl.col("spoken").str.contains(r"\?\?|!!|\.\.\.")) * 0.02,
    )


def _faintly_pleased() -> pl.Expr:
    return pl.sum_horizontal(
        pl.col("spoken").str.contains(r"\b(?:yes|yeah|great|good|ok|okay|nice|love|like|cool|sure|thank)\b")
        * 0.1,
        pl.col("spoken").str.contains(r"!") * 0.03,
        (~pl.col("failed")) * 0.03,
    )


def _rows(conversations: pl.DataFrame, turns: pl.DataFrame, signals: pl.DataFrame) -> pl.DataFrame:
    about = turns.select(pl.exclude("turn").gather(signals.get_column("turn")))
    rows = pl.concat([signals, about], how="horizontal").with_columns(on_refusal(), dialogue_state())
    return feedback_rows(rows.with_columns(_quotes(rows)), conversations, "rules")


def _quotes(rows: pl.DataFrame) -> pl.Series:
    spans = rows.select("content", "spans").with_row_index("at").explode("spans").unnest("spans")
    quoted = spans.with_columns(
        pl.col("content").str.slice(pl.col("start"), pl.col("end") - pl.col("start")).alias("text")
    )
    listed = quoted.group_by("at", maintain_order=True).agg(
        pl.struct("label", "text", "start", "end").alias("evidence")
    )
    return listed.get_column("evidence")


def on_refusal() -> pl.Expr:
    """A complaint about what looks like a right refusal: by policy, of a harmful request, or a decision not to help.

    Reads `polarity` and, of the columns of `user_turns`, request, spoken, ends and refused.

    An inability ("I can't find", "I can't access") is none. Where it is unclear the reply counts as a refusal: that
    costs a label, the other mistake would teach a model to comply.
    """
    harmful = context()["harmful"]
    asked = pl.col("request").str.to_lowercase().str.contains(harmful) | pl.col("spoken").str.contains(
        harmful
    )
    declined = pl.col("ends").str.contains(context()["declines"])
    by_policy = pl.col("refused") & pl.col("ends").str.contains(context()["policy"])
    refused = declined | by_policy | (pl.col("refused") & asked)
    return ((pl.col("polarity") == "negative") & refused).alias("on_refusal")


def dialogue_state() -> pl.Expr:
    """Where the conversation goes with this turn.

    closing: it ends (farewell, "that is all"). refinement: the same request goes on, with a change or a repetition.
    new_request: something else is asked for beside the signal. feedback: the turn is the signal and little more.
    continuation: anything else.
    """
    found = context()
    text = pl.col("spoken")
    asks = text.str.contains(found["asks"])
    refines = pl.col("labels").list.set_intersection(
        ["revision", "style", "insufficient_detail", "ignored", "getting_there"]
    )
    said = (
        pl.col("spans")
        .list.eval(pl.element().struct.field("end") - pl.element().struct.field("start"))
        .list.max()
    )
    return (
        pl.when(text.str.contains(found["closes"]) & ~asks)
        .then(pl.lit("closing"))
        .when((refines.list.len() > 0) | pl.col("repeats"))
        .then(pl.lit("refinement"))
        .when(asks & (pl.col("polarity") == "positive"))
        .then(pl.lit("new_request"))
        .when((pl.col("words") <= 12) | (said * 2 > text.str.len_chars()))
        .then(pl.lit("feedback"))
        .when(asks)
        .then(pl.lit("new_request"))
        .otherwise(pl.lit("continuation"))
        .alias("dialogue_state")
    )
