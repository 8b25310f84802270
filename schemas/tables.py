"""The tables: one Arrow schema each. Messages are ``list<struct<role, content>>`` everywhere.

Everything is nullable in Arrow, because polars cannot write non-null fields and Iceberg's ``add_files`` refuses a
nullable column where a required one is declared; what must not be null is a row contract (`tilth.schemas.contracts`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final  # Any: keyword arguments of pyarrow

import polars as pl
import pyarrow as pa


def _list(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", item))


def _struct(**fields: pa.DataType) -> pa.DataType:
    return pa.struct([pa.field(name, kind) for name, kind in fields.items()])


TEXT: Final = pa.string()
INDEX: Final = pa.int32()
NUMBER: Final = pa.float64()
INSTANT: Final = pa.timestamp("us", tz="UTC")
MESSAGES: Final = _list(_struct(role=TEXT, content=TEXT))
REACTIONS: Final = _list(_struct(message_index=INDEX, kind=TEXT, value=NUMBER, at=INSTANT))

_CONVERSATIONS = {
    "id": TEXT,  # content hash
    "source": TEXT,  # the URI it was read from, as the user named it
    "source_id": TEXT,  # the id that the source gives it
    "record_id": TEXT,  # shared by all conversations that come from one source record (the paths of one tree)
    "record_rows": INDEX,  # source rows this record stands for; 0 on all but the record's first conversation
    "user_key": TEXT,  # salted hash of who wrote the first user turn
    "other_user_keys": _list(TEXT),  # salted hashes of others who wrote user turns
    "started_at": INSTANT,
    "model": TEXT,
    "language": TEXT,  # as the source says, else null
    "messages": MESSAGES,
    "message_ids": _list(TEXT),  # the source's ids of the messages, where it gives them
    "owned_from": INDEX,  # messages before this index belong to an earlier path of the same tree
    "tool_calls_json": TEXT,  # JSON list of {"message_index", "tool_calls"}; null without tool calls
    "reactions": REACTIONS,
    "split": TEXT,
}
_FEEDBACK = {
    "id": TEXT,
    "conversation_id": TEXT,
    "message_index": INDEX,  # the turn in which it is said; for a reaction, the turn it is put on
    "target_index": INDEX,  # the assistant turn it is about
    "polarity": TEXT,  # positive | negative
    "labels": _list(TEXT),
    "strength": NUMBER,  # (0, 1]
    "evidence": _list(_struct(label=TEXT, text=TEXT, start=INDEX, end=INDEX)),  # characters, end exclusive
    "dialogue_state": TEXT,
    "on_refusal": pa.bool_(),
    "method": TEXT,  # rules | reaction | model
    "method_version": TEXT,
    "split": TEXT,
}
_PAIRS = {
    "id": TEXT,
    "prompt_id": TEXT,  # content hash of the prompt
    "prompt": MESSAGES,  # ends with a user turn
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "tool_calls_json": TEXT,  # of the prompt's messages
    "origin": TEXT,  # one of `tilth.schemas.contracts.ORIGINS`
    "chosen_score": NUMBER,
    "rejected_score": NUMBER,
    "margin": NUMBER,  # chosen_score - rejected_score, > 0
    "verdict": TEXT,
    "user_preferences": _list(TEXT),
    "feedback_ids": _list(TEXT),
    "judgment_ids": _list(TEXT),  # what judges said of its two sides; null where none was asked
    "conversation_id": TEXT,  # where the chosen reply stands; for replies of models, where the prompt does
    "models": _struct(chosen=TEXT, rejected=TEXT),
    "method": TEXT,
    "split": TEXT,
}
_UNPAIRED = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": MESSAGES,
    "completion": MESSAGES,
    "tool_calls_json": TEXT,
    "label": pa.bool_(),
    "weight": NUMBER,
    "feedback_ids": _list(TEXT),
    "conversation_id": TEXT,
    "model": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_FACTORS: Final = _list(_struct(name=TEXT, chosen=NUMBER, rejected=NUMBER, favours=TEXT))
_RATIONALES = {
    "id": TEXT,
    "pair_id": TEXT,
    "kind": TEXT,  # user_complaint | factors | general | specific | judgment | option
    "side": TEXT,  # the one reply that it is about, chosen | rejected; null where it compares both
    "text": TEXT,
    "evidence": _list(_struct(side=TEXT, quote=TEXT)),  # verbatim, of a reply, the user or the prompt
    "factors": _FACTORS,  # what was measured of both replies; favours chosen, rejected, or neither: null
    "order": _list(INDEX),  # how the model was shown (chosen, rejected); null where none was asked
    "recovers_label": pa.bool_(),  # judges who saw only this as a reason preferred the chosen reply
    "score": NUMBER,  # of the scorer that ranked the rationales of its pair
    "rank": INDEX,  # from 1, the best, among those of its pair; null where none was ranked
    "samples": INDEX,  # how many were drawn for it
    "vote_share": NUMBER,  # the share of them that speak for the chosen reply, (0, 1]
    "feedback_ids": _list(TEXT),
    "judgment_ids": _list(TEXT),  # of the judges who were asked whether it recovers the label
    "model": TEXT,  # what wrote it
    "prompt_version": TEXT,
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_CRITERIA: Final = _list(
    _struct(
        id=TEXT,  # content hash; `judgments.attribute` names it
        title=TEXT,
        description=TEXT,  # what a reply does that meets it
        weight=NUMBER,  # not 0; below 0 for a mistake, which takes from the score
        kind=TEXT,  # hard_rule | principle
        check=TEXT,  # program | judge
        program=TEXT,  # JSON {"verifier", "arguments"}; null where a judge checks
        tags=_list(TEXT),
        source=TEXT,  # prompt | complaint | preference | contrast | model | seed
        feedback_ids=_list(TEXT),  # the signals that it was distilled from
        pass_rate=NUMBER,  # the share of graded replies that meet it, [0, 1]; null where none was graded
        discrimination=NUMBER,  # how often chosen meets it and rejected does not, less the reverse, [-1, 1]
    )
)
_RUBRICS = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": MESSAGES,
    "criteria": _CRITERIA,
    "pair_ids": _list(TEXT),  # the pairs of the prompt
    "separation": NUMBER,  # the share of graded pairs whose chosen reply outscores the rejected, ties a half
    "redundancy": NUMBER,  # mean of each criterion's highest likeness to another of the rubric, [0, 1]
    "agreement": NUMBER,  # of judges about criteria, [-1, 1] (Krippendorff's alpha); null with one judge
    "coverage": NUMBER,  # the share of the mined feedback about the prompt that a criterion comes from
    "balance": NUMBER,  # evenness of the weights: their entropy over its maximum, [0, 1]
    "feedback_ids": _list(TEXT),
    "retrieved_ids": _list(TEXT),  # seeds that a model was shown
    "model": TEXT,  # what wrote the criteria that no rule did
    "prompt_version": TEXT,
    "conversation_id": TEXT,
    "method": TEXT,  # rules where no model was asked
    "split": TEXT,
}
_PREFERENCES = {
    "id": TEXT,
    "prompt_id": TEXT,
    "target_index": INDEX,  # the reply that the feedback is about
    "preferences": _list(TEXT),  # short statements of what the user wants of a reply
    "feedback_ids": _list(TEXT),
    "model": TEXT,  # what wrote them down
    "prompt_version": TEXT,
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_RESPONSES = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": MESSAGES,
    "completion": MESSAGES,
    "role": TEXT,  # logged | side (of a pair, as it stands there) | expert | on_policy | plain | policy
    "sample_index": INDEX,
    "model": TEXT,  # what answered; null where the log does not say
    "guided": pa.bool_(),  # whether the model saw the user's preferences, which the prompt does not hold
    "flags": _list(TEXT),  # what moderation found; empty for nothing, null where it was not asked
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_JUDGMENTS = {
    "id": TEXT,
    "item_id": TEXT,  # what was judged: prompt, replies and checklist; shared by all judgments of it
    "kind": TEXT,  # pairwise | pointwise | listwise
    "judge": TEXT,  # its name in the panel
    "model": TEXT,  # what answered: model and revision
    "prompt_version": TEXT,
    "protocol": TEXT,  # fingerprint of the protocol, which the version's properties hold
    "order": _list(INDEX),  # places of `response_ids` as they were shown
    "sample_index": INDEX,
    "attribute": TEXT,  # what was rated; null for the whole
    "verdict": TEXT,  # win | loss | tie of the first of `response_ids`; rated | ranked; failed
    "scores": _list(NUMBER),  # in the order of `response_ids`; null where failed
    "text": TEXT,  # the evidence, written before the verdict
    "reason": TEXT,  # why it failed, a `Reason`
    "response_ids": _list(TEXT),
    "prompt_id": TEXT,
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_RATINGS = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": MESSAGES,
    "completion": MESSAGES,
    "model": TEXT,
    "attributes": _list(_struct(name=TEXT, rating=NUMBER)),  # those that could be rated
    "rating": NUMBER,  # the mean of the attributes
    "response_id": TEXT,
    "judgment_ids": _list(TEXT),
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_EVALUATION = {
    "id": TEXT,
    "prompt_id": TEXT,
    "prompt": MESSAGES,
    "checklist": _list(TEXT),  # what the user wants of a reply
    "reference": MESSAGES,  # the logged reply that the user was dissatisfied with
    "cluster": INDEX,
    "distance": NUMBER,  # cosine distance to the cluster's centroid, [0, 2]
    "feedback_ids": _list(TEXT),
    "conversation_id": TEXT,
    "method": TEXT,
    "split": TEXT,
}
_QUARANTINE = {
    "id": TEXT,
    "source": TEXT,
    "stage": TEXT,
    "reason": TEXT,  # a `Reason`
    "key": TEXT,  # where it stands: `<source>#byte=…`, `<source>#row=…` or a row id
    "detail": TEXT,  # what was found, never user text
    "payload": TEXT,  # the row itself, at most 64 KiB of it
    "source_rows": INDEX,  # source rows this stands for; 0 for a candidate that no source row was lost with
}

TABLES: Final[dict[str, pa.Schema]] = {
    name: pa.schema(columns)
    for name, columns in {
        "conversations": _CONVERSATIONS,
        "feedback": _FEEDBACK,
        "pairs": _PAIRS,
        "unpaired": _UNPAIRED,
        "rationales": _RATIONALES,
        "rubrics": _RUBRICS,
        "preferences": _PREFERENCES,
        "responses": _RESPONSES,
        "judgments": _JUDGMENTS,
        "ratings": _RATINGS,
        "evaluation": _EVALUATION,
        "quarantine": _QUARANTINE,
    }.items()
}

PARQUET: Final[Mapping[str, Any]] = {
    "compression": "zstd",
    "compression_level": 1,
    "write_page_index": True,
    "use_content_defined_chunking": True,
}
"""How every part is written. The page index lets the Hub's viewer read a page alone; chunking by content lets it store
versions without repeats."""

PL_MESSAGES: Final = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))


def empty(table: str) -> pl.DataFrame:
    """A frame of `table` without rows, with its exact polars types."""
    return pl.DataFrame(schema=polars_schema(table))


def polars_schema(table: str) -> pl.Schema:
    """The polars types of a table."""
    frame = pl.from_arrow(TABLES[table].empty_table())
    assert isinstance(frame, pl.DataFrame)  # noqa: S101  (narrowing: a table with columns is never a Series)
    return frame.schema


def conform(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame` with exactly the columns of `table`, in order and of its types; missing ones become null.

    Raises `ValueError` on a column that the table does not have: a value that nothing would store.
    """
    schema = polars_schema(table)
    extra = [name for name in frame.columns if name not in schema]
    if extra:
        raise ValueError(f"columns that table {table!r} does not have: {', '.join(extra)}")
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    ]
    return frame.select(columns) if frame.columns else frame.with_columns(columns).clear()
