"""Verdict tables of others become `VOTES` and `FACTS`: nothing is guessed, and no text of a cell is repeated.

The columns are described in docs/reference/verdicts.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, Literal

import polars as pl

from tilth.schemas import BadInput, ConfigError, polars_schema
from tilth.transforms.inference.tables import batches
from tilth.transforms.judging.votes import FACTS, VOTES, checked, votes_of

VerdictOf = Literal["canonical", "shown"]

LONG: Final = (
    "item_id",
    "judge",
    "order",
    "sample_index",
    "verdict",
    "score_a",
    "score_b",
    "score_1",
    "score_2",
)
ABOUT: Final = ("gold", "chars_a", "chars_b", "answer_a", "answer_b")
WIDE: Final = ("chosen_score_A", "reject_score_A", "chosen_score_B", "reject_score_B", "chosen", "reject")
BINARY: Final = ("human", "judges", "group")
COLUMNS: Final = (*LONG, *ABOUT, *WIDE, *BINARY)

_BATCH_ROWS: Final = 50_000
_FIRST: Final = {"ab": 0, "a": 0, "0": 0, "ba": 1, "b": 1, "1": 1}
_PREFERRED: Final = {
    **dict.fromkeys(("win", "a", "1"), "win"),
    **dict.fromkeys(("loss", "b", "2"), "loss"),
    **dict.fromkeys(("tie", "c"), "tie"),
}
_VERDICTS: Final = {**_PREFERRED, **dict.fromkeys(("failed", "error", "invalid"), "failed")}
_YES_OR_NO: Final = {
    **dict.fromkeys(("true", "1", "yes"), True),
    **dict.fromkeys(("false", "0", "no"), False),
    "maybe": None,  # people who could not say
}
_BLANK: Final = ("", "null", "none", "nan")
_PEOPLE: Final = ("human", "humanjudgement", "humanjudgment", "humaneval", "gold")


@dataclass(frozen=True, slots=True)
class VoteTable:
    """Votes of judges on pairs, and what is known of the items: `VOTES` and `FACTS`."""

    votes: pl.DataFrame
    facts: pl.DataFrame


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Yes-or-no labels: one column per judge, one of people, and what the rows are grouped by, if anything."""

    judges: pl.DataFrame
    people: pl.Series
    groups: pl.Series | None


def read_votes(
    uri: str, columns: Mapping[str, str] | None = None, verdict_of: VerdictOf = "canonical"
) -> VoteTable | LabelTable:
    """Reads a table of verdicts (Parquet, JSONL, CSV; any fsspec URI) in one of four forms, told by its columns.

    `judgments` (Tilth's own table), `wide` (scores of chosen and reject in both orders), `long` (one vote a row), and
    yes-or-no labels (one column per judge and one of people).

    Args:
        uri: the table.
        columns: names of `COLUMNS`, with what the table calls them.
        verdict_of: whether `win`, `a` or `1` is the item's reply a in both orders (`canonical`), or the reply that was
            `shown` first. Columns `score_1` and `score_2` are always of the replies as shown.

    Raises `ConfigError` for a map to unknown columns, `BadInput` naming column and count for cells that cannot be read,
    and for votes that contradict their scores. Blank verdicts are failed votes.
    """
    if verdict_of not in ("canonical", "shown"):
        raise ConfigError("whose verdict", found=verdict_of, wanted="canonical or shown")
    table = _load(uri, columns or {})
    name = PurePosixPath(uri).stem
    if {"kind", "order", "scores", "response_ids"} <= set(table.columns):
        schema = polars_schema("judgments")
        return VoteTable(
            votes_of(table.select(pl.col(c).cast(schema[c]) for c in _OF_JUDGMENTS)),
            pl.DataFrame(schema=FACTS),
        )
    if set(WIDE[:4]) <= set(table.columns):
        return _wide(table, name)
    if "item_id" in table.columns:
        return _long(table, name, verdict_of)
    return _labels(table, (columns or {}).get("judges", ""))


def read_gold(uri: str, columns: Mapping[str, str] | None = None) -> pl.DataFrame:
    """What people said: `item_id` and `gold` (win, loss or tie of reply a), each item once; blanks are left out."""
    table = _load(uri, columns or {})
    _require(table, ("item_id", "gold"))
    gold = _said(table, "gold")
    known = table.select(pl.col("item_id").cast(pl.String), gold).drop_nulls()
    return _once(known, ("gold",)).select("item_id", "gold")


_OF_JUDGMENTS: Final = ("kind", "item_id", "judge", "order", "sample_index", "verdict", "scores")


# Loading


def _load(uri: str, columns: Mapping[str, str]) -> pl.DataFrame:
    """The columns that are known by name or map, under their known names; of texts only the lengths are kept."""
    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise ConfigError("a map of columns", found=", ".join(unknown), wanted=", ".join(COLUMNS))
    return pl.concat([_narrow(batch, columns) for batch in batches(uri, _BATCH_ROWS)])


def _narrow(batch: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    single = {known: given for known, given in columns.items() if known != "judges"}
    missing = [given for given in single.values() if given not in batch.columns]
    if missing:
        raise ConfigError(
            "columns that the table does not have", found=", ".join(missing), wanted=", ".join(batch.columns)
        )
    renamed = [batch.get_column(given).alias(known) for known, given in single.items()]
    named = batch.drop({*single, *single.values()}, strict=False).with_columns(renamed)
    if "order" not in named.columns and "first" in named.columns:
        named = named.rename({"first": "order"})
    texts = {"answer_a": "chars_a", "answer_b": "chars_b"}
    if set(WIDE[:4]) <= set(named.columns):
        texts |= {"chosen": "chars_a", "reject": "chars_b"}
    measured = [
        pl.col(text).str.len_chars().cast(pl.Int64).alias(chars)
        for text, chars in texts.items()
        if named.schema.get(text) == pl.String and chars not in named.columns
    ]
    return named.with_columns(measured).drop(texts, strict=False)


def _require(table: pl.DataFrame, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise BadInput(
            "a table of verdicts",
            found=f"no column {' or '.join(missing)} among {', '.join(table.columns)}",
            wanted="the columns of docs/reference/verdicts.md",
            do="name them with --map, as order=COLUMN",
        )


# Cells


def _word(table: pl.DataFrame, column: str) -> pl.Series:
    """Cells as lower-case words, whole numbers without a fraction; null for blank ones."""
    if table.schema[column].is_nested():
        _refuse(column, table.height, "one value per cell")
    cells = table.get_column(column).cast(pl.String).str.strip_chars().str.to_lowercase()
    bare = cells.str.replace(r"^(-?\d+)\.0+$", "$1")
    return bare.set(bare.is_in(_BLANK), None)


def _coded(
    table: pl.DataFrame, column: str, codes: Mapping[str, int | str | bool | None], kind: pl.DataType
) -> pl.Series:
    words = _word(table, column)
    _refuse(
        column, int((words.is_not_null() & ~words.is_in(list(codes))).sum()), "one of " + ", ".join(codes)
    )
    return words.replace_strict(dict(codes), return_dtype=kind)


def _said(table: pl.DataFrame, column: str) -> pl.Series:
    return _coded(table, column, _PREFERRED, pl.String())


def _numbers(table: pl.DataFrame, column: str) -> pl.Series:
    words = _word(table, column)
    values = words.cast(pl.Float64, strict=False)
    _refuse(
        column,
        int((words.is_not_null() & ~values.is_finite().fill_null(value=False)).sum()),
        "a number, or blank",
    )
    return values


def _refuse(column: str, odd: int, wanted: str) -> None:
    if odd:
        raise BadInput(f"column {column} of a table of verdicts", found=f"{odd} other cells", wanted=wanted)


# One vote a row


def _long(table: pl.DataFrame, name: str, verdict_of: VerdictOf) -> VoteTable:
    _require(table, ("order",))
    first = _coded(table, "order", _FIRST, pl.Int32())
    _refuse("order", first.null_count(), "ab or ba, or which reply was shown first: a or b, 0 or 1")
    a, b = _scores(table, first)
    verdict = _verdict(table, first, a, b, verdict_of)
    votes = table.select(
        pl.col("item_id").cast(pl.String),
        judge=pl.col("judge").cast(pl.String) if "judge" in table.columns else pl.lit(name),
        first=first,
        sample_index=_index(table),
        verdict=verdict.fill_null("failed"),
        score_a=a,
        score_b=b,
    )
    return VoteTable(_checked(votes, verdict_of), _facts(table))


def _scores(table: pl.DataFrame, first: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Scores of a and b, from columns of a and b or of the replies as they were shown."""
    if "score_1" not in table.columns and "score_2" not in table.columns:
        given = [
            _numbers(table, name) if name in table.columns else _nulls(table)
            for name in ("score_a", "score_b")
        ]
        return given[0], given[1]
    _require(table, ("score_1", "score_2"))
    one, two = _numbers(table, "score_1"), _numbers(table, "score_2")
    return one.zip_with(first == 0, two), two.zip_with(first == 0, one)


def _nulls(table: pl.DataFrame) -> pl.Series:
    return pl.Series([None], dtype=pl.Float64).new_from_index(0, table.height)


def _verdict(
    table: pl.DataFrame, first: pl.Series, a: pl.Series, b: pl.Series, verdict_of: VerdictOf
) -> pl.Series:
    if "verdict" not in table.columns:
        if a.null_count() == table.height:
            _require(table, ("verdict",))
        return _by_scores(a, b)
    said = _coded(table, "verdict", _VERDICTS, pl.String())
    turned = said.replace({"win": "loss", "loss": "win"})
    return said if verdict_of == "canonical" else said.zip_with(first == 0, turned)


def _by_scores(a: pl.Series, b: pl.Series) -> pl.Series:
    return (
        (a - b)
        .sign()
        .cast(pl.Int8)
        .replace_strict({1: "win", -1: "loss", 0: "tie"}, default=None, return_dtype=pl.String)
    )


def _index(table: pl.DataFrame) -> pl.Series:
    if "sample_index" not in table.columns:
        return pl.Series([0], dtype=pl.Int32).new_from_index(0, table.height)
    values = _numbers(table, "sample_index")
    _refuse("sample_index", int((values.is_null() | (values != values.floor())).sum()), "a whole number")
    return values.cast(pl.Int32)


def _checked(votes: pl.DataFrame, verdict_of: VerdictOf) -> pl.DataFrame:
    try:
        return checked(votes)
    except BadInput as error:
        other = "shown" if verdict_of == "canonical" else "canonical"
        do = f"number repeated votes in sample_index; if all scores contradict, try --verdict-of {other}"
        raise BadInput(error.what, found=error.found, wanted=error.wanted, do=do) from None


def _facts(table: pl.DataFrame) -> pl.DataFrame:
    """What is known of each item, which all its rows must agree in; blank cells say nothing."""
    readers: dict[str, Callable[[pl.DataFrame, str], pl.Series]] = {
        "gold": _said,
        "chars_a": _numbers,
        "chars_b": _numbers,
    }
    known = {name: read(table, name) for name, read in readers.items() if name in table.columns}
    rows = table.select(pl.col("item_id").cast(pl.String), **known)
    return _once(rows, tuple(known))


def _once(rows: pl.DataFrame, known: Sequence[str]) -> pl.DataFrame:
    items = rows.group_by("item_id").agg(pl.col(known).drop_nulls().unique()).sort("item_id")
    for name in known:
        several = int((items.get_column(name).list.len() > 1).sum())
        if several:
            raise BadInput(
                f"column {name}", found=f"{several} items with several values", wanted="one per item"
            )
    values = [
        pl.col(name).list.first() if name in known else pl.lit(None).alias(name)
        for name in FACTS
        if name != "item_id"
    ]
    return items.select("item_id", *values).select(pl.col(name).cast(kind) for name, kind in FACTS.items())


# Both orders in one row


def _wide(table: pl.DataFrame, name: str) -> VoteTable:
    """Reply a is the chosen one, which people prefer; A is the order that shows it first."""
    if "item_id" not in table.columns:
        table = table.with_columns(item_id=pl.format("row {}", pl.int_range(1, pl.len() + 1)))
    judge = pl.col("judge").cast(pl.String) if "judge" in table.columns else pl.lit(name)
    sides = [
        table.select(
            pl.col("item_id").cast(pl.String),
            judge=judge,
            first=pl.lit(first, pl.Int32),
            sample_index=_index(table),
            score_a=_valid(table, f"chosen_score_{order}"),
            score_b=_valid(table, f"reject_score_{order}"),
        )
        for first, order in enumerate("AB")
    ]
    votes = pl.concat(sides)
    either = pl.any_horizontal(pl.col("score_a", "score_b").is_null())
    whole = votes.with_columns(pl.when(~either).then(pl.col("score_a", "score_b")))
    said = _by_scores(whole["score_a"], whole["score_b"]).fill_null("failed")
    rows = whole.with_columns(verdict=said).select(VOTES.names())
    return VoteTable(_checked(rows, "canonical"), _facts(table.with_columns(gold=pl.lit("win"))))


def _valid(table: pl.DataFrame, column: str) -> pl.Series:
    values = _numbers(table, column)
    _refuse(column, int(((values < 0) & (values != -1)).sum()), "0, 1, or -1 where the answer was invalid")
    return values.set(values == -1, None)


# One column per judge


def _labels(table: pl.DataFrame, judges: str) -> LabelTable:
    people = _people(table)
    groups = next((name for name in ("group", "model") if name in table.columns), None)
    named = [name.strip() for name in judges.split(",") if name.strip()]
    _require(table, named)
    found = named or [name for name in table.columns if name != groups and _judges(table, name, people)]
    if not found:
        raise BadInput(
            "a table of verdicts", found="no column of yes-or-no labels", do="name them: --map judges=A,B"
        )
    return LabelTable(
        table.select(_coded(table, name, _YES_OR_NO, pl.Boolean()) for name in found),
        _coded(table, people, _YES_OR_NO, pl.Boolean()),
        table.get_column(groups).cast(pl.String) if groups else None,
    )


def _people(table: pl.DataFrame) -> str:
    for name in ("human", *table.columns):
        if name in table.columns and "".join(filter(str.isalpha, name.lower())) in _PEOPLE:
            return name
    raise BadInput(
        "a table of verdicts",
        found=f"columns {', '.join(table.columns)}",
        wanted="item_id and order, scores of chosen and reject in both orders, or labels of judges and of people",
        do="name columns with --map, as human=COLUMN",
    )


def _judges(table: pl.DataFrame, name: str, people: str) -> bool:
    """Whether most cells are yes or no, those of what else is known of people apart (`Human-Eval_Confidence`)."""
    if name.lower().startswith(people.lower()) or table.schema[name].is_nested():
        return False
    words = _word(table, name).drop_nulls()
    return bool(words.len()) and words.is_in(list(_YES_OR_NO)).sum() > math.floor(words.len() / 2)
