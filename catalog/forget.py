"""Forgetting users and conversations: what rests on them, the versions without it, the versions that hold it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import fsspec
import polars as pl

from tilth.catalog.audit import audit
from tilth.catalog.forgotten import Forgotten
from tilth.catalog.names import ordinal
from tilth.catalog.parts import scan
from tilth.catalog.references import Gone, having, resting_on
from tilth.catalog.store import Catalog
from tilth.catalog.versions import Release, Version
from tilth.schemas import PARQUET, TABLES, NotFound, conform, fingerprint

FORGOT: Final = "tilth.forgot"  # the receipt
_FROM: Final = "tilth.forgot_from"  # the label that a version was first made from
_PREFIX: Final = "forget-"
_OWN: Final = ("tilth.run_id", "tilth.version", "tilth.audit", "tilth.audit_uri")
_HASH: Final = r"\b[0-9a-f]{32}\b"
_AT_SOURCE: Final = ("ingest", "assign")  # stages whose payloads are records of a log
_SHARED: Final = ("prompt_id", "item_id")  # hashes of content, which rows of several users may have

Files = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Held:
    """A release that is still there, visible or dropped."""

    family: str
    label: str
    run_id: str
    versions: tuple[Version, ...]

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """Its parts by table."""
        return {version.table: version.files for version in self.versions}

    @property
    def properties(self) -> Mapping[str, str]:
        """What was recorded with it."""
        return self.versions[0].properties

    @property
    def first_label(self) -> str:
        """The label that it stems from by forgetting alone; its own for what a run made."""
        return self.properties.get(_FROM, self.label) if self.run_id.startswith(_PREFIX) else self.label

    @property
    def age(self) -> tuple[datetime, tuple[int, ...]]:
        """Sorts releases: what others were made from comes before them."""
        return self.versions[0].created_at, ordinal(self.label)

    @property
    def parents(self) -> list[str]:
        """The datasets that it was made from, as `family.table@label`."""
        return json.loads(self.properties.get("tilth.parents", "[]"))


@dataclass(frozen=True, slots=True)
class Aside:
    """Which rows of a quarantine go, and which lose their payload.

    Args:
        gone: ids that no row may name.
        keys: places in sources of forgotten conversations.
        shared: ids of prompts and items of rows that go.
        known: ids of what stays: a payload stays only with a row that names one of them.
        unread: whether what could not be read may be theirs.
    """

    gone: frozenset[str]
    keys: frozenset[str]
    shared: frozenset[str]
    known: frozenset[str]
    unread: bool

    def marked(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` with `_goes` and `_cleared`."""
        names = [pl.col(name).fill_null("") for name in ("source", "key", "detail", "payload")]
        hashes = pl.concat_str(names, separator=" ").str.extract_all(_HASH)
        found = rows.with_columns(_named=hashes)
        shared_alone = self.shared - self.known
        goes = _any_of("_named", self.gone | shared_alone) | pl.col("key").is_in(list(self.keys))
        stays = _any_of("_named", self.known) & ~_any_of("_named", self.shared)
        at_source = pl.col("stage").is_in(_AT_SOURCE)
        cleared = pl.when(at_source).then(pl.lit(self.unread)).otherwise(~stays)
        return found.with_columns(_goes=goes.fill_null(value=False)).with_columns(
            _cleared=cleared & ~pl.col("_goes") & pl.col("payload").is_not_null()
        )

    def left(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that stay, some without their payload."""
        payload = pl.when(~pl.col("_cleared")).then(pl.col("payload"))
        kept = self.marked(rows).filter(~pl.col("_goes")).with_columns(payload.alias("payload"))
        return kept.select(rows.columns)


def _any_of(column: str, ids: Collection[str]) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().is_in(list(ids))).list.any()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a table: how many of its rows go, and how many payloads."""

    uri: str
    gone: int
    cleared: int


@dataclass(frozen=True, slots=True)
class Change:
    """What forgetting makes of a release."""

    held: Held
    run_id: str
    gone: Gone
    aside: Aside | None
    parts: Mapping[str, tuple[Part, ...]]
    behind: tuple[Held, ...]  # the releases that it was made from, and those behind them

    @property
    def rows(self) -> dict[str, int]:
        """How many rows go, by table; tables that lose none are left out."""
        counts = {table: sum(part.gone for part in parts) for table, parts in self.parts.items()}
        return {table: count for table, count in counts.items() if count}

    @property
    def cleared(self) -> int:
        """How many payloads go."""
        return sum(part.cleared for parts in self.parts.values() for part in parts)

    @property
    def loses(self) -> bool:
        """Whether the release itself holds anything that goes."""
        return bool(self.rows or self.cleared)

    def kept(self, table: str, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows of a part that stay, in order."""
        if table == "quarantine":
            return rows if self.aside is None else self.aside.left(rows)
        ids = list(self.gone.get(table, ()))
        return rows.filter(~pl.col("id").is_in(ids))


@dataclass(frozen=True, slots=True)
class Plan:
    """What forgetting would do.

    Args:
        asked: users and conversations.
        found: the ids of the conversations that go, in any version.
        changes: releases that are made again, in the order of publishing.
        holding: family -> labels of all versions that hold something that goes; only where a purge was planned.
        tags: family -> tag -> label, of releases that are made again.
    """

    asked: Forgotten
    found: frozenset[str]
    changes: tuple[Change, ...]
    holding: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def families(self) -> tuple[str, ...]:
        """The families that are touched, sorted."""
        return tuple(sorted({*(change.held.family for change in self.changes), *self.holding}))


def plan(catalog: Catalog, asked: Forgotten, *, purge: bool = False) -> Plan:
    """Finds what goes, in every version of every family; changes nothing.

    Conversations go that one of the users has a turn in, in whichever version they stand, and those that are named;
    then every row that rests on them. Releases that would be made again are the latest of each family, those it was
    made from, and with `purge` those that have a tag.
    """
    return _Survey(catalog, asked).plan(purge)


class _Survey:
    """A look at all releases of a catalog. Reads columns of ids, and of quarantines all."""

    def __init__(self, catalog: Catalog, asked: Forgotten) -> None:
        self._catalog, self._asked = catalog, asked
        self._held = {(one.family, one.label): one for one in _releases(catalog)}
        self._seeds = self._conversations()
        self._ids = frozenset(self._seeds.get_column("id"))
        places = self._seeds.select("source", "source_id").drop_nulls().rows()
        self._keys = frozenset(f"{source}#id={one}" for source, one in places)
        self._hit: set[str] = set()
        self._seeded: dict[str, bool] = {}

    def plan(self, purge: bool) -> Plan:
        if not self._ids:
            return Plan(self._asked, self._ids, ())
        self._hit = {
            one.family for one in self._held.values() if self._seeds_in(self._own(one, "conversations"))
        }
        tags = self._tags() if purge else {}
        changes = self._changes(self._roots(tags))
        made = {(change.held.family, change.held.label) for change in changes}
        moved = {
            family: {tag: label for tag, label in known.items() if (family, label) in made}
            for family, known in tags.items()
        }
        holding = self._holding({(c.held.family, c.held.label): c for c in changes}) if purge else {}
        return Plan(self._asked, self._ids, tuple(changes), holding, moved)

    def _conversations(self) -> pl.DataFrame:
        """`id`, `source` and `source_id` of the conversations that go, each once."""
        files = {uri for one in self._held.values() for uri in one.files.get("conversations", ())}
        users, ids = list(self._asked.users), list(self._asked.conversations)
        others = pl.col("other_user_keys").list.eval(pl.element().is_in(users)).list.any()
        theirs = pl.col("user_key").is_in(users) | others.fill_null(value=False) | pl.col("id").is_in(ids)
        columns = ("id", "source", "source_id")
        found = [
            rows.filter(theirs).select(columns).collect(engine="streaming")
            for rows in having("conversations", sorted(files), "user_key")
        ]
        return pl.concat([pl.DataFrame(schema=dict.fromkeys(columns, pl.String)), *found]).unique()

    def _own(self, held: Held, table: str) -> Files:
        return {table: held.files.get(table, ())}

    def _tags(self) -> dict[str, dict[str, str]]:
        return {family: self._catalog.tags(family) for family in self._catalog.families()}

    def _roots(self, tags: Mapping[str, Mapping[str, str]]) -> list[Held]:
        """The latest release of each family, and those that have a tag."""
        visible = [one for one in self._held.values() if self._is_visible(one)]
        named = {(family, label) for family, known in tags.items() for label in known.values()}
        return [*_latest(visible).values(), *(one for one in visible if (one.family, one.label) in named)]

    def _is_visible(self, held: Held) -> bool:
        return held.label not in self._catalog.dropped(held.family)

    def _changes(self, roots: Sequence[Held]) -> list[Change]:
        kept = {(one.family, one.label): one for root in roots for one in (root, *self._behind(root))}
        looked = [self._change(one) for one in sorted(kept.values(), key=lambda one: one.age)]
        changed: dict[tuple[str, str], Change] = {}
        for change in looked:
            behind = {(one.family, one.label) for one in change.behind}
            if change.loses or behind & changed.keys():
                changed[change.held.family, change.held.label] = change
        # Whatever is published is the newest; so the latest release is published once more after older ones.
        latest = {(one.family, one.label) for one in _latest(roots).values()}
        older = {
            c.held.family for c in changed.values() if not self._catalog.find_run(c.held.family, c.run_id)
        }
        return [
            change
            for change in looked
            if (key := (change.held.family, change.held.label)) in changed
            or (key in latest and key[0] in older)
        ]

    def _holding(self, known: Mapping[tuple[str, str], Change]) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for key, held in self._held.items():
            own = {table: files for table, files in held.files.items() if table != "quarantine"}
            if self._seeds_in(own) or (known.get(key) or self._change(held)).loses:
                found.setdefault(held.family, []).append(held.label)
        return {family: tuple(sorted(labels, key=ordinal)) for family, labels in sorted(found.items())}

    # One release

    def _change(self, held: Held) -> Change:
        behind = tuple(self._behind(held))
        files = _together([held, *behind])
        unread = held.family in self._hit
        name = [list(self._asked.users), list(self._asked.conversations), held.family, held.label]
        run_id = f"{_PREFIX}{fingerprint(name)[:16]}"
        if not unread and not self._seeds_in(files):
            untouched = {table: tuple(Part(uri, 0, 0) for uri in uris) for table, uris in held.files.items()}
            return Change(held, run_id, {}, None, untouched, behind)
        gone = resting_on(files, self._ids)
        aside = self._aside(held, files, gone, unread)
        parts = {
            table: tuple(_part(table, uri, gone.get(table, frozenset()), aside) for uri in uris)
            for table, uris in held.files.items()
        }
        return Change(held, run_id, gone, aside, parts, behind)

    def _behind(self, held: Held) -> Iterator[Held]:
        """The releases that one was made from, the nearest first; those that are gone are passed over."""
        seen: set[tuple[str, str]] = set()
        waiting = [held]
        while waiting:
            for name in waiting.pop(0).parents:
                with contextlib.suppress(NotFound):
                    version = self._catalog.resolve(name)
                    key = (version.family, version.version)
                    if key not in seen:
                        seen.add(key)
                        waiting.append(self._held[key])
                        yield self._held[key]

    def _seeds_in(self, files: Files) -> bool:
        """Whether some part holds a forgotten conversation, or a row that names one."""
        return any(self._is_seeded(table, uri) for table, uris in files.items() for uri in uris)

    def _is_seeded(self, table: str, uri: str) -> bool:
        if uri not in self._seeded:
            column = "id" if table == "conversations" else "conversation_id"
            named = pl.col(column).is_in(list(self._ids))
            found = [rows.filter(named).head(1).collect() for rows in having(table, [uri], column)]
            self._seeded[uri] = any(frame.height for frame in found)
        return self._seeded[uri]

    def _aside(self, held: Held, files: Files, gone: Gone, unread: bool) -> Aside:
        everything = frozenset(one for ids in gone.values() for one in ids)
        named = {
            one
            for rows in having("quarantine", held.files.get("quarantine", ()), "key")
            for one in _hashes(rows)
        }
        shared = frozenset(_shared(files, gone))
        known = frozenset(_standing(files, gone, named - everything))
        return Aside(everything, self._keys, shared, known, unread)


def _releases(catalog: Catalog) -> Iterator[Held]:
    """Every release of every family, dropped ones too."""
    for family in catalog.families():
        known = catalog._iceberg.labels(family)  # pyright: ignore[reportPrivateUsage]  (dropped labels too)
        runs = {**known.claimed, **{label: left.run_id for label, left in known.dropped.items()}}
        for label, run_id in runs.items():
            if versions := catalog._labelled(family, label):  # pyright: ignore[reportPrivateUsage]
                yield Held(family, label, run_id, tuple(versions))


def _latest(held: Iterable[Held]) -> dict[str, Held]:
    """The latest release of each family: what was made from it by forgetting comes after it, not before a later one."""
    found: dict[str, Held] = {}
    for one in sorted(held, key=lambda one: (ordinal(one.first_label), ordinal(one.label))):
        found[one.family] = one
    return found


def _together(releases: Sequence[Held]) -> dict[str, list[str]]:
    """The parts of several releases by table, each once."""
    files: dict[str, dict[str, None]] = {}
    for held in releases:
        for table, uris in held.files.items():
            files.setdefault(table, {}).update(dict.fromkeys(uris))
    return {table: list(uris) for table, uris in files.items()}


def _part(table: str, uri: str, gone: Collection[str], aside: Aside | None) -> Part:
    rows = scan(table, [uri])
    if table == "quarantine" and aside is not None:
        marked = aside.marked(rows.collect())
        return Part(uri, int(marked.get_column("_goes").sum()), int(marked.get_column("_cleared").sum()))
    count = rows.select(pl.col("id").is_in(list(gone)).sum()).collect(engine="streaming").item()
    return Part(uri, int(count), 0)


def _hashes(rows: pl.LazyFrame) -> set[str]:
    """Whatever looks like an id in a quarantine."""
    names = [pl.col(name).fill_null("") for name in ("source", "key", "detail", "payload")]
    hashes = pl.concat_str(names, separator=" ").str.extract_all(_HASH)
    return set(rows.select(hashes.explode(empty_as_null=False)).collect().to_series())


def _shared(files: Files, gone: Gone) -> Iterator[str]:
    """The ids of prompts and items of rows that go."""
    for table, uris in files.items():
        ids = list(gone.get(table, ()))
        for column in _SHARED if ids else ():
            for rows in having(table, uris, column):
                yield from (
                    rows.filter(pl.col("id").is_in(ids)).select(column).collect().to_series().drop_nulls()
                )


def _standing(files: Files, gone: Gone, wanted: Collection[str]) -> Iterator[str]:
    """Those of the ids that rows which stay are known by."""
    for table, uris in files.items() if wanted else ():
        stays = ~pl.col("id").is_in(list(gone.get(table, ())))
        for column in ("id", *_SHARED) if table != "quarantine" else ():
            for rows in having(table, uris, column):
                found = rows.filter(stays, pl.col(column).is_in(list(wanted))).select(column)
                yield from found.collect(engine="streaming").to_series()


# Carrying it out


def carry_out(
    catalog: Catalog, planned: Plan, receipt: str, suites: str | None = None
) -> dict[tuple[str, str], list[Version]]:
    """Publishes the planned releases; gives their versions by the family and label that they were made from.

    Nothing is published before all of them have passed their audit. The same call again completes what was cut off.
    Raises `ChecksFailed`, as a run would.
    """
    staged = {(c.held.family, c.held.label): _staged(catalog, c) for c in planned.changes}
    releases: list[tuple[Change, Release]] = []
    for change in planned.changes:
        held = change.held
        files = staged[held.family, held.label]
        behind = [staged.get((one.family, one.label), one.files) for one in change.behind]
        report = (
            None
            if catalog.find_run(held.family, change.run_id)
            else audit(files, parents=behind, suites=suites)
        )
        if report is not None:
            report.refuse()
        releases.append(
            (change, Release(held.family, change.run_id, files, _properties(held, receipt), report))
        )
    made: dict[tuple[str, str], list[Version]] = {}
    for change, release in releases:
        parents = {
            "tilth.parents": json.dumps([_renamed(catalog, name, made) for name in change.held.parents])
        }
        whole = Release(
            release.family,
            release.run_id,
            release.files,
            {**release.properties, **parents},
            release.audit,
        )
        made[change.held.family, change.held.label] = catalog.publish(whole)
    for family, known in planned.tags.items():
        for tag, label in known.items():
            catalog.tag(family, made[family, label][0].version, tag, move=True)
    return made


def _properties(held: Held, receipt: str) -> dict[str, str]:
    kept = {name: value for name, value in held.properties.items() if name not in _OWN}
    return {**kept, FORGOT: receipt, _FROM: held.first_label}


def _renamed(catalog: Catalog, name: str, made: Mapping[tuple[str, str], Sequence[Version]]) -> str:
    """A parent as it is called now that it was made again."""
    with contextlib.suppress(NotFound):
        old = catalog.resolve(name)
        for new in made.get((old.family, old.version), ()):
            if new.table == old.table:
                return f"{new.name}@{new.version}"
    return name


def _staged(catalog: Catalog, change: Change) -> dict[str, list[str]]:
    """The parts of a release without what goes; parts that lose nothing are those of the old one."""
    held = change.held
    if done := catalog.find_run(held.family, change.run_id):
        return {version.table: list(version.files) for version in done}
    files: dict[str, list[str]] = {}
    for table, parts in change.parts.items():
        home = catalog.staging(held.family, table, change.run_id)
        files[table] = []
        for number, part in enumerate(parts):
            if not part.gone and not part.cleared and _is_current(table, part.uri):
                files[table].append(part.uri)
            elif _written(change, table, part.uri, f"{home}/{number:06d}.parquet"):
                files[table].append(f"{home}/{number:06d}.parquet")
    return files


def _is_current(table: str, uri: str) -> bool:
    """Whether a part has the columns that its table has today; the catalog takes no others into a new version."""
    import pyarrow.parquet as pq

    with fsspec.open(uri, "rb") as file:
        return pq.read_schema(file).names == TABLES[table].names


def _written(change: Change, table: str, uri: str, to: str) -> int:
    """Writes the rows of a part that stay, a row group at a time; tells how many, and leaves no part without rows."""
    import pyarrow.parquet as pq

    count = 0
    fs, path = fsspec.core.url_to_fs(to)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with (
        fsspec.open(uri, "rb") as source,
        fs.open(path, "wb") as sink,
        pq.ParquetWriter(sink, TABLES[table], **PARQUET) as writer,
    ):
        old = pq.ParquetFile(source)
        for group in range(old.num_row_groups):
            rows = pl.DataFrame(old.read_row_group(group))
            kept = conform(change.kept(table, rows), table)
            if count_here := kept.height:
                arrow = kept.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer.write_table(arrow.cast(TABLES[table]))
            count += count_here
    if not count:
        fs.rm_file(path)
    return count


def expired(catalog: Catalog, holding: Mapping[str, Sequence[str]], keep: Collection[str] = ()) -> set[str]:
    """Removes versions for good, but not the files of `keep`; gives the URIs of the data files that went."""
    return {uri for family, labels in holding.items() for uri in catalog.expire(family, labels, keep=keep)}


def stray_files(catalog: Catalog, families: Collection[str]) -> list[str]:
    """Files of tables that no version holds, of these families and of folders that bear no family's name.

    Staged parts of runs that never committed are among them. `Catalog.sweep` deletes them.
    """
    home = catalog.warehouse
    fs, path = fsspec.core.url_to_fs(home)
    known = catalog.reachable()
    others = {family for family in catalog.families() if family not in families}
    found = [fs.unstrip_protocol(one) if "://" in home else one for one in fs.find(path)]
    pieces = {uri: uri.removeprefix(f"{home}/").split("/") for uri in found}
    tables = [uri for uri, at in pieces.items() if len(at) > 3 and at[2] in ("data", "metadata")]
    return [uri for uri in tables if pieces[uri][0] not in others and uri not in known]
