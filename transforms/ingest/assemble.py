"""Records and refusals become frames with the columns of `conversations` and `quarantine`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import polars as pl

from tilth.schemas import conform, content_ids, polars_schema
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.ingest.record import PAYLOAD_BYTES, Conversation, Record, SetAside

ROW: Final = "_row"
"""Column of a draft: the ordinal of the record, which the conversations of one record share."""

_NOT_DRAFTED: Final = ("id", "source", "record_id", "split")
_SEPARATOR: Final = "\0"


def draft_schema() -> dict[str, pl.DataType]:
    """The columns of a draft: of `conversations` without ids, and `ROW`."""
    kinds = {name: kind for name, kind in polars_schema("conversations").items() if name not in _NOT_DRAFTED}
    return {ROW: pl.Int64(), **kinds}


def draft(records: Iterable[tuple[int, Record]], salt: str) -> pl.DataFrame:
    """One row per conversation, in the order of `records`, which come with their ordinals."""
    rows = [
        _row(ordinal, record, n, conversation, salt)
        for ordinal, record in records
        for n, conversation in enumerate(record.conversations)
    ]
    return pl.DataFrame(rows, schema=draft_schema(), orient="row")


def _row(ordinal: int, record: Record, number: int, conversation: Conversation, salt: str) -> tuple[Any, ...]:
    turns = conversation.turns
    ids = [turn.id for turn in turns]
    return (
        ordinal,
        record.source_id,
        0 if number else record.rows,
        None if conversation.user is None else user_key(conversation.user, salt),
        [user_key(user, salt) for user in conversation.other_users],
        conversation.started_at,
        conversation.model,
        conversation.language,
        [{"role": turn.role, "content": turn.content} for turn in turns],
        ids if any(ids) else None,
        conversation.owned_from,
        _tool_calls(conversation),
        _reactions(conversation),
    )


def _tool_calls(conversation: Conversation) -> str | None:
    calls = [
        {"message_index": n, "tool_calls": t.tool_calls}
        for n, t in enumerate(conversation.turns)
        if t.tool_calls
    ]
    if not calls:
        return None
    return json.dumps(calls, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str)


def _reactions(conversation: Conversation) -> list[dict[str, Any]]:
    return [
        {"message_index": n, "kind": reaction.kind, "value": reaction.value, "at": reaction.at}
        for n, turn in enumerate(conversation.turns)
        for reaction in turn.reactions
    ]


def finish(drafted: pl.DataFrame, source: str) -> pl.DataFrame:
    """`drafted` with ids and source, as table `conversations` has it; `split` is null.

    `record_id` is the content hash of the source's id and all conversations of the record (messages, their ids and
    tool calls); `id` that of `record_id` and the conversation's place in the record.
    """
    keyed = drafted.with_columns(_content().alias("_key"), pl.lit(source).alias("source"))
    number = pl.int_range(pl.len()).over(ROW).cast(pl.String)
    if drafted.get_column(ROW).is_duplicated().any():
        keyed = keyed.with_columns(pl.col("_key").str.join(_SEPARATOR).over(ROW), number.alias("_number"))
    else:
        keyed = keyed.with_columns(pl.lit("0").alias("_number"))
    record_ids = content_ids(keyed, "record", [pl.col("source_id"), pl.col("_key")]).alias("record_id")
    keyed = keyed.drop("_key").with_columns(record_ids)
    ids = content_ids(keyed, "conversations", [pl.col("record_id"), pl.col("_number")])
    return conform(keyed.drop(ROW, "_number").with_columns(ids), "conversations")


def _content() -> pl.Expr:
    # Lengths first, texts joined with what no text holds: equal strings mean equal conversations.
    turns = pl.col("messages")
    texts = [
        turns.list.eval(pl.element().struct.field(name)).list.join(_SEPARATOR) for name in ("role", "content")
    ]
    ids = pl.col("message_ids").list.eval(pl.element().fill_null("")).list.join(_SEPARATOR).fill_null("")
    tools = pl.col("tool_calls_json").fill_null("")
    return pl.concat_str([turns.list.len().cast(pl.String), *texts, ids, tools], separator=_SEPARATOR)


def quarantine(rows: Sequence[SetAside], files: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows of `quarantine` without their ids; `files` are the task's, as its options have them."""
    kinds = {name: kind for name, kind in polars_schema("quarantine").items() if name != "id"}
    return pl.DataFrame([_aside(row, files[row.file]) for row in rows], schema=kinds, orient="row")


def _aside(row: SetAside, file: Mapping[str, Any]) -> tuple[Any, ...]:
    unit = "byte" if file["container"] == "jsonl" else "row"
    key = f"{file['uri']}#{unit}={row.at}"
    return (file["uri"], "ingest", str(row.reason), key, row.detail, _text(row.payload), row.rows)


def _text(payload: bytes | None) -> str | None:
    """At most 64 KiB of text; bytes that are no UTF-8, and NUL, in backslashes."""
    if payload is None:
        return None
    text = payload[:PAYLOAD_BYTES].decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return text.encode()[:PAYLOAD_BYTES].decode("utf-8", "ignore")
