"""Incremental runs: what a stream of runs has read before, and what is new, changed or gone.

A stream is a recipe over named sources. What its newest version has read is recorded with that version, so the state is
published with the rows and there is no other. See docs/how-to/increments.md.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal  # Any: planned reads, JSON values

import fsspec

from tilth.schemas import BadInput, NotFound, fingerprint
from tilth.transforms.ingest import SourceFile, expand

OnDeleted = Literal["keep", "drop"]
Read = Mapping[str, Any]
Planner = Callable[[Sequence[SourceFile]], list[dict[str, Any]]]

# A file that was changed within the clock's grain of when it was read may change again and look the same.
_SETTLED: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as a run has read it, and the read tasks that begin with it; files of one task follow its first."""

    uri: str
    source: str
    size_bytes: int
    modified: str | None
    witness: str
    reads: tuple[Read, ...]

    @property
    def settled(self) -> bool:
        """Whether its time of change can be relied upon; see `recorded`."""
        return self.modified is not None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a run reads: files in the order of their reads, and how many are new, seen, changed or gone."""

    entries: tuple[Entry, ...]
    counts: Mapping[str, int]

    @property
    def reads(self) -> list[Read]:
        """The read tasks, in order."""
        return [read for entry in self.entries for read in entry.reads]


def stream_of(recipe: str, sources: Sequence[str], shape: str | None, mapping: str | None) -> str:
    """What a stream is known by: a recipe over the same named sources, read in the same way."""
    return f"{recipe}-{fingerprint([recipe, list(sources), shape, mapping])[:16]}"


def entries_of(files: Iterable[SourceFile], reads: Sequence[Read]) -> Iterator[Entry]:
    """Files as they will be recorded, in the order of their reads: each once, with the reads that begin with it."""
    known = {file.uri: file for file in files}
    begun: dict[str, list[Read]] = {}
    for read in reads:
        first, *others = (file["uri"] for file in read["files"])
        begun.setdefault(first, []).append(read)
        for uri in others:
            begun.setdefault(uri, [])
    for uri, own in begun.items():
        file = known[uri]
        yield Entry(uri, file.source, file.size_bytes, file.modified, file.witness, tuple(own))


def first_listing(files: Sequence[SourceFile], plan: Planner) -> Listing:
    """What a run reads that has read nothing before."""
    return Listing(tuple(entries_of(files, plan(files))), {"new": len(files)})


def present(sources: Sequence[str], seen: Sequence[Entry]) -> list[SourceFile]:
    """The files that are there now; one of `seen` with its size and time of change is not read for its witness.

    A source without files is an error unless it had some before: logs are rotated away.
    """
    known = {(e.uri, e.size_bytes, e.modified): e.witness for e in seen if e.settled}
    files: dict[str, SourceFile] = {}
    for source in sources:
        try:
            found = expand([source], known)
        except NotFound:
            if all(entry.source != source for entry in seen):
                raise
            found = []
        for file in found:
            files.setdefault(file.uri, file)
    return list(files.values())


def next_listing(
    seen: Sequence[Entry], files: Sequence[SourceFile], plan: Planner, on_deleted: OnDeleted = "keep"
) -> Listing:
    """What a run reads after one that has read `seen`: those in their order, then what is new.

    A changed file is planned anew in its place. One that is gone keeps its rows, or not, as `on_deleted` says. Raises
    `BadInput` for a file that is gone, is kept, and was read in one task with a file that has changed; and where every
    file is gone whose rows would be dropped, which is how a volume looks that is not mounted.
    """
    if on_deleted == "drop" and not files:
        do = "look whether the place is there; to keep what was read, leave out on_deleted=drop"
        raise BadInput(
            "all source files are gone", found=f"none of {len(seen)}", wanted="one at least", do=do
        )
    there = {file.uri: file for file in files}
    counts: Counter[str] = Counter()
    entries: list[Entry] = []
    for group in _groups(seen):
        entries += _advanced(group, there, plan, on_deleted, counts)
    before = {entry.uri for entry in seen}
    new = [file for file in files if file.uri not in before]
    entries += entries_of(new, plan(new)) if new else []
    return Listing(tuple(entries), {"new": len(new), **counts})


def _groups(seen: Sequence[Entry]) -> Iterator[list[Entry]]:
    """Files that are read in one task together; most are alone."""
    group: list[Entry] = []
    for entry in seen:
        if entry.reads and group:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group


def _advanced(
    group: Sequence[Entry],
    there: Mapping[str, SourceFile],
    plan: Planner,
    on_deleted: OnDeleted,
    counts: Counter[str],
) -> list[Entry]:
    states = [_state(entry, there.get(entry.uri)) for entry in group]
    counts.update(states)
    stale = "changed" in states or (on_deleted == "drop" and "gone" in states)
    if not stale:
        return list(group)
    left = [there[entry.uri] for entry in group if entry.uri in there]
    if on_deleted == "keep" and "gone" in states:
        raise BadInput(
            f"{group[states.index('changed')].uri} has changed, and is read together with a file that is gone",
            found=group[states.index("gone")].uri,
            do="put the file back, or let rows of deleted files go: --set on_deleted=drop",
        )
    return list(entries_of(left, plan(left))) if left else []


def _state(entry: Entry, file: SourceFile | None) -> str:
    if file is None:
        return "gone"
    return "seen" if file.witness == entry.witness else "changed"


def recorded(
    entries: Sequence[Entry], licence: Callable[[str], str | None], read_at: datetime | None = None
) -> bytes:
    """Entries as they are kept with a version: a JSON list, each with its licence."""
    bound = (read_at or datetime.now(UTC)) - _SETTLED
    rows = [
        {
            "uri": entry.uri,
            "source": entry.source,
            "size_bytes": entry.size_bytes,
            "modified": entry.modified if _before(entry.modified, bound) else None,
            "witness": entry.witness,
            "licence": licence(entry.uri),
            "reads": list(entry.reads),
        }
        for entry in entries
    ]
    return json.dumps(rows, sort_keys=True).encode()


def _before(modified: str | None, bound: datetime) -> bool:
    try:
        return modified is not None and datetime.fromisoformat(modified) < bound
    except (ValueError, TypeError):  # a store's own way of telling the time
        return False


def remembered(uri: str) -> tuple[Entry, ...]:
    """The entries that were kept with a version."""
    fs, path = fsspec.core.url_to_fs(uri)
    rows = json.loads(fs.cat_file(path))
    names = ("uri", "source", "size_bytes", "modified", "witness")
    return tuple(Entry(**{name: row[name] for name in names}, reads=tuple(row["reads"])) for row in rows)
