"""SPUR: a rubric of user satisfaction learned from labelled conversations, and conversations scored by it.

Source: arXiv 2403.12388 ("Interpretable User Satisfaction Estimation for Conversational Systems with LLMs"): reasons
are extracted from labelled conversations, merged into up to ten items a side, and each item is scored 0 to 10. No code
or prompt was released; the prompts are ours. What differs: thresholds are chosen on conversations that the rubric was
not learned from (`SpurConfig.trial_share`), and a side may have fewer than ten items, because a model that must give
ten invents some. Functions here are pure: rows to requests, answers to rows, joined by id alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple  # Any: parsed JSON and messages

import polars as pl

from tilth.schemas import BadInput, Reason
from tilth.transforms.feedback.spur_rubric import (
    LABELS,
    MOST,
    Item,
    Rubric,
    SpurConfig,
    numbered_items,
)
from tilth.transforms.inference.prompts import Prompt, packaged_prompt
from tilth.transforms.inference.requests import Questions, Sampling
from tilth.transforms.inference.sampling import request_id, requests_frame

ASKED: Final = pl.Schema({"id": pl.String, "conversation_id": pl.String, "side": pl.String})
REASONS: Final = pl.Schema(
    {"conversation_id": pl.String, "side": pl.String, "place": pl.Int32, "text": pl.String}
)
SCORES: Final = pl.Schema(
    {
        "conversation_id": pl.String,
        "score": pl.Int32,  # impacts of satisfaction less those of dissatisfaction, [-100, 100]
        "label": pl.String,  # SAT | DSAT | neutral
        "items": pl.List(pl.Struct({"item": pl.String, "present": pl.Boolean, "impact": pl.Int32})),
        "rubric_version": pl.String,
        "model": pl.String,
    }
)
SET_ASIDE: Final = pl.Schema({"conversation_id": pl.String, "reason": pl.String, "detail": pl.String})
_SIDE_OF: Final = {"SAT": "sat", "DSAT": "dsat"}
_REASON_CHARS: Final = 300
_PROMPTS: Final = ("spur_extract", "spur_merge", "spur_score")


class Scored(NamedTuple):
    """Conversations with a score (`SCORES`) and those without (`SET_ASIDE`); every one asked about is in one."""

    scores: pl.DataFrame
    set_aside: pl.DataFrame


def prompts() -> dict[str, str]:
    """The prompts by id and version, with their digests."""
    found = [_prompt(name) for name in _PROMPTS]
    return {f"{prompt.id}@{prompt.version}": prompt.digest for prompt in found}


def _prompt(name: str) -> Prompt:
    return packaged_prompt("tilth.transforms.feedback", name)


def _sampling(config: SpurConfig) -> Sampling:
    return Sampling(config.temperature, 1.0, config.answer_tokens)


def draw(seed: int, *parts: str) -> str:
    """What rows are ordered by: of the seed and what the row is, never of where it stands."""
    return hashlib.blake2b("\0".join([str(seed), *parts]).encode(), digest_size=16).hexdigest()


# Which conversations teach, and which the thresholds are tried on


def apart(labelled: pl.DataFrame, config: SpurConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The labelled conversations (id, messages, label) to learn from, and those to choose thresholds on, by id.

    Of each label the same share is drawn, at least one. Raises `BadInput` for an id that stands there twice, a label
    that is none of SAT, DSAT and neutral, or a side without a conversation in either part.
    """
    ids, known = labelled.get_column("id"), labelled.get_column("label").is_in(LABELS).fill_null(value=False)
    if not known.all() or ids.n_unique() != ids.len():
        found = f"{(~known).sum()} with another label, {ids.len() - ids.n_unique()} repeated ids"
        raise BadInput(
            "labelled conversations", found=found, wanted=f"one of {', '.join(LABELS)}; each id once"
        )
    drawn = pl.Series("drawn", [draw(config.seed, one) for one in ids], dtype=pl.String)
    shuffled = (
        labelled.with_columns(drawn)
        .sort("drawn")
        .with_columns(pl.int_range(pl.len()).over("label").alias("at"))
    )
    count = (pl.len().over("label") * config.trial_share).ceil()
    tried = (pl.col("at") < count) if config.trial_share else pl.lit(value=True)
    taught = ~tried if config.trial_share else tried
    parts = [shuffled.filter(one).drop("drawn", "at").sort("id") for one in (taught, tried)]
    if any(not {"SAT", "DSAT"} <= set(part.get_column("label")) for part in parts):
        raise BadInput(
            "labelled conversations to learn from",
            found=", ".join(f"{(labelled.get_column('label') == label).sum()} {label}" for label in LABELS),
            wanted="SAT and DSAT, at least two each",
        )
    return parts[0], parts[1]


# 1. Extract


def extract_requests(labelled: pl.DataFrame, config: SpurConfig) -> Questions:
    """One request per conversation that is SAT or DSAT: what the user did or said that shows it."""
    side = pl.col("label").replace_strict(_SIDE_OF, default=None, return_dtype=pl.String)
    rows = labelled.with_columns(side.alias("side")).filter(pl.col("side").is_not_null())
    values = _transcripts(rows, config).with_columns(
        (pl.col("side") == "sat").alias("satisfied"), pl.lit(config.reasons).alias("reasons")
    )
    reason = {"type": "string", "minLength": 1, "maxLength": _REASON_CHARS}
    listed = {"type": "array", "items": reason, "maxItems": config.reasons}
    return _questions("spur_extract", values, config, _schema("tilth.spur.extract", {"reasons": listed}))


def reasons_of(asked: pl.DataFrame, completions: pl.DataFrame) -> pl.DataFrame:
    """The reasons that were found, as `REASONS`; blank ones and those that a conversation gave before are dropped."""
    rows = [
        {"conversation_id": conversation, "side": side, "place": place, "text": text}
        for conversation, side, answer in _answered(asked, completions)
        for place, text in enumerate(dict.fromkeys(_bare(one) for one in _listed(answer, "reasons")))
        if text
    ]
    return pl.DataFrame(rows, schema=REASONS)


# 2. Merge


def batches(reasons: pl.DataFrame, side: str, config: SpurConfig) -> list[list[str]]:
    """The reasons of a side in batches, in an order made of ids and seed alone."""
    rows = reasons.filter(pl.col("side") == side).select("conversation_id", "place", "text").rows()
    texts = [
        text for _, _, text in sorted(rows, key=lambda row: (draw(config.seed, row[0], str(row[1])), row))
    ]
    return [texts[start : start + config.batch] for start in range(0, len(texts), config.batch)]


def merge_requests(
    running: Mapping[str, Sequence[Item]], found: Mapping[str, Sequence[str]], config: SpurConfig
) -> Questions:
    """One request for each side of `found`: its running rubric with these reasons worked in."""
    rows = [
        {
            "conversation_id": side,
            "side": side,
            "satisfied": side == "sat",
            "items": config.items,
            "rubric": [
                {"name": item.name, "description": item.description} for item in running.get(side, ())
            ],
            "found": list(reasons),
        }
        for side, reasons in found.items()
    ]
    text = {"type": "string", "minLength": 1}
    item = _object({"name": {**text, "maxLength": 60}, "description": {**text, "maxLength": 400}})
    listed = {"type": "array", "items": item, "minItems": 1, "maxItems": config.items}
    return _questions(
        "spur_merge", pl.DataFrame(rows), config, _schema("tilth.spur.merge", {"items": listed})
    )


def merged(asked: pl.DataFrame, completions: pl.DataFrame, config: SpurConfig) -> dict[str, tuple[Item, ...]]:
    """The new running rubric of each side that was answered. Blank items and repeated names are passed over."""
    return {
        side: numbered_items(
            side, [(one["name"], one["description"]) for one in _listed(answer, "items")], config.items
        )
        for _, side, answer in _answered(asked, completions)
    }


# 3. Score


def score_requests(conversations: pl.DataFrame, rubric: Rubric, config: SpurConfig) -> Questions:
    """One request per conversation (id and messages are read) about all items of the rubric."""
    items = [{"id": item.id, "name": item.name, "description": item.description} for item in rubric.items]
    values = _transcripts(conversations, config).with_columns(
        pl.lit("").alias("side"), pl.lit(pl.Series([items])).first().alias("rubric")
    )
    # Two forms of an item, so that an impact without presence does not fit and is asked again before it is refused.
    impact = {"type": "integer", "minimum": 1, "maximum": MOST}
    shown = _object({"present": {"const": True}, "impact": impact})
    absent = _object({"present": {"const": False}, "impact": {"const": 0}})
    each = {item.id: {"anyOf": [shown, absent]} for item in rubric.items}
    return _questions("spur_score", values, config, _schema("tilth.spur.score", each))


def scores(
    asked: pl.DataFrame, completions: pl.DataFrame, failed: pl.DataFrame, rubric: Rubric, model: str
) -> Scored:
    """Scores of the conversations that were answered whole; the others with their reason.

    Args:
        asked: `ASKED`.
        completions: `COMPLETIONS`.
        failed: id, reason and detail of requests without an answer.
        rubric: what was asked about.
        model: what answered.

    An answer that misses an item, has one that was not asked about, or an impact that does not go with `present` is
    refused: its conversation is set aside, and no part of it counts.
    """
    told = {
        conversation: impacts(answer, rubric) for conversation, _, answer in _answered(asked, completions)
    }
    rows = [
        _row(conversation, found, rubric, model) for conversation, found in told.items() if found is not None
    ]
    scored = pl.DataFrame(rows, schema=SCORES).sort("conversation_id")
    reasons = asked.join(failed, on="id", how="left").with_columns(
        pl.col("reason").fill_null(Reason.MALFORMED_OUTPUT.value),
        pl.col("detail").fill_null("the answer does not fit the rubric"),
    )
    aside = reasons.join(scored, on="conversation_id", how="anti").select(SET_ASIDE.names())
    return Scored(scored, aside.cast(SET_ASIDE).sort("conversation_id"))


def impacts(answer: Mapping[str, Any], rubric: Rubric) -> dict[str, int] | None:
    """The impact of each item, 0 for an absent one; null for an answer that must not be counted."""
    ids = [item.id for item in rubric.items]
    if set(answer) != set(ids):
        return None
    found = {item: _impact(answer[item]) for item in ids}
    sound = {item: impact for item, impact in found.items() if impact is not None}
    return sound if len(sound) == len(ids) else None


def _impact(said: Any) -> int | None:
    present, impact = (said.get("present"), said.get("impact")) if isinstance(said, Mapping) else (None, None)
    if not isinstance(present, bool) or not isinstance(impact, int) or isinstance(impact, bool):
        return None
    return impact if (1 <= impact <= MOST if present else impact == 0) else None


def total(found: Mapping[str, int]) -> int:
    """Impacts of satisfaction less those of dissatisfaction, in [-100, 100].

    >>> total({"sat_1": 7, "sat_2": 0, "dsat_1": 10})
    -3
    """
    return sum(-impact if item.startswith("dsat") else impact for item, impact in found.items())


def _row(conversation: str, found: Mapping[str, int], rubric: Rubric, model: str) -> dict[str, Any]:
    score = total(found)
    return {
        "conversation_id": conversation,
        "score": score,
        "label": rubric.thresholds.label(score),
        "items": [{"item": item, "present": impact > 0, "impact": impact} for item, impact in found.items()],
        "rubric_version": rubric.version,
        "model": model,
    }


# Requests and answers


def _transcripts(conversations: pl.DataFrame, config: SpurConfig) -> pl.DataFrame:
    """`conversation_id`, the columns beside it, and `conversation`: turns of user and assistant, long replies cut."""
    said = [
        [_turn(turn, config.reply_chars) for turn in messages if turn["role"] in ("user", "assistant")]
        for messages in conversations.get_column("messages").to_list()
    ]
    kind = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    return (
        conversations.drop("messages")
        .rename({"id": "conversation_id"})
        .with_columns(pl.Series("conversation", said, dtype=kind))
    )


def _turn(turn: Mapping[str, str], reply_chars: int) -> dict[str, str]:
    content = turn["content"]
    if turn["role"] == "assistant" and len(content) > reply_chars:
        half = reply_chars // 2
        content = f"{content[:half]} [...] {content[-half:]}"
    return {"role": turn["role"], "content": content}


def _questions(name: str, values: pl.DataFrame, config: SpurConfig, schema: str) -> Questions:
    prompt = _prompt(name)
    requests = requests_frame(
        prompt, values, "conversation_id", _sampling(config), schema=schema, run_seed=config.seed
    )
    ids = [request_id(one, prompt.id) for one in values.get_column("conversation_id")]
    asked = values.select("conversation_id", "side").with_columns(pl.Series("id", ids, dtype=pl.String))
    return Questions(requests, asked.select(ASKED.names()).cast(ASKED))


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _schema(title: str, properties: Mapping[str, Any]) -> str:
    return json.dumps({"title": title, **_object(properties)})


def _answered(asked: pl.DataFrame, completions: pl.DataFrame) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Conversation, side and parsed answer of what was answered, in the order of what was asked.

    Raises `BadInput` for two different answers to one request.
    """
    answers = completions.select("id", "text").unique()
    twice = answers.height - answers.get_column("id").n_unique()
    if twice:
        raise BadInput("requests with two different answers", found=f"{twice}", wanted="one answer per id")
    joined = asked.join(answers, on="id", how="inner", maintain_order="left")
    for conversation, side, text in joined.select("conversation_id", "side", "text").iter_rows():
        yield conversation, side, _parsed(text)


def _parsed(text: str) -> dict[str, Any]:
    """The object in an answer; an empty one where there is none, which nothing fits."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _listed(answer: Mapping[str, Any], name: str) -> list[Any]:
    value = answer.get(name)
    return value if isinstance(value, list) else []


def _bare(text: str) -> str:
    return " ".join(text.split())


# From turns to conversations


def conversation_labels(turns: pl.DataFrame) -> pl.DataFrame:
    """Labels of conversations from labels of turns (appendix B).

    Args:
        turns: conversation_id, message_index and label (SAT, DSAT, neutral), in any order.

    Returns:
        conversation_id, part, first_index, last_index, label. Only neutral turns: neutral. Neutral ones and one side:
        that side. Both: it is cut before each turn that contradicts the part so far, and every part bears its own
        label. Part 0 alone is the rule "the first label that is not neutral"; the paper's totals exceed the number of
        dialogues, so later parts count there, although no rule that it states gives its table exactly.
    """
    at = ["conversation_id", "message_index"]
    ordered = turns.sort(at).with_columns(
        pl.when(pl.col("label") != "neutral").then(pl.col("label")).alias("sign")
    )
    before = pl.col("sign").forward_fill().shift(1).over("conversation_id")
    flips = (pl.col("sign") != before).fill_null(value=False)
    parts = ordered.with_columns(flips.cum_sum().over("conversation_id").cast(pl.Int32).alias("part"))
    return (
        parts.group_by("conversation_id", "part")
        .agg(
            pl.col("message_index").min().alias("first_index"),
            pl.col("message_index").max().alias("last_index"),
            pl.col("sign").drop_nulls().first().fill_null("neutral").alias("label"),
        )
        .sort("conversation_id", "part")
    )
