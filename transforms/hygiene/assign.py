"""Which records are kept, and which split each belongs to: decided over the whole run, from keys alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tilth.schemas import ConfigError, Reason
from tilth.transforms.hygiene.hashing import mixed, text_hashes

_HASH: Final = pl.UInt64
_SEPARATOR: Final = "\0"


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """How large the held-out splits are, as shares of users; `train` is the rest.

    Raises `ConfigError` when a share is negative or nothing is left to train on.
    """

    validation: float = 0.05
    test: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            found = f"validation={self.validation}, test={self.test}"
            raise ConfigError(
                "the shares of the splits", found=found, wanted="shares from 0, below 1 together"
            )


def keys(conversations: pl.DataFrame) -> pl.DataFrame:
    """What `assign` needs of each conversation, row for row: 64-bit hashes and counts, about 60 bytes.

    `content` covers the source's id, messages, tool calls and reactions: a conversation that was logged again
    with another reaction is other evidence. Two of a million contents collide with a chance of 3e-8.
    """
    source_key = pl.concat_str(["source", pl.col("source_id").fill_null("")], separator=_SEPARATOR)
    texts = conversations.select(
        record="record_id", source_key=source_key, content=_content(), record_rows="record_rows"
    )
    return texts.select(
        *(text_hashes(texts.get_column(name)) for name in ("record", "source_key", "content")),
        _users(conversations),
        pl.col("record_rows").fill_null(0).cast(pl.UInt32),
        *_counts(conversations),
    )


def _content() -> pl.Expr:
    reaction = pl.element().struct
    fields = [
        reaction.field(name).cast(pl.String).fill_null("") for name in ("message_index", "kind", "value")
    ]
    reactions = (
        pl.col("reactions").list.eval(pl.concat_str(fields, separator=" ")).list.sort().list.join("\n")
    )
    # Joined column by column: six times faster than `messages_key`, and as injective, for no text holds NUL.
    turns = [
        pl.col("messages").list.eval(pl.element().struct.field(name).fill_null("")).list.join(_SEPARATOR)
        for name in ("role", "content")
    ]
    parts = [pl.col("source_id"), *turns, pl.col("tool_calls_json"), reactions]
    return pl.concat_str([part.fill_null("") for part in parts], separator=_SEPARATOR)


def _users(conversations: pl.DataFrame) -> pl.Series:
    others = conversations.get_column("other_user_keys")
    first = pl.DataFrame({"users": text_hashes(conversations.get_column("user_key"))})
    if not (others.list.len().fill_null(0) > 0).any():
        return first.select(pl.concat_list("users").list.drop_nulls()).to_series()
    rows = first.with_columns(others).with_row_index("row")
    flat = rows.select("row", users="other_user_keys").explode("users", empty_as_null=True)
    hashed = flat.with_columns(text_hashes(flat.get_column("users")))
    everyone = pl.concat([rows.select("row", "users"), hashed])
    users = pl.col("users").drop_nulls().unique().sort()
    return everyone.group_by("row").agg(users).sort("row").get_column("users")


def _counts(conversations: pl.DataFrame) -> list[pl.Series]:
    owned = pl.col("messages").list.len() - pl.col("owned_from").fill_null(0).cast(pl.UInt32)
    counts = conversations.select(
        length=owned.fill_null(0).cast(pl.UInt32),
        reactions=pl.col("reactions").list.len().fill_null(0).cast(pl.UInt32),
        has_source_id=pl.col("source_id").is_not_null(),
    )
    return counts.get_columns()


def assign(keys: pl.DataFrame, config: SplitConfig) -> pl.DataFrame:
    """For each row of `keys`, in order: `keep`, `reason` (null where kept) and `split` (null where not).

    Records, not conversations, are compared, and all conversations of a record share its fate.

    - Equal id and content, or equal content where the source gives no id: one is kept, the rest are
      `duplicate`. This holds across sources too, so that one file named twice is read once.
    - Equal content under different ids is kept: two users who had the same exchange are two observations.
      `tilth.transforms.pairs.settle` makes one pair or label of them, or none when they disagree.
    - Same id in one source with different content (a log that repeats a conversation as it grows): the
      longest is kept, then the one with more reactions, then the smallest hash; the rest are
      `conflicting_duplicate`.

    Splits are drawn for groups of records that share a user, directly or through others, by a seeded hash of
    the group's smallest key. A group larger than the whole share of a held-out split goes to `train` instead
    (crowd work such as OASST ties nearly all records into one group).

    The result does not depend on the order of records. Where two rows with the same `record_id` both open a
    record (`record_rows` > 0), rows belong to the opening row before them.
    """
    rows = keys.with_columns(record_row=_record_numbers(keys))
    records = _dropped(_records(rows))
    kept = records.filter(pl.col("reason").is_null()) if records.get_column("reason").count() else records
    splits = kept.select("record_row", split=_splits(_groups(kept), config))
    verdicts = _beside(records.select("record_row", "reason"), splits)
    aligned = _beside(rows.select("record_row"), verdicts)
    return aligned.select(keep=pl.col("reason").is_null(), reason="reason", split="split")


def _beside(rows: pl.DataFrame, facts: pl.DataFrame) -> pl.DataFrame:
    """A left join on `record_row`; where the rows are the same, as in most logs, without the join's memory."""
    if rows.get_column("record_row").equals(facts.get_column("record_row")):
        return rows.hstack(facts.drop("record_row").get_columns())
    return rows.join(facts, on="record_row", how="left", maintain_order="left")


def _record_numbers(keys: pl.DataFrame) -> pl.Series:
    record = keys.get_column("record")
    if not record.is_duplicated().any():
        return pl.Series(np.arange(keys.height, dtype=np.uint32))
    ordinal = (pl.col("record_rows") > 0).cum_sum().over("record").clip(1)
    return keys.select(pl.struct("record", ordinal).rank("dense") - 1).to_series().cast(pl.UInt32)


def _records(rows: pl.DataFrame) -> pl.DataFrame:
    if not rows.get_column("record_row").is_duplicated().any():
        return rows
    # A sum, so that the order of a record's conversations does not matter.
    totals = [pl.col(name).sum() for name in ("content", "length", "reactions")]
    firsts = [pl.col(name).first() for name in ("record", "source_key", "has_source_id")]
    users = pl.col("users").list.explode(keep_nulls=False, empty_as_null=False).unique().sort()
    return rows.group_by("record_row").agg(*firsts, *totals, users)


def _dropped(records: pl.DataFrame) -> pl.DataFrame:
    # Only rows that share something are sorted: in most logs they are few, and a sort of all keys doubles the memory.
    named = records.select(pl.exclude("users"))
    alike = named.filter(pl.col("content").is_duplicated()).sort("source_key", "record", "record_row")
    copies = alike.filter(~pl.col("content").is_first_distinct()).get_column("record_row")
    marked = records.with_columns(copy=pl.col("record_row").is_in(copies.implode()))
    shared = marked.get_column("source_key").is_duplicated() & ~marked.get_column("copy")
    identified = named.filter(shared & named.get_column("has_source_id"))
    namesakes = identified.filter(pl.col("source_key").is_duplicated())
    longest_first = namesakes.sort("length", "reactions", "content", descending=[True, True, False])
    losers = longest_first.filter(~pl.col("source_key").is_first_distinct()).get_column("record_row")
    reason = (
        pl.when("copy")
        .then(pl.lit(Reason.DUPLICATE.value))
        .when(pl.col("record_row").is_in(losers.implode()))
        .then(pl.lit(Reason.CONFLICTING_DUPLICATE.value))
    )
    return marked.with_columns(reason=reason)


def _groups(records: pl.DataFrame) -> pl.Series:
    """The smallest user hash that each record is tied to; its own where it has no user."""
    alone = records.select(
        "record", user=pl.col("users").list.first(), several=pl.col("users").list.len() > 1
    )
    if not alone.get_column("several").any():
        return alone.select(pl.coalesce("user", "record")).to_series()
    smallest = _components(records.filter(pl.col("users").list.len() > 1).get_column("users"))
    tied = alone.join(smallest, on="user", how="left", maintain_order="left")
    return tied.select(pl.coalesce("smallest", "user", "record")).to_series()


def _components(users: pl.Series) -> pl.DataFrame:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = pl.DataFrame({"one": users.list.first(), "other": users}).explode("other")
    nodes, ends = np.unique(edges.to_numpy().ravel(), return_inverse=True)
    one, other = ends.reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)  # nodes are sorted: the first is the smallest
    return pl.DataFrame(
        {"user": nodes, "smallest": nodes[first][component]}, schema={"user": _HASH, "smallest": _HASH}
    )


def _splits(groups: pl.Series, config: SplitConfig) -> pl.Series:
    frame = pl.DataFrame({"group": groups, "drawn": mixed(groups, config.seed)})
    drawn = pl.col("drawn").cast(pl.Float64) / 2.0**64
    sizes = groups.value_counts(name="rows")
    fits = {
        share: ~pl.col("group").is_in(_larger(sizes, max(1.0, share * frame.height)).implode())
        for share in (config.test, config.validation)
    }
    split = (
        pl.when((drawn < config.test) & fits[config.test])
        .then(pl.lit("test"))
        .when((drawn >= config.test) & (drawn < config.test + config.validation) & fits[config.validation])
        .then(pl.lit("validation"))
        .otherwise(pl.lit("train"))
    )
    return frame.select(split=split).to_series()


def _larger(sizes: pl.DataFrame, limit: float) -> pl.Series:
    return sizes.filter(pl.col("rows") > limit).to_series(0)
