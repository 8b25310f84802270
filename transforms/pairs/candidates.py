"""Candidates become rows: prompts, sides, ids, and a reason where one may not ship."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import orjson
import polars as pl

from tilth.schemas import Reason, conform, content_ids, polars_schema
from tilth.schemas.ids import messages_key

_PAYLOAD_CHARS: Final = 16_384  # at most 64 KiB as UTF-8
_SPACES: Final = (" ", "\n", "\t", "\r", "\u00a0")

DROPPED: Final = pl.Schema(
    {
        "source": pl.String,
        "stage": pl.String,
        "reason": pl.String,
        "key": pl.String,
        "detail": pl.String,
        "payload": pl.String,
        "source_rows": pl.Int32,
    }
)


class Ruled(NamedTuple):
    """Rows of a table that a rule let through, and what it set aside: rows of `quarantine` without `id`."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


def replies(turns: pl.DataFrame, conversations: pl.DataFrame) -> pl.DataFrame:
    """Assistant replies with what leads to them; turns of another role or beyond the end are left out.

    Args:
        turns: columns `conversation_id` and `index` and any others, which are kept.
        conversations: rows of the table; of rows with one id, one is used.

    Returns:
        `turns` with `prompt`, `reply` (a list of one message), `source`, `record_id`, `model`, `split`,
        `tool_calls_json` (of the prompt) and `calls_tools` (whether the reply calls tools).
    """
    wanted = conversations.join(turns, left_on="id", right_on="conversation_id", how="semi")
    logged = wanted.unique("id", keep="first").select(
        "messages", "source", "record_id", "model", "split", "tool_calls_json", conversation_id="id"
    )
    joined = turns.with_columns(pl.col("index").cast(pl.UInt32)).join(logged, on="conversation_id")
    cut = joined.with_columns(
        prompt=pl.col("messages").list.head("index"), reply=pl.col("messages").list.slice("index", 1)
    )
    role = pl.col("reply").list.first().struct.field("role")
    return _with_tool_calls(cut.drop("messages").filter(role == "assistant"))


def _with_tool_calls(rows: pl.DataFrame) -> pl.DataFrame:
    if rows.get_column("tool_calls_json").null_count() == rows.height:
        return rows.with_columns(calls_tools=False)
    split = [_calls(text, index) for text, index in rows.select("tool_calls_json", "index").iter_rows()]
    return rows.with_columns(
        pl.Series("tool_calls_json", [before for before, _ in split], dtype=pl.String),
        pl.Series("calls_tools", [here for _, here in split], dtype=pl.Boolean),
    )


def _calls(text: str | None, index: int) -> tuple[str | None, bool]:
    """The calls before message `index`, as JSON (null for none), and whether that message calls any."""
    calls: list[dict[str, Any]] = orjson.loads(text) if text else []  # Any: JSON of the provider's choosing
    before = [call for call in calls if call["message_index"] < index]
    return orjson.dumps(before).decode() if before else None, any(
        call["message_index"] == index for call in calls
    )


def normalised(side: str) -> pl.Expr:
    """The text of a side without case and white space: sides that agree in it are near-identical."""
    content = pl.element().struct.field("content").str.to_lowercase()
    for space in _SPACES:  # three times faster than one regular expression
        content = content.str.replace_all(space, "", literal=True)
    return pl.col(side).list.eval(content).list.join("\0")


class Objection(NamedTuple):
    """Why a candidate may not ship: where `found` holds, for `reason`; `detail` holds no user text."""

    found: pl.Expr
    reason: Reason
    detail: str | pl.Expr


def rule_pairs(candidates: pl.DataFrame, objections: Sequence[Objection]) -> Ruled:
    """Sorts candidates for pairs into rows of `pairs` and of `quarantine`.

    Args:
        candidates: columns `prompt`, `chosen`, `rejected`, `chosen_score`, `rejected_score`, `calls_tools`
            (either side), `source`, of `pairs` what else is known, and what `objections` need.
        objections: the strategy's own, most important first; those that any pair may meet come before them.
    """
    scored = candidates.with_columns(margin=pl.col("chosen_score") - pl.col("rejected_score"))
    margin = pl.col("margin")
    untold = ~(margin > 0).fill_null(False) | ~margin.is_finite()
    same = normalised("chosen") == normalised("rejected")
    faults = [
        Objection(same, Reason.IDENTICAL_SIDES, "the replies differ at most in case and white space"),
        *objections,
        Objection(untold, Reason.TIE, "no margin between the scores"),
    ]
    keys = [messages_key("chosen"), messages_key("rejected")]
    payload = ["origin", "conversation_id", "prompt", "chosen", "rejected"]
    return _ruled(_judged(scored, ("chosen", "rejected"), faults), "pairs", keys, payload)


def rule_unpaired(candidates: pl.DataFrame, objections: Sequence[Objection]) -> Ruled:
    """Sorts candidates for unpaired labels as `rule_pairs` does for pairs; the side is `completion`."""
    keys = [messages_key("completion"), pl.col("label").cast(pl.String)]
    payload = ["label", "conversation_id", "prompt", "completion"]
    return _ruled(_judged(candidates, ("completion",), objections), "unpaired", keys, payload)


def _judged(rows: pl.DataFrame, sides: Sequence[str], objections: Sequence[Objection]) -> pl.DataFrame:
    """`rows` with the `reason` and `detail` of the first objection that holds, else nulls."""
    last = pl.col("prompt").list.last().struct.field("role")
    texts = [pl.col(side).list.first().struct.field("content") for side in sides]
    blank = pl.any_horizontal(text.str.strip_chars().fill_null("") == "" for text in texts)
    common = [
        Objection(
            last.ne_missing("user"), Reason.PROMPT_NOT_FROM_USER, "the prompt ends with another's turn"
        ),
        Objection(pl.col("calls_tools"), Reason.UNSUPPORTED_CONTENT, "a side calls tools, outside its text"),
        Objection(blank, Reason.EMPTY_MESSAGE, "a side has no text"),
    ]
    reason, detail = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for found, why, text in reversed([*common, *objections]):
        reason = pl.when(found).then(pl.lit(why.value)).otherwise(reason)
        detail = pl.when(found).then(pl.lit(text) if isinstance(text, str) else text).otherwise(detail)
    return rows.with_columns(reason=reason, detail=detail)


def _ruled(marked: pl.DataFrame, table: str, keys: list[pl.Expr], payload: list[str]) -> Ruled:
    prompted = marked.with_columns(
        content_ids(marked, "prompts", [messages_key("prompt")]).alias("prompt_id")
    )
    identified = prompted.with_columns(content_ids(prompted, table, [pl.col("prompt_id"), *keys]))
    passed = identified.filter(pl.col("reason").is_null())
    kept = conform(
        passed.select(pl.selectors.by_name(*polars_schema(table).names(), require_all=False)), table
    )
    # Replies of equal text are one reply: what a conversation says of them counts once.
    once = [name for name in ("id", "conversation_id", "origin") if name in kept.columns]
    best = -pl.col("margin" if table == "pairs" else "weight")
    ordered = kept.sort("id", "conversation_id", best).unique(once, keep="first", maintain_order=True)
    return Ruled(ordered, quarantined(identified.filter(pl.col("reason").is_not_null()), "pair", payload))


def quarantined(dropped: pl.DataFrame, stage: str, payload: list[str]) -> pl.DataFrame:
    """Rows of `quarantine` without `id`, once each, from candidates with their `reason`."""
    rows = dropped.select(
        source="source",
        stage=pl.lit(stage),
        reason="reason",
        key="id",
        detail="detail",
        payload=pl.struct(payload).struct.json_encode().str.slice(0, _PAYLOAD_CHARS),
        source_rows=pl.lit(0, pl.Int32),
    )
    return rows.cast(DROPPED).unique().sort("key", "reason", "payload")
