"""What a run starts from: logs, planned as reads, or a dataset of the catalog with the tables published beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any  # Any: planned reads, JSON values

import fsspec

from tilth.catalog import Catalog, Version, open_catalog
from tilth.pipelines.release import Parent
from tilth.schemas import ConfigError
from tilth.transforms.ingest import expand, plan
from tilth.transforms.parts import Shard

if TYPE_CHECKING:
    from tilth.flows.recipes import Recipe
    from tilth.flows.settings import Settings


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run starts from.

    Args:
        known_by: what the run's identity holds of it: the reads, or dataset, version and the run that made it.
        given: what the recipe is handed: the reads, or a `Parent`.
        sources: what is read, a row each with its `source`, `shape` and `bytes`.
        parents: the datasets with their versions; none for logs.
    """

    known_by: Sequence[Mapping[str, Any]]
    given: Sequence[Mapping[str, Any]] | Parent
    sources: Sequence[Mapping[str, Any]]
    parents: tuple[str, ...] = ()


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
    reads = plan(expand(settings.sources), settings.format, settings.map)
    files = {
        file["uri"]: {"source": file["uri"], "shape": read["shape"], "bytes": file["size_bytes"]}
        for read in reads
        for file in read["files"]
    }
    return Origin(reads, reads, list(files.values()))


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
    return Origin(
        [known], Parent(named, tables), [{"source": named, "shape": version.table, "bytes": size}], (named,)
    )


def _shard(uri: str) -> Shard:
    """A committed part: it never changes, so its name stands for its content."""
    import pyarrow.parquet as pq

    with fsspec.open(uri, "rb") as file:
        return Shard(uri, pq.read_metadata(file).num_rows, uri.rpartition("/")[2])


def _size(uri: str) -> int:
    fs, path = fsspec.core.url_to_fs(uri)
    return int(fs.size(path) or 0)
