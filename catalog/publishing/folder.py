"""A publication in a folder of any fsspec file system: whoever reads the manifest never sees half of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final  # Any: fsspec's file systems are not typed

import fsspec

from tilth.catalog.parts import plain, write_whole
from tilth.catalog.publishing.card import Card
from tilth.catalog.publishing.hub import Report, is_shard, silent
from tilth.catalog.publishing.record import Published
from tilth.catalog.publishing.shards import Bundle, Config, Shard
from tilth.schemas import ConfigError

MANIFEST: Final = "manifest.json"
_CHUNK: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Folder:
    """A place for publications: `<uri>/<name>/<version>/<config>/<split>-….parquet`, README.md and manifest.json."""

    uri: str
    code_version: str

    def place(self, bundle: Bundle) -> str:
        """The folder of this bundle."""
        return f"{plain(self.uri)}/{bundle.plan.name}/{bundle.plan.label}"

    def card(self, bundle: Bundle) -> Card:
        """The card of this bundle here."""
        opening = 'folder = "."  # where this file is'
        return Card(bundle, self.code_version, bundle.plan.name, _load, opening)

    def publish(self, bundle: Bundle, report: Report = silent) -> Published:
        """Puts the files where they are not yet, and the manifest with their digests last, in one move.

        The same bundle again changes nothing. Raises `ConfigError` when other rows are published there.
        """
        place = self.place(bundle)
        fs, root = fsspec.core.url_to_fs(place)
        there = _manifest(fs, root)
        if there is None:
            self._put(fs, root, bundle, report)
            write_whole(json.dumps(manifest(bundle), indent=2).encode(), f"{place}/{MANIFEST}")
        elif there["digest"] != bundle.digest:
            do = "publish a new version, or remove that folder by hand"
            raise ConfigError(place, found=there["digest"], wanted=bundle.digest, do=do)
        status = "already published" if there else "published"
        return Published.of(bundle, status, self.uri, reference=place, commit=None)

    def _put(self, fs: Any, root: str, bundle: Bundle, report: Report) -> None:
        total = sum(shard.size_bytes for shard in bundle.shards)
        done = 0
        for shard in bundle.shards:
            report(done, total)
            path = f"{root}/{shard.path}"
            if not _equal(fs, path, shard):
                fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                fs.put_file(str(shard.local), path)
            done += shard.size_bytes
        report(done, total)
        _remove_stale(fs, root, bundle)
        fs.pipe_file(f"{root}/README.md", self.card(bundle).readme().encode())


def manifest(bundle: Bundle) -> dict[str, Any]:
    """What a folder says it holds: the digest of the rows, and every file with its rows, size and SHA-256."""
    files = [
        {
            "path": one.path,
            "split": one.split,
            "rows": one.rows,
            "size_bytes": one.size_bytes,
            "sha256": one.sha256,
        }
        for one in bundle.shards
    ]
    terms = bundle.plan.terms.licence
    return {
        "name": bundle.plan.name,
        "version": bundle.plan.label,
        "digest": bundle.digest,
        "licence": terms.id if terms else None,
        "files": files,
    }


def _load(config: Config) -> str:
    files = ", ".join(f'"{split}": f"{{folder}}/{config.name}/{split}-*.parquet"' for split in config.rows)
    return f'load_dataset("parquet", data_files={{{files}}})'


def _manifest(fs: Any, root: str) -> dict[str, Any] | None:
    try:
        return json.loads(fs.cat_file(f"{root}/{MANIFEST}"))
    except FileNotFoundError:
        return None


def _equal(fs: Any, path: str, shard: Shard) -> bool:
    """Whether the file is there whole, from an attempt that was interrupted."""
    if not fs.exists(path) or fs.size(path) != shard.size_bytes:
        return False
    digest = hashlib.sha256()
    with fs.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == shard.sha256


def _remove_stale(fs: Any, root: str, bundle: Bundle) -> None:
    """Shards of an interrupted attempt with other options, which a reader by pattern would take for ours."""
    own = {shard.path for shard in bundle.shards}
    for path in fs.find(root):
        below = path.removeprefix(root).lstrip("/")
        if below not in own and is_shard(below, bundle):
            fs.rm_file(path)
