"""What a run starts from: logs, planned as reads, or a dataset of the catalog with the tables published beside it."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any, Final  # Any: planned reads, JSON values

import fsspec

from tilth.catalog import Catalog, Version, open_catalog
from tilth.flows.increments import (
    Entry,
    Listing,
    first_listing,
    next_listing,
    present,
    recorded,
    remembered,
    stream_of,
)
from tilth.pipelines.release import Parent
from tilth.schemas import ConfigError, NotFound
from tilth.schemas.licences import licence
from tilth.transforms.ingest import SourceFile, plan
from tilth.transforms.parts import Shard, write_bytes

if TYPE_CHECKING:
    from tilth.flows.recipes import Recipe
    from tilth.flows.settings import Settings


UNDECLARED: Final = "undeclared"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run starts from.

    Args:
        known_by: what the run's identity holds of it: the reads, or dataset, version and the run that made it.
        given: what the recipe is handed: the reads, or a `Parent`.
        sources: what is read, a row each with its `source`, `shape` and `bytes`.
        licences: how many source files there are under each licence.
        parents: the datasets with their versions; none for logs.
        record: the source files as they are kept with a version (JSON); none for a dataset.
        stream: the stream that an incremental run belongs to.
        counts: files new, seen, changed and gone; none for a dataset.
    """

    known_by: Sequence[Mapping[str, Any]]
    given: Sequence[Mapping[str, Any]] | Parent
    sources: Sequence[Mapping[str, Any]]
    licences: Mapping[str, int]
    parents: tuple[str, ...] = ()
    record: bytes | None = None
    stream: str | None = None
    counts: Mapping[str, int] | None = None

    def properties(self, home: str, run_id: str) -> dict[str, str]:
        """What a version says of it; the source files are written below `home`."""
        own = {"tilth.licences": json.dumps(self.licences, sort_keys=True)}
        if self.record is not None:
            own["tilth.sources_uri"] = f"{home}/sources/{run_id}.json"
            write_bytes(self.record, own["tilth.sources_uri"])
        return own if self.stream is None else {**own, "tilth.stream": self.stream}


def origin_of(name: str, recipe: Recipe, settings: Settings) -> Origin:
    """What settings name as the start of a recipe. Raises `ConfigError` when they name none, or the wrong kind."""
    if recipe.tables:
        return _dataset(name, recipe, settings)
    if settings.dataset:
        do = "leave out --from; name logs with --source"
        raise ConfigError(f"the recipe {name} reads logs, not a dataset", found=settings.dataset, do=do)
    if not settings.sources:
        raise ConfigError(
            "no source given", wanted="at least one URI", do="add --source, or `sources:` to tilth.yaml"
        )
    stream = stream_id(name, recipe, settings)
    listing = _listing(name, recipe, stream, settings)
    reads = listing.reads
    shown = {
        file["uri"]: {"source": file["uri"], "shape": read["shape"], "bytes": file["size_bytes"]}
        for read in reads
        for file in read["files"]
    }
    under = functools.partial(_licence, settings)
    licences = Counter(under(entry.uri) or UNDECLARED for entry in listing.entries)
    record = recorded(listing.entries, under)
    return Origin(
        reads, reads, list(shown.values()), licences, record=record, stream=stream, counts=listing.counts
    )


def stream_id(name: str, recipe: Recipe, settings: Settings) -> str | None:
    """The stream that a run belongs to; none unless it is incremental, and over logs."""
    if not settings.incremental or recipe.tables or not settings.sources:
        return None
    return stream_of(name, settings.sources, settings.format, settings.map)


def _listing(name: str, recipe: Recipe, stream: str | None, settings: Settings) -> Listing:
    def planned(files: Sequence[SourceFile]) -> list[dict[str, Any]]:
        return plan(files, settings.format, settings.map)

    seen = () if stream is None else _seen(name, recipe, stream, settings.workspace.rstrip("/"))
    files = present(settings.sources, seen)
    return next_listing(seen, files, planned, settings.on_deleted) if seen else first_listing(files, planned)


def _seen(name: str, recipe: Recipe, stream: str, workspace: str) -> tuple[Entry, ...]:
    """What the newest version of a stream has read."""
    with open_catalog(workspace) as catalog:
        for table in recipe.lineage:
            try:
                versions = catalog.versions(f"{name}.{table}")
            except NotFound:
                continue
            own = (one.properties for one in versions if one.properties.get("tilth.stream") == stream)
            return next((remembered(known["tilth.sources_uri"]) for known in own), ())
    return ()


def _licence(settings: Settings, uri: str) -> str | None:
    """The licence of a source file: that of the first pattern which it fits, else the one for all.

    Raises `ConfigError` for a licence that nobody knows.
    """
    fitting = (name for pattern, name in settings.licences.items() if fnmatch(uri, pattern))
    name = next(fitting, settings.licence)
    return None if name is None else licence(name).id


def _dataset(name: str, recipe: Recipe, settings: Settings) -> Origin:
    wanted = " or ".join(f"FAMILY.{table}" for table in recipe.tables)
    if not settings.dataset:
        do = f"add --from, for example --from observed.{recipe.tables[0]}"
        raise ConfigError(f"the recipe {name} reads a dataset of the catalog", wanted=wanted, do=do)
    if settings.sources:
        do = "leave out --source; `tilth run observed` makes datasets from logs"
        raise ConfigError(f"the recipe {name} reads a dataset, not logs", found=settings.sources[0], do=do)
    with open_catalog(settings.workspace.rstrip("/"), create=False) as catalog:
        version = catalog.resolve(settings.dataset)
        if version.table not in recipe.tables:
            do = "tilth catalog ls lists the datasets"
            raise ConfigError(f"a dataset for the recipe {name}", found=version.name, wanted=wanted, do=do)
        return _origin(catalog, version)


def _origin(catalog: Catalog, version: Version) -> Origin:
    release = catalog.release(version)
    named = f"{version.name}@{version.version}"
    tables = {one.table: tuple(_shard(uri) for uri in one.files) for one in release}
    size = sum(_size(uri) for uri in version.files)
    known = {"dataset": named, "run": version.properties.get("tilth.run_id", str(version.snapshot_id))}
    shown = {"source": named, "shape": version.table, "bytes": size}
    licences = json.loads(version.properties.get("tilth.licences", f'{{"{UNDECLARED}": 1}}'))
    return Origin([known], Parent(named, tables), [shown], licences, (named,))


def _shard(uri: str) -> Shard:
    """A committed part: it never changes, so its name stands for its content."""
    import pyarrow.parquet as pq

    with fsspec.open(uri, "rb") as file:
        return Shard(uri, pq.read_metadata(file).num_rows, uri.rpartition("/")[2])


def _size(uri: str) -> int:
    fs, path = fsspec.core.url_to_fs(uri)
    return int(fs.size(path) or 0)
