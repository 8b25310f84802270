"""What a row was made from, up to the turn of the user, and what was made of it, across releases."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final  # Any: cells of rows, JSON values

import polars as pl

from tilth.catalog.names import ordinal
from tilth.catalog.parts import scan
from tilth.catalog.references import REFERENCES
from tilth.schemas import TABLES, BadInput, NotFound

if TYPE_CHECKING:
    from tilth.catalog.store import Catalog
    from tilth.catalog.versions import Version

FAN_OUT: Final = 5
_PREFIX: Final = r"[0-9a-f]{8,32}"
_DEPTH: Final = 6
_LISTED: Final = 8  # matches of a prefix that an error names

_PLACES: Final = pl.col("evidence").list.eval(
    pl.struct(pl.element().struct.field(name) for name in ("label", "start", "end"))
)
_FACTS: Final[Mapping[str, tuple[str | pl.Expr, ...]]] = {
    "conversations": (
        "source",
        "source_id",
        "record_id",
        "model",
        pl.col("messages").list.len().alias("turns"),
    ),
    "feedback": ("polarity", "labels", "message_index", "target_index", _PLACES, "strength", "method"),
    "pairs": ("origin", "margin", "verdict", "models", "method"),
    "unpaired": ("label", "weight", "model", "method"),
    "rationales": ("kind", "side", "rank", "score", "recovers_label", "model", "method"),
    "rubrics": (pl.col("criteria").list.len(), "separation", "coverage", "model", "method"),
    "preferences": ("target_index", pl.col("preferences").list.len(), "model"),
    "responses": ("role", "sample_index", "model", "guided"),
    "judgments": ("kind", "judge", "model", "verdict", "order", "scores", "reason"),
    "ratings": ("rating", "model"),
    "evaluation": ("cluster", "distance"),
    "quarantine": ("source", "stage", "reason", "key"),
}
"""What is told of a row, by table: nothing that a user or a model wrote."""

Key = tuple[str, str]  # table, id
Release = Mapping[str, "Version"]  # table -> version
Neighbours = Callable[[str, Collection[str]], Iterator[tuple[str, str, pl.DataFrame]]]


@dataclass(frozen=True, slots=True)
class Node:
    """A row, and the rows next to it in one direction.

    Args:
        table: of `TABLES`.
        id: the row's.
        dataset: where it was found, `family.table@version`; null for a row that is named and nowhere to be found.
        via: the column that names it, or that names the row before it; empty for the row that was asked for.
        facts: columns that hold no words of users or models.
        next: the rows that it was made from, or that were made of it. A row that stands in several places has those
            next to it in the first one only.
        more: column -> how many rows were left out.
        text: the user's turn of a signal, where it was asked for.
    """

    table: str
    id: str
    dataset: str | None = None
    via: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    next: tuple[Node, ...] = ()
    more: Mapping[str, int] = field(default_factory=dict)
    text: str | None = None

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for node in self.next:
            yield from node.walk()

    def to_dict(self) -> dict[str, Any]:
        """The tree as JSON values; `text` only where there is one."""
        own = {"table": self.table, "id": self.id, "dataset": self.dataset, "via": self.via}
        said = {} if self.text is None else {"text": self.text}
        tree = {"more": dict(self.more), "next": [node.to_dict() for node in self.next]}
        return {**own, "facts": dict(self.facts), **said, **tree}


@dataclass(frozen=True, slots=True)
class Lineage:
    """Two trees that begin with the same row: what it was made from, and what was made of it."""

    made_from: Node
    made_into: Node
    also_in: tuple[str, ...]  # other datasets that hold the row, as `family.table@version`

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "made_from": self.made_from.to_dict(),
            "made_into": self.made_into.to_dict(),
            "also_in": list(self.also_in),
        }


def lineage(
    catalog: Catalog, row: str, within: str | None = None, *, fan_out: int = FAN_OUT, text: bool = False
) -> Lineage:
    """What a row was made from and what was made of it.

    Args:
        catalog: where to look.
        row: its id, or the first characters of it, at least eight.
        within: the dataset it is looked for in, as `observed.pairs@2026.11.21.1`; by default the latest version of
            every dataset, and if it is in none of them, the earlier ones.
        fan_out: how many rows are followed from each row by one column; the rest is counted.
        text: also what users said in the turns that signals stand in.

    Upwards, rows are looked for in the release of the row and those that it was made from; downwards, in its release
    and in the latest release of every family made from its family.

    Raises `NotFound` for an id that no row has, `BadInput` naming the matches of one that several rows have.
    """
    if not re.fullmatch(_PREFIX, row):
        raise BadInput("the id of a row", found=f"{len(row)} characters", wanted="8 to 32 of 0-9 and a-f")
    version, row_id, also = _find(catalog, row, within)
    above = _Rows(_behind(catalog, version))
    below = _Rows([_release(catalog, version), *_made_from(catalog, version.family)])
    start = Node(version.table, row_id)
    up = _grow(start, above, above.named_by, fan_out)
    down = _grow(start, below, below.naming, fan_out)
    if text:
        up, down = _told(up, above.turns(up)), _told(down, above.turns(down) | below.turns(down))
    return Lineage(up, down, tuple(also))


def _named(version: Version) -> str:
    return f"{version.name}@{version.version}"


# Finding the row.


def _find(catalog: Catalog, row: str, within: str | None) -> tuple[Version, str, list[str]]:
    """The row's version, its id, and the other versions of other datasets that hold it."""
    for versions in _searched(catalog, within):
        hits: dict[str, list[Version]] = {}
        for version in versions:
            for found in _ids(version, row):
                hits.setdefault(found, []).append(version)
        if len(hits) > 1:
            listed = [f"{found} of {holders[0].name}" for found, holders in sorted(hits.items())]
            more = f", and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
            raise BadInput(
                f"rows whose id begins with {row}",
                found=", ".join(listed[:_LISTED]) + more,
                wanted="one",
                do="give more characters of the id, or name the dataset with --in",
            )
        if hits:
            ((found, holders),) = hits.items()
            first = min(holders, key=lambda one: len(_parents(one)))  # where its own sources are nearest
            return first, found, [_named(one) for one in holders if one.name != first.name]
    do = "look in one version with --in, as observed.pairs@2026.11.21.1"
    raise NotFound(f"no row with id {row}", found=f"none in {within or 'any dataset'}", do=do)


def _searched(catalog: Catalog, within: str | None) -> Iterator[list[Version]]:
    if within is not None:
        yield [catalog.resolve(within)]
        return
    names = catalog.datasets()
    latest = [catalog.resolve(name) for name in names]
    yield sorted(latest, key=lambda version: version.created_at, reverse=True)
    for name in names:
        for version in catalog.versions(name)[1:]:
            yield [version]


def _ids(version: Version, row: str) -> list[str]:
    wanted = pl.col("id") == row if len(row) == 32 else pl.col("id").str.starts_with(row)
    found = scan(version.table, version.files).filter(wanted).select(pl.col("id").unique())
    return found.collect(engine="streaming").to_series().to_list()


# The releases that rows are looked for in.


def _release(catalog: Catalog, version: Version) -> Release:
    return {one.table: one for one in catalog.release(version)}


def _parents(version: Version) -> list[str]:
    return json.loads(version.properties.get("tilth.parents", "[]"))


def _behind(catalog: Catalog, version: Version) -> list[Release]:
    """The release of a version and all that it was made from, as far as they are there, nearest first."""
    waiting, found, seen = [version], list[Release](), set[tuple[str, str]]()
    while waiting:
        one = waiting.pop(0)
        if (one.family, one.version) not in seen:
            seen.add((one.family, one.version))
            found.append(_release(catalog, one))
            for name in _parents(one):
                with contextlib.suppress(NotFound):
                    waiting.append(catalog.resolve(name))
    return found


def _made_from(catalog: Catalog, family: str) -> list[Release]:
    """The latest release of every other family that was made from this family, directly or not."""
    latest: dict[str, Version] = {}
    for name in catalog.datasets():
        one = catalog.resolve(name)
        known = latest.get(one.family)
        if known is None or ordinal(known.version) < ordinal(one.version):
            latest[one.family] = one
    others = [_behind(catalog, one) for name, one in latest.items() if name != family]
    return [
        own
        for own, *behind in others
        if any(one.family == family for each in behind for one in each.values())
    ]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of some releases; one that stands in several is taken from the first."""

    releases: Sequence[Release]

    def about(self, table: str, ids: Collection[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """Dataset and facts of these rows, by id."""
        found: dict[str, tuple[str, dict[str, Any]]] = {}
        for version in self._versions(table):
            rows = _with_ids(version, set(ids) - found.keys())
            split = ["split"] if "split" in TABLES[table].names else []
            for row in (
                rows.select("id", *_FACTS[table], *split).collect(engine="streaming").iter_rows(named=True)
            ):
                facts = {name: value for name, value in row.items() if name != "id" and value is not None}
                found.setdefault(row["id"], (_named(version), facts))
        return found

    def named_by(self, table: str, ids: Collection[str]) -> Iterator[tuple[str, str, pl.DataFrame]]:
        """For each column of these rows that names others: the column, their table, and `of`, `other`."""
        for reference in REFERENCES:
            if reference.table == table and reference.target in TABLES:
                found = [
                    reference.named(_with_ids(version, ids)).select(of="id", other="named")
                    for version in self._versions(table)
                ]
                yield ".".join(reference.path), reference.target, _unique(found)

    def naming(self, table: str, ids: Collection[str]) -> Iterator[tuple[str, str, pl.DataFrame]]:
        """For each column that names these rows: the column, its table, and `of`, `other`."""
        wanted = pl.LazyFrame({"named": list(ids)}, schema={"named": pl.String})
        for reference in REFERENCES:
            if reference.target == table:
                found = [
                    reference.named(scan(reference.table, version.files))
                    .join(wanted, on="named", how="semi")
                    .select(of="named", other="id")
                    for version in self._versions(reference.table)
                ]
                yield f"{reference.table}.{'.'.join(reference.path)}", reference.table, _unique(found)

    def turns(self, tree: Node) -> dict[str, str]:
        """What users said, by the id of the signal."""
        ids = {node.id for node in tree.walk() if node.table == "feedback"}
        said: dict[str, str] = {}
        for release in self.releases:
            if ids and {"feedback", "conversations"} <= release.keys():
                places = _with_ids(release["feedback"], ids).select("id", "conversation_id", "message_index")
                talks = scan("conversations", release["conversations"].files).select("id", "messages")
                rows = talks.join(
                    places, left_on="id", right_on="conversation_id", how="inner", suffix="_signal"
                )
                turn = pl.col("messages").list.get(pl.col("message_index"), null_on_oob=True)
                told = rows.select("id_signal", turn.struct.field("content")).drop_nulls()
                said = dict(told.collect(engine="streaming").iter_rows()) | said
        return said

    def _versions(self, table: str) -> list[Version]:
        return [release[table] for release in self.releases if table in release]


def _with_ids(version: Version, ids: Collection[str]) -> pl.LazyFrame:
    return scan(version.table, version.files).filter(pl.col("id").is_in(list(ids)))


def _unique(found: Sequence[pl.LazyFrame]) -> pl.DataFrame:
    none = pl.LazyFrame(schema={"of": pl.String, "other": pl.String})
    return pl.concat([none, *found]).unique().sort("of", "other").collect(engine="streaming")


# The tree.


@dataclass(slots=True)
class _Graph:
    """What was found, level by level: rows, and which lead to which."""

    rows: dict[Key, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    edges: dict[Key, dict[Key, str]] = field(default_factory=dict)  # row -> next rows -> column
    more: dict[Key, dict[str, int]] = field(default_factory=dict)


def _grow(start: Node, rows: _Rows, neighbours: Neighbours, fan_out: int) -> Node:
    graph = _Graph()
    level: dict[str, set[str]] = {start.table: {start.id}}
    for _ in range(_DEPTH):
        for table, ids in level.items():
            graph.rows |= {(table, one): about for one, about in rows.about(table, ids).items()}
            graph.edges |= {(table, one): {} for one in ids}
        level = _next_level(graph, level, neighbours, fan_out)
        if not level:
            break
    for table, ids in level.items():
        graph.rows |= {(table, one): about for one, about in rows.about(table, ids).items()}
    return _tree((start.table, start.id), "", _without_shortcuts(graph), set())


def _next_level(
    graph: _Graph, level: Mapping[str, set[str]], neighbours: Neighbours, fan_out: int
) -> dict[str, set[str]]:
    fresh: dict[str, set[str]] = {}
    for table, ids in level.items():
        for via, target, found in neighbours(table, ids):
            for (of,), others in found.group_by("of", maintain_order=True):
                near, key = others.get_column("other").to_list(), (table, str(of))
                if len(near) > fan_out:
                    graph.more.setdefault(key, {})[via] = len(near) - fan_out
                for other in near[:fan_out]:
                    graph.edges[key].setdefault((target, other), via)
                    if (target, other) not in graph.edges:
                        fresh.setdefault(target, set()).add(other)
    return fresh


def _without_shortcuts(graph: _Graph) -> _Graph:
    """Leaves out steps to rows that a longer way leads to: a pair's conversation is that of its feedback."""

    def reached(key: Key) -> set[Key]:
        return set().union(*({one} | reached(one) for one in graph.edges.get(key, ())))

    beyond = {key: reached(key) for key in graph.edges}
    for key, steps in graph.edges.items():
        further = set().union(*(beyond.get(one, set()) for one in steps))
        graph.edges[key] = {one: via for one, via in steps.items() if one not in further}
    return graph


def _tree(key: Key, via: str, graph: _Graph, shown: set[Key]) -> Node:
    table, row_id = key
    dataset, facts = graph.rows.get(key, (None, {}))
    if key in shown:
        return Node(table, row_id, dataset, via, facts)
    shown.add(key)
    near = tuple(_tree(one, by, graph, shown) for one, by in graph.edges.get(key, {}).items())
    return Node(table, row_id, dataset, via, facts, near, graph.more.get(key, {}))


def _told(tree: Node, turns: Mapping[str, str]) -> Node:
    near = tuple(_told(node, turns) for node in tree.next)
    return replace(tree, next=near, text=turns.get(tree.id) if tree.table == "feedback" else None)
