"""Collecting: what no version, no live run and no stream needs any more is deleted, once it is old enough."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple  # Any: what file systems tell of a file

import fsspec

from tilth.catalog.parts import plain
from tilth.catalog.store import Catalog, remove_file
from tilth.schemas import TilthError

_IN_FLIGHT: Final = timedelta(
    minutes=15
)  # a publish writes metadata before it commits, for two minutes at most
_STAGED: Final = re.compile(r"/data/run=(?P<run>[^/]+)/")
_KINDS: Final = ("data", "metadata", "audits", "sources", "checks")
_CHECKED: Final = re.compile(r"/(?P<family>[^/]+)/checks/[^/@]+@(?P<label>[^/]+)/[^/]+$")
_TIMES: Final = ("mtime", "LastModified", "last_modified", "updated", "created")  # by file system


class Count(NamedTuple):
    """How many files, and their bytes."""

    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What `collect` has deleted, or would delete.

    Args:
        versions: `family@version` of what expired. runs: ids of runs whose directories went. counts: by kind: data,
        metadata, audits, sources, checks, runs, other. uris: every file, sorted.
    """

    versions: tuple[str, ...]
    runs: tuple[str, ...]
    counts: Mapping[str, Count]
    uris: tuple[str, ...]
    dry_run: bool


class _File(NamedTuple):
    size_bytes: int
    modified: datetime


_Files = Mapping[str, _File]


def collect(
    catalog: Catalog,
    workspace: str,
    *,
    live: Callable[[str, str], bool],
    grace: timedelta = timedelta(days=1),
    dry_run: bool = False,
) -> Collected:
    """Expires versions dropped more than `grace` ago, then deletes files and run directories that nothing needs.

    Needed is what a version holds, dropped ones included until they expire; what a finished task of a stream has
    written (`<workspace>/streams/*/stages/*/done/*.json`); and all of a run that is live or has written anything within
    `grace`. Files younger than a quarter of an hour stay in any case: a publish may be about to name them. Versions
    that were dropped after a live run began stay too: it may be reading them.

    Args:
        live: whether some process is at work on a run of a workspace, `tilth.flows.locks.is_live`.

    Raises `TilthError` when a stream's manifest cannot be read: what it needs is then not known.
    """
    root, now = plain(workspace), datetime.now(UTC)
    files, runs = _listed(catalog.warehouse), _runs(root)
    busy = _busy(root, {**files, **_flat(runs)}, live, now - grace)
    due = _due(catalog, min([now - grace, *_begun(root, live)]))
    keep = _streamed(root)
    over = {run: own for run, own in runs.items() if run not in busy}
    spared = {uri for uri in files if _is_spared(catalog, uri, busy)}
    old = {uri for uri, file in files.items() if file.modified < now - max(grace, _IN_FLIGHT)}
    loose = old - spared - keep
    if dry_run:
        left = catalog.reachable(due)
        gone = (loose | (catalog.reachable() & files.keys()) - keep) - left
    else:
        over = {run: own for run, own in over.items() if _remove_run(root, run, own, live)}
        for family, labels in due.items():
            catalog.expire(family, labels, delete=False)
        gone = catalog.finish(keep) | catalog.sweep(loose, keep)
        _remove_empty(gone)
    sizes = {**files, **_flat(over)}
    uris = sorted({*(gone & files.keys()), *_flat(over)})
    versions = tuple(f"{family}@{label}" for family, labels in sorted(due.items()) for label in labels)
    return Collected(versions, tuple(sorted(over)), _counts(uris, sizes, root), tuple(uris), dry_run)


def _listed(place: str) -> dict[str, _File]:
    fs, path = fsspec.core.url_to_fs(place)
    found: dict[str, dict[str, Any]] = fs.find(path, detail=True)
    return {
        plain(fs.unstrip_protocol(name)): _File(info["size"], _modified(info)) for name, info in found.items()
    }


def _modified(info: Mapping[str, Any]) -> datetime:
    told = next((info[key] for key in _TIMES if info.get(key) is not None), None)
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    if isinstance(told, datetime):
        return told if told.tzinfo else told.replace(tzinfo=UTC)
    # A file system that tells no time: as if it were new, so that it stays.
    return datetime.now(UTC) if told is None else datetime.fromtimestamp(told, UTC)


def _runs(root: str) -> dict[str, dict[str, _File]]:
    """The files of each run directory. Lock files lie beside them and stay: another process may hold them."""
    home, found = f"{root}/runs/", dict[str, dict[str, _File]]()
    for uri, file in _listed(home).items():
        run, inside, _ = uri.removeprefix(home).partition("/")
        if inside:
            found.setdefault(run, {})[uri] = file
    return found


def _flat(runs: Mapping[str, _Files]) -> dict[str, _File]:
    return {uri: file for own in runs.values() for uri, file in own.items()}


def _busy(root: str, files: _Files, live: Callable[[str, str], bool], since: datetime) -> set[str]:
    """Runs that are live, or have written anything since."""
    home, latest = f"{root}/runs/", dict[str, datetime]()
    for uri, file in files.items():
        staged = _STAGED.search(uri)
        run = uri.removeprefix(home).partition("/")[0] if uri.startswith(home) else staged and staged["run"]
        if run:
            latest[run] = max(file.modified, latest.get(run, file.modified))
    return {run for run, at in latest.items() if at >= since or live(root, run)}


def _begun(root: str, live: Callable[[str, str], bool]) -> list[datetime]:
    """When each live run began."""
    locks = {uri: file for uri, file in _listed(f"{root}/runs").items() if uri.endswith(".lock")}
    names = {uri: uri.rpartition("/")[2].removesuffix(".lock") for uri in locks}
    return [file.modified for uri, file in locks.items() if live(root, names[uri])]


def _due(catalog: Catalog, before: datetime) -> dict[str, list[str]]:
    """The labels of each family that were dropped before some time."""
    dropped = {family: catalog.dropped(family) for family in catalog.families()}
    due = {family: [label for label, at in some.items() if at < before] for family, some in dropped.items()}
    return {family: labels for family, labels in due.items() if labels}


def _streamed(root: str) -> set[str]:
    """The parts that finished tasks of streams have written."""
    home = f"{root}/streams/"
    manifests = [uri for uri in _listed(home) if re.search(r"/stages/[^/]+/done/[^/]+\.json$", uri)]
    return {uri for manifest in manifests for uri in _outputs(manifest)}


def _outputs(manifest: str) -> list[str]:
    try:
        fs, path = fsspec.core.url_to_fs(manifest)
        outputs = json.loads(fs.cat_file(path))["outputs"]
        return [plain(part["uri"]) for parts in outputs.values() for part in parts]
    except FileNotFoundError:  # removed since it was listed
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        what = f"the manifest {manifest} of a stream"
        raise TilthError(what, found="not what a stage writes", do="remove it; its task runs again") from None


def _is_spared(catalog: Catalog, uri: str, busy: Collection[str]) -> bool:
    """Whether a file of the warehouse belongs to a run that goes on, or to a version without being named by it."""
    if staged := _STAGED.search(uri):
        return staged["run"] in busy
    if checked := _CHECKED.search(uri):
        return catalog.has(checked["family"], checked["label"])
    return uri.rpartition("/")[2].partition(".")[0] in busy


def _remove_run(root: str, run: str, own: _Files, live: Callable[[str, str], bool]) -> bool:
    if live(root, run):  # it has begun to go on since the look
        return False
    fs, path = fsspec.core.url_to_fs(f"{root}/runs/{run}")
    # What says that work is done goes before the work.
    for uri in sorted(own, key=lambda uri: "/done/" not in uri):
        remove_file(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)
    return True


def _remove_empty(uris: Collection[str]) -> None:
    """Removes the directories of runs that have no part any more; object stores have none."""
    for directory in sorted({uri.rpartition("/")[0] for uri in uris if _STAGED.search(uri)}):
        fs, path = fsspec.core.url_to_fs(directory)
        if fs.isdir(path) and not fs.ls(path):
            fs.rmdir(path)


def _counts(uris: Collection[str], sizes: _Files, root: str) -> dict[str, Count]:
    counted: dict[str, Count] = {}
    for uri in uris:
        kind = _kind(uri, root)
        count = counted.get(kind, Count(0, 0))
        counted[kind] = Count(count.files + 1, count.size_bytes + sizes[uri].size_bytes)
    return dict(sorted(counted.items()))


def _kind(uri: str, root: str) -> str:
    if uri.startswith(f"{root}/runs/"):
        return "runs"
    parts = uri.split("/")[:-1]
    return next((part for part in reversed(parts) if part in _KINDS), "other")
