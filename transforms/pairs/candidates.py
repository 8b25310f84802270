"""Candidates become rows: prompts, sides, ids, and a reason where one may not ship."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson
import polars as pl

from tilth.schemas import Reason, conform, content_ids
from tilth.schemas.ids import messages_key

_PAYLOAD_CHARS: Final = 16_384  # at most 64 KiB as UTF-8

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
    calls = orjson.loads(text) if text else []
    before = [call for call in calls if call["message_index"] < index]
    return orjson.dumps(before).decode() if before else None, any(
        call["message_index"] == index for call in calls
    )


def normalised(side: str) -> pl.Expr:
    """The text of a side without case and white space: sides that agree in it are near-identical."""
    content = pl.element().struct.field("content").str.to_lowercase().str.replace_all(r"\s+", "")
    return pl.col(side).list.eval(content).list.join("\0")


def rule_pairs(candidates: pl.DataFrame) -> Ruled:
    """Sorts candidates for pairs into rows of `pairs` and of `quarantine`.

    Args:
        candidates: columns `prompt`, `chosen`, `rejected`, `chosen_score`, `rejected_score`, `calls_tools`
            (either side), `source`, and of `pairs` what else is known; `reason` and `detail` are null where
            the strategy has no objection. A fault that any pair may have comes before the strategy's own.
    """
    margin = pl.col("chosen_score") - pl.col("rejected_score")
    faults = [
        (
            normalised("chosen") == normalised("rejected"),
            Reason.IDENTICAL_SIDES,
            "the replies differ at most in case",
        ),
        (~(margin > 0).fill_null(False) | ~margin.is_finite(), Reason.TIE, "no margin between the scores"),
    ]
    marked = _marked(candidates.with_columns(margin=margin), ("chosen", "rejected"), faults)
    keys = [messages_key("prompt"), messages_key("chosen"), messages_key("rejected")]
    return _ruled(marked, "pairs", keys, ["origin", "conversation_id", "prompt", "chosen", "rejected"])


def rule_unpaired(candidates: pl.DataFrame) -> Ruled:
    """Sorts candidates for unpaired labels as `rule_pairs` does for pairs; the side is `completion`."""
    marked = _marked(candidates, ("completion",), [])
    keys = [messages_key("prompt"), messages_key("completion"), pl.col("label").cast(pl.String)]
    return _ruled(marked, "unpaired", keys, ["label", "conversation_id", "prompt", "completion"])


_Fault = tuple[pl.Expr, Reason, str]


def _marked(candidates: pl.DataFrame, sides: tuple[str, ...], faults: list[_Fault]) -> pl.DataFrame:
    last = pl.col("prompt").list.last().struct.field("role")
    blank = pl.any_horizontal(normalised(side) == "" for side in sides)
    common: list[_Fault] = [
        (
            (last != "user").fill_null(True),
            Reason.PROMPT_NOT_FROM_USER,
            "the prompt does not end with a user turn",
        ),
        (
            pl.col("calls_tools"),
            Reason.UNSUPPORTED_CONTENT,
            "a side calls tools, which its messages do not hold",
        ),
        (blank, Reason.EMPTY_MESSAGE, "a side has no text"),
    ]
    reason, detail = pl.col("reason"), pl.col("detail")
    for found, why, text in reversed([*common, *faults]):
        reason = pl.when(found).then(pl.lit(why.value)).otherwise(reason)
        detail = pl.when(found).then(pl.lit(text)).otherwise(detail)
    return candidates.with_columns(reason=reason, detail=detail)


def _ruled(marked: pl.DataFrame, table: str, keys: list[pl.Expr], payload: list[str]) -> Ruled:
    identified = marked.with_columns(
        content_ids(marked, table, keys).alias("id"),
        content_ids(marked, "prompts", keys[:1]).alias("prompt_id"),
    )
    passed = identified.filter(pl.col("reason").is_null())
    kept = conform(passed.drop("source", "calls_tools", "reason", "detail"), table)
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
