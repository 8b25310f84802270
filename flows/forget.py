"""`tilth catalog forget`: takes users and conversations out of a workspace, and gives a receipt."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final  # Any: JSON values

import fsspec

from tilth.catalog import Catalog, open_catalog
from tilth.catalog.forget import Plan, carry_out, expired, plan, stray_files
from tilth.catalog.forgotten import (
    Entry,
    Forgotten,
    cut_off,
    entered,
    entries,
    forgotten,
    receipt_uri,
    withdrawn,
)
from tilth.catalog.parts import write_whole
from tilth.flows.check import own_suites
from tilth.flows.locks import held, is_live, is_stream_live
from tilth.flows.settings import Settings
from tilth.schemas import BadInput, TilthError
from tilth.transforms.inference.cache import if_there
from tilth.transforms.ingest import Ingest, leave_out
from tilth.transforms.ingest.fields import user_key
from tilth.transforms.stage import Manifest, Stage

_ID: Final = re.compile(r"[0-9a-f]{32}")
_OURS: Final = ("catalog", "runs", "streams", "cache", "rates", "expectations")
_LISTED: Final = 50
_ELSEWHERE: Final[tuple[str, ...]] = (
    "the logs themselves",
    "exports, published copies and review files outside the workspace",
    "models that were trained on the rows",
)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked; one of the first three.

    Args:
        user: the id of a user as logs have it; only its hash with the salt of the settings is kept.
        key: the hash that stands for a user in column `user_key`.
        conversation: the id of a conversation, as in table `conversations`.
        purge: also remove every version that holds something of it, and what runs have left.
        keep_answers: leave the cache of answers as it is.
    """

    user: str | None = None
    key: str | None = None
    conversation: str | None = None
    purge: bool = False
    keep_answers: bool = False

    def meant(self, salt: str) -> Forgotten:
        """The request in hashes. Raises `BadInput`, which does not repeat what was given."""
        given = [one for one in (self.user, self.key, self.conversation) if one is not None]
        if len(given) != 1:
            wanted = "one of --user-id, --user-key, --conversation-id"
            raise BadInput("whom to forget", found=f"{len(given)} of them", wanted=wanted)
        if self.user is not None:
            return Forgotten(users=(user_key(self.user, salt),))
        if not _ID.fullmatch(given[0]):
            found, wanted = "something else", "32 hexadecimal digits, as the tables have it"
            raise BadInput(
                "a key or an id", found=found, wanted=wanted, do="ids as logs have them: --user-id"
            )
        return Forgotten((self.key,) if self.key else (), (self.conversation,) if self.conversation else ())


def forget(settings: Settings, request: Request, *, dry_run: bool = False) -> dict[str, Any]:
    """Does what is asked, or with `dry_run` says what would be done; gives the receipt.

    Killed at any moment, the same call again completes it. Raises `ChecksFailed` when a new version would not pass
    its audit, and `TilthError` for a purge while a run is at work; nothing was published or deleted then.
    """
    workspace = settings.workspace.rstrip("/")
    asked = request.meant(settings.user_salt.get_secret_value())
    with open_catalog(workspace, create=False) as catalog:
        if dry_run:
            planned = plan(catalog, asked, purge=request.purge)
            return _receipt(request, planned, None, "forecast") | {
                "not_searched": _not_searched(settings, request)
            }
        with held(f"{workspace}/catalog/forget.lock"):
            return _forget(settings, catalog, asked, request)


def _forget(settings: Settings, catalog: Catalog, asked: Forgotten, request: Request) -> dict[str, Any]:
    workspace = settings.workspace.rstrip("/")
    if request.purge:
        _refuse_live(workspace)
    planned = plan(catalog, asked, purge=request.purge)
    on_ledger = any(entry.asked == asked for entry in entries(workspace))
    if on_ledger and not planned.changes and not planned.holding and not cut_off(workspace, asked):
        return _receipt(request, planned, None, "nothing to do")
    entry = entered(workspace, asked, planned.families)
    made = carry_out(catalog, planned, entry.receipt, own_suites(workspace))
    receipt = _receipt(request, planned, entry, "forgotten")
    receipt["versions_made"] = [
        {"from": f"{family}@{label}", "to": f"{versions[0].family}@{versions[0].version}"}
        for (family, label), versions in made.items()
    ]
    if request.purge:
        receipt |= _purged(settings, catalog, planned, entry, request.keep_answers)
    receipt["not_searched"] = _not_searched(settings, request)
    write_whole(json.dumps(receipt, indent=2).encode(), receipt_uri(workspace, entry.receipt))
    return receipt


def _receipt(request: Request, planned: Plan, entry: Entry | None, status: str) -> dict[str, Any]:
    """What is known before anything is deleted. Holds hashes, names and counts."""
    newest = {change.held.family: change for change in planned.changes}
    return {
        "receipt": entry.receipt if entry else None,
        "status": status,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "asked": {"users": list(planned.asked.users), "conversations": list(planned.asked.conversations)},
        "purge": request.purge,
        "conversations": len(planned.found),
        "rows_removed": {
            f"{family}.{table}": count
            for family, change in sorted(newest.items())
            for table, count in change.rows.items()
        },
        "payloads_cleared": sum(change.cleared for change in newest.values()),
        "versions_made": [
            {"from": f"{change.held.family}@{change.held.label}", "to": None} for change in planned.changes
        ],
        "versions_expired": [
            f"{family}@{label}" for family, labels in planned.holding.items() for label in labels
        ],
        "files_deleted": 0,
        "folders_deleted": 0,
        "answers_deleted": 0,
        "not_searched": [],
    }


def undo(workspace: str, receipt: str) -> dict[str, Any]:
    """Takes a request off the ledger, so that later runs read its logs again. Brings no row back."""
    with held(f"{workspace}/catalog/forget.lock"):
        entry = withdrawn(workspace, receipt)
    asked = {"users": list(entry.users), "conversations": list(entry.conversations)}
    return {"receipt": receipt, "status": "taken off the ledger", "asked": asked}


# Purge


def _refuse_live(workspace: str) -> None:
    live = [
        *(name for name in _names(f"{workspace}/runs", ".lock") if is_live(workspace, name)),
        *(name for name in _names(f"{workspace}/streams", ".lock") if is_stream_live(workspace, name)),
    ]
    if live:
        raise TilthError(
            "a purge while runs are at work: they hold what it would delete",
            found=", ".join(sorted(live)[:5]),
            do="wait until they end, or stop them",
        )


def _purged(
    settings: Settings, catalog: Catalog, planned: Plan, entry: Entry, keep_answers: bool
) -> dict[str, Any]:
    """Removes the versions that hold something, and what else may; gives what the receipt says of it."""
    if not entry.families:
        return {}
    workspace, families = settings.workspace.rstrip("/"), entry.families
    strays = stray_files(catalog, families)
    folders = list(_run_folders(workspace, catalog, families))
    streams = list(_stream_folders(workspace, catalog, families))
    gone_for_all = forgotten(workspace)
    for stream in streams:  # what was read of files that may be gone stays, without them
        folders += [one for one in _subfolders(f"{stream}/stages") if not one.endswith("/ingest")]
        family = stream.rpartition("/")[2].rpartition("-")[0]
        places = {"quarantine": catalog.staging(family, "quarantine", f"forget-{entry.receipt}")}
        stage = Stage(Ingest(), f"{stream}/stages/ingest", places)
        leave_out(stage, gone_for_all.users, gone_for_all.conversations)
    for folder in folders:
        fs, path = fsspec.core.url_to_fs(folder)
        fs.rm(path, recursive=True)
    needed = _read_by(streams)
    gone = expired(catalog, planned.holding, needed) | catalog.sweep(strays, needed)
    answers = 0 if keep_answers else _answers_deleted(settings)
    return {"files_deleted": len(gone), "folders_deleted": len(folders), "answers_deleted": answers}


def _run_folders(workspace: str, catalog: Catalog, families: Collection[str]) -> Iterator[str]:
    """Folders of runs, but for those that are known to have made other families."""
    others = [name for name in catalog.datasets() if name.partition(".")[0] not in families]
    runs = {version.properties.get("tilth.run_id") for name in others for version in catalog.versions(name)}
    for name in _names(f"{workspace}/runs"):
        if name not in runs:
            yield f"{workspace}/runs/{name}"


def _stream_folders(workspace: str, catalog: Catalog, families: Collection[str]) -> Iterator[str]:
    """Folders of streams, but for those of other families; a stream is called after its recipe."""
    others = {family for family in catalog.families() if family not in families}
    for name in _names(f"{workspace}/streams"):
        if name.rpartition("-")[0] not in others:
            yield f"{workspace}/streams/{name}"


def _subfolders(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in _names(folder)]


def _read_by(streams: Collection[str]) -> set[str]:
    """Parts of tables that streams would publish again: rows of source files that were set aside as they were read."""
    found: set[str] = set()
    for stream in streams:
        fs, folder = fsspec.core.url_to_fs(f"{stream}/stages/ingest/done")
        for path in fs.glob(f"{folder}/*.json"):
            made = Manifest.from_json(fs.cat_file(path))
            found |= {shard.uri for shard in made.outputs.get("quarantine", [])}
    return found


def _names(folder: str, ending: str = "") -> list[str]:
    """The folders in a folder, or the files with an ending, without it."""
    fs, path = fsspec.core.url_to_fs(folder)
    if not fs.exists(path):
        return []
    kind = "file" if ending else "directory"
    found = [
        one["name"].rstrip("/").rpartition("/")[2] for one in fs.ls(path, detail=True) if one["type"] == kind
    ]
    return sorted(name.removesuffix(ending) for name in found if name.endswith(ending))


def _answers_deleted(settings: Settings) -> int:
    """Deletes the answers of the workspace's own cache: which of them quote whom is not recorded."""
    if settings.cache_url.get_secret_value() or "://" in settings.workspace:
        return 0
    with if_there(settings.answers_url()) as cache:
        return cache.prune(max_bytes=0).rows if cache else 0


def _not_searched(settings: Settings, request: Request) -> list[str]:
    """What may hold something of it, and was not looked at."""
    found: list[str] = [*_ELSEWHERE]
    if settings.cache_url.get_secret_value():
        found.append("the cache of answers that the settings name")
    elif not request.purge or request.keep_answers:
        found.append("the cache of answers of this workspace")
    if not request.purge:
        found.append("earlier versions, which hold it still; --purge removes them")
        found.append("what runs have left in the workspace")
    return [*found, *_files_of_people(settings.workspace.rstrip("/"))]


def _files_of_people(workspace: str) -> list[str]:
    """Files that lie in the workspace and that no run put there."""
    fs, path = fsspec.core.url_to_fs(workspace)
    ours = tuple(f"{path}/{name}/" for name in _OURS)
    found = [one.removeprefix(f"{path}/") for one in fs.find(path) if not one.startswith(ours)]
    more = [f"and {len(found) - _LISTED} files more"] if len(found) > _LISTED else []
    return [*found[:_LISTED], *more]


# What a person sees


def print_receipt(told: Mapping[str, Any]) -> None:
    """A receipt for people."""
    from tilth.flows.show import print_rows

    asked = [*told["asked"]["users"], *told["asked"]["conversations"]]
    facts: dict[str, Any] = {"asked": ", ".join(asked), "status": told["status"]}
    if told["receipt"]:
        facts["receipt"] = told["receipt"]
    names = ("conversations", "payloads_cleared", "files_deleted", "folders_deleted", "answers_deleted")
    facts |= {name.replace("_", " "): told[name] for name in names if name in told}
    print_rows([{"": name, "what": str(value)} for name, value in facts.items()], "")
    if "rows_removed" not in told:
        return
    rows = [{"dataset": name, "rows": count} for name, count in told["rows_removed"].items()]
    print_rows(rows, "no row of a latest version rests on it", "rows removed")
    _print_list(told["versions_made"], "versions made")
    _print_list([{"version": name} for name in told["versions_expired"]], "versions removed for good")
    _print_list([{"": name} for name in told["not_searched"]], "not searched")


def _print_list(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    from tilth.flows.show import print_rows

    if rows:
        print_rows(rows, "", title)
