"""Sources: URIs, globs and directories become files, each with its size and a witness of its content.

Any protocol of fsspec works (local, ``s3://``, ``gs://``, ``hf://datasets/…``). Nothing is read here beyond what the
witness of a local file needs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import fsspec
import xxhash
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

from tilth.schemas import BadInput, MissingExtra, NotFound

CONTAINERS: Final[Mapping[str, str]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
"""What a file's suffix says of its container; the bytes have the last word (`tilth.transforms.ingest.containers`)."""

COMPRESSIONS: Final[Mapping[str, str]] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_EXTRAS: Final = {"s3": "tilth[s3]", "s3a": "tilth[s3]", "gs": "tilth[gcs]", "gcs": "tilth[gcs]"}
_WITNESS_KEYS: Final = ("ETag", "etag", "md5Hash", "blob_id", "oid", "sha256")
_MODIFIED_KEYS: Final = ("mtime", "LastModified", "last_modified", "updated", "created")
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source: where it is, how large, and a witness that changes when its content does."""

    uri: str
    source: str  # the URI, glob or directory that the user named
    size_bytes: int
    witness: str
    modified: str | None = field(
        default=None, compare=False
    )  # ISO 8601, where the store says; no part of what it holds

    @property
    def compression(self) -> str | None:
        """gzip, zstd, bz2 or None, by suffix."""
        return COMPRESSIONS.get(_suffix(self.uri))

    @property
    def container(self) -> str | None:
        """jsonl, json, csv, parquet, arrow or None, by suffix under the compression's."""
        return _container(self.uri)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: where it is and what it holds."""
        return {name: value for name, value in asdict(self).items() if name != "modified"}


Known = Mapping[tuple[str, int, str | None], str]
"""Witnesses of files that need not be read again, by URI, size and time of change."""


def expand(uris: Iterable[str], known: Known = MappingProxyType({})) -> list[SourceFile]:
    """The files that `uris` name, in the order given, those of a glob or a directory by name; none twice.

    A directory gives the files below it whose suffix is known, hidden ones left out. The witness of a local file is
    the xxh3-128 of its bytes, of another file what its store says of it (ETag, checksum); a local file of `known` is
    not read for it.

    Raises `NotFound` for what matches nothing, `MissingExtra` for a protocol whose package is not installed,
    `BadInput` for a protocol that nobody knows.
    """
    files: dict[str, SourceFile] = {}
    for source in uris:
        fs, path = filesystem(source)
        for found in _matches(fs, path, source):
            uri = _uri(fs, found, source)
            if uri not in files:
                files[uri] = _described(fs, found, uri, source, known)
    return list(files.values())


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of `uri` and its path there. Raises as `expand` does."""
    protocol = get_protocol(uri)
    try:
        return fsspec.core.url_to_fs(uri)
    except ImportError as error:
        install = f"pip install '{_EXTRAS[protocol]}'" if protocol in _EXTRAS else str(error)
        raise MissingExtra(
            f"reading {protocol}:// needs a package that is not installed", do=install
        ) from error
    except ValueError as error:
        known = "a local path, s3://, gs://, hf://datasets/… or another protocol of fsspec"
        raise BadInput(f"the source {uri!r}", found=f"protocol {protocol!r}", wanted=known) from error


def open_bytes(uri: str) -> Any:
    """A file at `uri`, open for reading bytes (Any: fsspec does not type its files)."""
    return fsspec.open(uri, "rb")


def _matches(fs: Any, path: str, source: str) -> list[str]:
    if any(letter in source for letter in "*?["):
        found = [] if fs.exists(path) else sorted(p for p in fs.glob(path) if fs.isfile(p))
        found = found or ([path] if fs.exists(path) else [])
    elif fs.isdir(path):
        found = sorted(p for p in fs.find(path) if _is_data(p.removeprefix(path)))
    else:
        found = [path] if fs.exists(path) else []
    if not found:
        raise _not_found(fs, path, source)
    return found


def _is_data(relative: str) -> bool:
    hidden = any(part.startswith((".", "_")) for part in relative.split("/"))
    return not hidden and _container(relative) is not None


def _not_found(fs: Any, path: str, source: str) -> NotFound:
    near = _nearest(fs, path)
    do = f"did you mean {near!r}?" if near else "check the path; a directory needs files with a known suffix"
    return NotFound(f"the source {source!r} names no file", wanted=f"one of {', '.join(CONTAINERS)}", do=do)


def _nearest(fs: Any, path: str) -> str | None:
    parent, _, name = path.rpartition("/")
    try:
        names = [entry.rstrip("/").rpartition("/")[2] for entry in fs.ls(parent, detail=False)]
    except (OSError, ValueError):
        return None
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def _uri(fs: Any, path: str, source: str) -> str:
    if "::" in source:
        return source
    if not isinstance(fs, LocalFileSystem) or "://" in source:
        return fs.unstrip_protocol(path)
    return path if Path(source).is_absolute() or source.startswith("~") else _relative(path)


def _relative(path: str) -> str:
    import os.path

    return os.path.relpath(path)


def _described(fs: Any, path: str, uri: str, source: str, known: Known) -> SourceFile:
    info = fs.info(path)
    size, modified = int(info.get("size") or 0), _modified(info)
    if isinstance(fs, LocalFileSystem):
        witness = known.get((uri, size, modified)) or f"xxh3-128:{_digest(path)}"
    else:
        named = next((f"{key.lower()}:{info[key]}" for key in _WITNESS_KEYS if info.get(key)), None)
        witness = named or f"ukey:{fs.ukey(path)}"
    return SourceFile(uri, source, size, witness, modified)


def _modified(info: Mapping[str, Any]) -> str | None:
    """When a file was last changed; stores name it differently."""
    when = next((info[key] for key in _MODIFIED_KEYS if info.get(key)), None)
    if isinstance(when, int | float):
        when = datetime.fromtimestamp(when, UTC)
    return when.isoformat() if isinstance(when, datetime) else when


def _digest(path: str) -> str:
    state = xxhash.xxh3_128()
    with Path(path).open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def _suffix(uri: str) -> str:
    return Path(uri.partition("::")[0]).suffix.lower()


def _container(uri: str) -> str | None:
    name = uri.partition("::")[0].lower()
    inner = name.removesuffix(_suffix(name)) if _suffix(name) in COMPRESSIONS else name
    return CONTAINERS.get(Path(inner).suffix)
