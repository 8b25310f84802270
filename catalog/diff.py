"""What differs between two versions of a dataset: rows added, removed, changed, and labels that became others.

Files that both versions hold are not read: a file never changes, and an id stands in a version once. Of the other rows,
64-bit hashes of ids and of rows are compared, and only what differs is looked at in full.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final  # Any: JSON values

import polars as pl

from tilth.catalog.names import parse
from tilth.catalog.parts import scan
from tilth.schemas import TABLES, BadInput
from tilth.schemas.ids import messages_key

if TYPE_CHECKING:
    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version

KINDS: Final = ("added", "removed", "changed", "relabelled")
DIFFERENCES: Final = {
    "kind": pl.String,  # one of `KINDS`
    "id_before": pl.String,  # null for added
    "id_after": pl.String,  # null for removed
    "columns": pl.List(
        pl.String
    ),  # those with other values, in the order of the table; of changed and relabelled rows
    "split": pl.String,  # where the row stands now; for removed rows, where it stood
    "origin": pl.String,  # its origin, or its method where the table has no origins
    "reason": pl.String,  # of removed rows that the newer release set aside
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a label is about, and the label: expressions whose values make both."""

    about: tuple[pl.Expr, ...]
    label: tuple[pl.Expr, ...]


_SIDES: Final = tuple(messages_key(side).hash() for side in ("chosen", "rejected"))
SUBJECTS: Final[Mapping[str, Subject]] = {
    "pairs": Subject(
        (pl.col("prompt_id"), pl.min_horizontal(_SIDES), pl.max_horizontal(_SIDES)),
        (_SIDES[0] < _SIDES[1],),
    ),
    "unpaired": Subject((pl.col("prompt_id"), messages_key("completion")), (pl.col("label"),)),
    "feedback": Subject(
        (pl.col("conversation_id"), pl.col("message_index"), pl.col("target_index")),
        (pl.col("polarity"), pl.col("labels").list.sort()),
    ),
}
"""Tables whose rows are labels. Their rows can say otherwise about the same thing under another id."""


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs: `rows` has the columns of `DIFFERENCES`, a row each, sorted by kind and id."""

    before: str  # family.table@version
    after: str
    rows_before: int
    rows_after: int
    rows: pl.DataFrame

    def counts(self) -> dict[str, int]:
        """How many rows there are of each kind, all kinds named."""
        return {kind: self.rows.filter(pl.col("kind") == kind).height for kind in KINDS}

    def groups(self) -> list[dict[str, Any]]:
        """Rows counted by kind, split and origin."""
        keys = ["kind", "split", "origin"]
        return self.rows.group_by(keys).len("rows").sort(keys, nulls_last=True).to_dicts()

    def columns(self) -> dict[str, int]:
        """How many changed rows have other values in each column, most first."""
        changed = self.rows.filter(pl.col("kind") == "changed")
        return _counted(changed.select(pl.col("columns").explode()).drop_nulls().to_series())

    def reasons(self) -> dict[str, int]:
        """Why removed rows are gone, where the newer release says so, most first."""
        return _counted(self.rows.get_column("reason").drop_nulls())

    def ids(self, limit: int) -> dict[str, list[dict[str, Any]]]:
        """Up to `limit` rows of each kind, with their ids."""
        columns = ["id_before", "id_after", "columns", "reason"]
        return {
            kind: self.rows.filter(pl.col("kind") == kind).head(limit).select(columns).to_dicts()
            for kind in KINDS
        }


def _counted(values: pl.Series) -> dict[str, int]:
    counted = values.value_counts().sort(["count", values.name], descending=[True, False])
    return dict(counted.iter_rows())


def diff(catalog: Catalog, name: str, other: str | None = None) -> Diff:
    """What differs between two versions of one table, from the first to the second.

    Args:
        catalog: where they are.
        name: the older, as `observed.pairs@2026.11.21.1`; without a version and without `other`, the one before the
            latest.
        other: the newer: such a name, or a version or a tag of the same dataset; by default the latest version.

    A row is known by its id. `added` and `removed` have ids that the other version lacks; `changed` have the same id
    and other values. `relabelled` say otherwise about the same thing: the same prompt and replies with chosen and
    rejected in each other's place; the same reply labelled otherwise; the same turn with other polarity or labels.

    Raises `NotFound` as `Catalog.resolve` does, `BadInput` for two tables, or when there is one version only.
    """
    before, after = _ends(catalog, name, other)
    if before.table != after.table:
        raise BadInput("two datasets to compare", found=f"{before.name} and {after.name}", wanted="one table")
    shared = set(before.files) & set(after.files)
    olds, news = (
        scan(before.table, [uri for uri in version.files if uri not in shared]) for version in (before, after)
    )
    rows = differences(before.table, olds, news)
    rows = _with_reasons(rows, _set_aside(catalog, after))
    return Diff(_named(before), _named(after), before.rows, after.rows, rows)


def _ends(catalog: Catalog, name: str, other: str | None) -> tuple[Version, Version]:
    given = parse(name)
    if other is not None:
        full = other if "." in other and "@" in other else f"{given.dataset}@{other}"
        return catalog.resolve(name), catalog.resolve(full)
    versions = catalog.versions(given.dataset)
    if given.version is not None:
        return catalog.resolve(name), versions[0]
    if len(versions) < 2:
        do = "run again when there is more to read"
        raise BadInput(f"versions of {given.dataset} to compare", found="one", wanted="two", do=do)
    return versions[1], versions[0]


def _named(version: Version) -> str:
    return f"{version.name}@{version.version}"


def differences(table: str, before: pl.LazyFrame, after: pl.LazyFrame) -> pl.DataFrame:
    """What differs between the rows of one table, as `DIFFERENCES` without reasons; ids are unique in each."""
    both = _hashed(table, before).join(
        _hashed(table, after), on="key", how="full", coalesce=True, suffix="_new"
    )
    unlike = both.filter(pl.col("value").ne_missing(pl.col("value_new"))).select("key", "value", "value_new")
    differing = unlike.collect(engine="streaming")
    olds = _looked_at(table, before, differing.filter(pl.col("value").is_not_null()))
    news = _looked_at(table, after, differing.filter(pl.col("value_new").is_not_null()))
    matched = pl.concat([_same_id(olds, news), _same_subject(olds, news)])
    gone = olds.join(matched, left_on="id", right_on="id_before", how="anti")
    come = news.join(matched, left_on="id", right_on="id_after", how="anti")
    alone = [
        gone.select(id_before="id", id_after=pl.lit(None, pl.String), kind=pl.lit("removed")),
        come.select(id_before=pl.lit(None, pl.String), id_after="id", kind=pl.lit("added")),
    ]
    listed = pl.concat([matched, *alone])
    return _described(table, listed, olds, news)


def _hashed(table: str, rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select(key=pl.col("id").hash(), value=pl.struct(TABLES[table].names).hash())


def _looked_at(table: str, rows: pl.LazyFrame, wanted: pl.DataFrame) -> pl.DataFrame:
    """What is compared of rows that differ: hashes of each column, what their label is about, where they stand."""
    names = TABLES[table].names
    subject = SUBJECTS.get(table)
    return (
        rows.with_columns(key=pl.col("id").hash())
        .join(wanted.lazy().select("key"), on="key", how="semi")
        .select(
            "id",
            about=_hash(subject.about if subject else ()),
            label=_hash(subject.label if subject else ()),
            split=pl.col("split") if "split" in names else pl.lit(None, pl.String),
            origin=_origin(names),
            **{f"value.{name}": pl.col(name).hash() for name in names},
        )
        .collect(engine="streaming")
    )


def _hash(values: tuple[pl.Expr, ...]) -> pl.Expr:
    if not values:
        return pl.lit(None, pl.UInt64)
    return pl.struct(value.alias(str(place)) for place, value in enumerate(values)).hash()


def _origin(names: list[str]) -> pl.Expr:
    known = [name for name in ("origin", "method") if name in names]
    return pl.col(known[0]) if known else pl.lit(None, pl.String)


def _same_id(olds: pl.DataFrame, news: pl.DataFrame) -> pl.DataFrame:
    both = olds.join(news, on="id", suffix="_new")
    other = (pl.col("about") == pl.col("about_new")) & (pl.col("label") != pl.col("label_new"))
    kind = pl.when(other).then(pl.lit("relabelled")).otherwise(pl.lit("changed"))
    return both.select(id_before="id", id_after="id", kind=kind)


def _same_subject(olds: pl.DataFrame, news: pl.DataFrame) -> pl.DataFrame:
    """Couples rows of different ids that say otherwise about one thing; what both versions say of it is left alone."""
    gone = olds.join(news, on="id", how="anti").drop_nulls("about")
    come = news.join(olds, on="id", how="anti").drop_nulls("about")
    said = ["about", "label"]
    sides = [_ranked(one.join(two, on=said, how="anti")) for one, two in ((gone, come), (come, gone))]
    coupled = sides[0].join(sides[1], on=["about", "rank"], suffix="_new")
    return coupled.select(id_before="id", id_after="id_new", kind=pl.lit("relabelled"))


def _ranked(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sort("about", "label", "id").select("about", "id", rank=pl.int_range(pl.len()).over("about"))


def _described(table: str, listed: pl.DataFrame, olds: pl.DataFrame, news: pl.DataFrame) -> pl.DataFrame:
    both = listed.join(olds, left_on="id_before", right_on="id", how="left").join(
        news, left_on="id_after", right_on="id", how="left", suffix="_new"
    )
    other = [
        pl.when(pl.col(f"value.{name}") != pl.col(f"value.{name}_new")).then(pl.lit(name))
        for name in TABLES[table].names
    ]
    met = pl.col("id_before").is_not_null() & pl.col("id_after").is_not_null()
    columns = pl.when(met).then(pl.concat_list(other).list.drop_nulls())
    return both.select(
        "kind",
        "id_before",
        "id_after",
        columns=columns,
        split=pl.when(pl.col("id_after").is_null()).then(pl.col("split")).otherwise(pl.col("split_new")),
        origin=pl.when(pl.col("id_after").is_null()).then(pl.col("origin")).otherwise(pl.col("origin_new")),
        reason=pl.lit(None, pl.String),
    ).sort("kind", "id_before", "id_after")


def _set_aside(catalog: Catalog, after: Version) -> pl.LazyFrame | None:
    """What the newer release set aside; null where it has no quarantine, or is about quarantine itself."""
    if after.table == "quarantine":
        return None
    found = [one for one in catalog.release(after) if one.table == "quarantine"]
    return scan("quarantine", found[0].files).select("key", "reason") if found else None


def _with_reasons(rows: pl.DataFrame, set_aside: pl.LazyFrame | None) -> pl.DataFrame:
    removed = rows.filter(pl.col("kind") == "removed").select(key="id_before")
    if set_aside is None or removed.is_empty():
        return rows
    said = set_aside.join(removed.lazy(), on="key", how="semi").group_by("key").agg(pl.col("reason").min())
    known = said.collect(engine="streaming").rename({"reason": "_why"})
    why = pl.when(pl.col("kind") == "removed").then(pl.col("_why")).alias("reason")
    joined = rows.join(known, left_on="id_before", right_on="key", how="left", maintain_order="left")
    return joined.with_columns(why).drop("_why")
