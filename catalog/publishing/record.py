"""What has been published where: kept in the warehouse, by run, so that it outlives a family's name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final, Self

import fsspec

from tilth.catalog.parts import write_whole
from tilth.catalog.publishing.plan import Plan
from tilth.catalog.publishing.shards import Bundle
from tilth.catalog.store import Catalog
from tilth.catalog.versions import Version

_PUBLICATIONS: Final = "_publications"  # no family has such a name


@dataclass(frozen=True, slots=True)
class Published:
    """One publication of one version."""

    status: str  # published | already published
    name: str  # family, or family.table
    version: str
    target: str  # a repository of the Hub, or a URI
    reference: str  # the tag, or the folder
    commit: str | None
    digest: str  # of the rows
    tables: dict[str, int]  # table -> rows
    files: int
    size_bytes: int
    left_out: int  # rows with personal data
    at: str  # ISO 8601, UTC

    @classmethod
    def of(cls, bundle: Bundle, status: str, target: str, *, reference: str, commit: str | None) -> Self:
        """What there is to say of a bundle that has arrived."""
        return cls(
            status=status,
            name=bundle.plan.name,
            version=bundle.plan.label,
            target=target,
            reference=reference,
            commit=commit,
            digest=bundle.digest,
            tables={config.version.table: sum(config.rows.values()) for config in bundle.configs},
            files=len(bundle.shards),
            size_bytes=sum(shard.size_bytes for shard in bundle.shards),
            left_out=sum(config.left_out for config in bundle.configs),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def remember(catalog: Catalog, plan: Plan, published: Published) -> None:
    """Records a publication; one that is recorded already keeps its date."""
    key = sha256(json.dumps([published.name, published.target, published.reference]).encode()).hexdigest()[
        :16
    ]
    uri = f"{_folder(catalog, plan.versions[0])}/{key}.json"
    fs, path = fsspec.core.url_to_fs(uri)
    if not fs.exists(path):  # one file a publication: no two publishers write the same one
        write_whole(json.dumps(asdict(published), indent=2).encode(), uri)


def publications(catalog: Catalog, name: str) -> list[Published]:
    """Where a version has been published, alone or with its family, oldest first.

    Raises `NotFound` for an unknown dataset or version.
    """
    version = catalog.resolve(name)
    fs, folder = fsspec.core.url_to_fs(_folder(catalog, version))
    paths: list[str] = fs.ls(folder, detail=False) if fs.exists(folder) else []
    found = [Published(**json.loads(fs.cat_file(path))) for path in paths if path.endswith(".json")]
    own = [one for one in found if version.table in one.tables]
    return sorted(own, key=lambda one: (one.at, one.target))


def _folder(catalog: Catalog, version: Version) -> str:
    return f"{catalog.warehouse}/{_PUBLICATIONS}/{version.properties['tilth.run_id']}"
