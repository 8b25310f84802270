"""Which columns name rows of which table, and which rows rest on others: read from the schemas, not kept beside."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl
import pyarrow as pa

from tilth.catalog.parts import scan
from tilth.schemas import TABLES

CRITERIA: Final = "criteria"
"""Stands for the criteria inside rubrics where the target of a reference is named: they are no table."""

NO_ROWS: Final[Mapping[str, str]] = {
    "source_id": "what the log calls a conversation",
    "record_id": "the paths of one tree share it",
    "message_ids": "what the log calls its messages",
    "prompt_id": "the hash of what a prompt says: equal prompts of several users share it",
    "item_id": "the hash of what was judged; all judgments of it share it",
    "retrieved_ids": "seeds that experts wrote; they stand in a file of their own",
}
"""Columns that are named as references are, and lead to no row of a table: column -> what they are."""

_NAMING: Final = re.compile(r"(?P<one>[a-z]+)_ids?")
_TABLE_OF: Final = {table.removesuffix("s"): table for table in TABLES}


@dataclass(frozen=True, slots=True)
class Reference:
    """A column, or a field inside it, that holds ids of rows of another table; lists stand for their elements."""

    table: str
    path: tuple[str, ...]
    target: str  # a table, or `CRITERIA`

    def named(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """One row per id that is named: `id` of the row that names, and `named`."""
        column, *fields = self.path
        found, kind = rows.select("id", named=pl.col(column)), TABLES[self.table].field(column).type
        for name in [*fields, None]:
            if pa.types.is_list(kind):
                found, kind = found.explode("named", empty_as_null=False), kind.value_type
            if name is not None:
                inner = pl.col("named").struct.field(name).alias("named")
                found, kind = found.with_columns(inner), kind.field(name).type
        return found.drop_nulls("named")


def _references() -> Iterator[Reference]:
    for table, schema in TABLES.items():
        for field in schema:
            for path in _paths(field):
                found = _NAMING.fullmatch(path[-1])
                if found and found["one"] in _TABLE_OF and path[-1] not in NO_ROWS:
                    yield Reference(table, path, _TABLE_OF[found["one"]])
    yield Reference("judgments", ("attribute",), CRITERIA)


def _paths(field: pa.Field) -> Iterator[tuple[str, ...]]:
    """The names that lead to each value of a column, through lists and structs."""
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if not pa.types.is_struct(kind):
        yield (field.name,)
        return
    for inner in kind:
        yield from ((field.name, *path) for path in _paths(inner))


REFERENCES: Final = tuple(_references())
"""Every reference between rows of `TABLES`."""
_CRITERIA_OF_RUBRICS: Final = Reference("rubrics", ("criteria", "id"), CRITERIA)

Gone = Mapping[str, frozenset[str]]
"""Ids of rows by table; tables without such rows have none."""


def resting_on(files: Mapping[str, Sequence[str]], conversations: Collection[str]) -> Gone:
    """The ids of all rows that rest on conversations, directly or through other rows, with the conversations' own.

    `files` holds the parts of a release and of the releases behind it, by table. Only columns of ids are read, a
    part at a time.
    """
    gone: dict[str, set[str]] = {"conversations": set(conversations)}
    fresh: dict[str, set[str]] = dict(gone)
    while fresh:
        found: dict[str, set[str]] = {}
        for reference in REFERENCES:
            if wanted := fresh.get(reference.target):
                found.setdefault(reference.table, set()).update(_naming(reference, files, wanted))
        fresh = {table: ids - gone.get(table, set()) for table, ids in found.items()}
        fresh = {table: ids for table, ids in fresh.items() if ids}
        if rubrics := fresh.get("rubrics"):
            fresh[CRITERIA] = _criteria(files, rubrics)
        for table, ids in fresh.items():
            gone.setdefault(table, set()).update(ids)
    return {table: frozenset(ids) for table, ids in gone.items() if ids}


def _naming(reference: Reference, files: Mapping[str, Sequence[str]], wanted: set[str]) -> set[str]:
    """The rows whose reference names one of these ids."""
    named = pl.LazyFrame({"named": list(wanted)}, schema={"named": pl.String})
    return {
        row
        for rows in having(reference.table, files.get(reference.table, ()), reference.path[0])
        for row in reference.named(rows).join(named, on="named", how="semi").select("id").collect(
            engine="streaming"
        ).to_series()
    }  # fmt: skip


def _criteria(files: Mapping[str, Sequence[str]], rubrics: set[str]) -> set[str]:
    of = pl.LazyFrame({"id": list(rubrics)}, schema={"id": pl.String})
    return {
        criterion
        for rows in having("rubrics", files.get("rubrics", ()), "criteria")
        for criterion in _CRITERIA_OF_RUBRICS.named(rows.join(of, on="id", how="semi"))
        .collect(engine="streaming")
        .get_column("named")
    }


def having(table: str, uris: Sequence[str], column: str) -> Iterator[pl.LazyFrame]:
    """The rows of each part that has a column: parts that an earlier Tilth wrote may have fewer."""
    for uri in uris:
        rows = scan(table, [uri])
        if column in rows.collect_schema():
            yield rows
