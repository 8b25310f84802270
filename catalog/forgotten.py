"""The ledger of a workspace: whom it was asked to forget, so that later runs do not bring them back.

It holds salted hashes of users, ids of conversations and dates, and nothing that anybody wrote.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final  # Any: JSON values

from tilth.catalog.parts import read_json, write_whole
from tilth.schemas import NotFound

_LEDGER: Final = "catalog/forgotten.json"
_RECEIPTS: Final = "catalog/receipts"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Keys of users and ids of conversations, sorted."""

    users: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One request to forget.

    Args:
        receipt: the id of its receipt; no file has that name before the request was carried out.
        families: those that held something of it, so that a purge that was cut off knows where to go on.
    """

    receipt: str
    at: str
    users: tuple[str, ...] = ()
    conversations: tuple[str, ...] = ()
    families: tuple[str, ...] = ()

    @property
    def asked(self) -> Forgotten:
        """What was asked for."""
        return Forgotten(self.users, self.conversations)


def forgotten(workspace: str) -> Forgotten:
    """Everybody and everything that a workspace was asked to forget; runs leave it out of what they read."""
    known = entries(workspace)
    users = {user for entry in known for user in entry.users}
    conversations = {one for entry in known for one in entry.conversations}
    return Forgotten(tuple(sorted(users)), tuple(sorted(conversations)))


def entries(workspace: str) -> list[Entry]:
    """The requests of a workspace, the oldest first."""
    rows: list[dict[str, Any]] = read_json(f"{workspace.rstrip('/')}/{_LEDGER}") or []
    return [Entry(**{name: _plain(value) for name, value in row.items()}) for row in rows]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def cut_off(workspace: str, asked: Forgotten) -> Entry | None:
    """The request that is on the ledger and was not carried out to its end; null where there is none."""
    equal = (entry for entry in entries(workspace) if entry.asked == asked)
    return next((entry for entry in equal if receipt_of(workspace, entry.receipt) is None), None)


def entered(workspace: str, asked: Forgotten, families: Sequence[str]) -> Entry:
    """Puts a request on the ledger, or finds the equal one that has yet to be carried out; both know `families`."""
    known = entries(workspace)
    unfinished = cut_off(workspace, asked)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    before = unfinished or Entry(uuid.uuid4().hex[:16], at, asked.users, asked.conversations)
    entry = Entry(
        before.receipt,
        before.at,
        asked.users,
        asked.conversations,
        tuple(sorted({*before.families, *families})),
    )
    _write(workspace, [*(one for one in known if one.receipt != entry.receipt), entry])
    return entry


def withdrawn(workspace: str, receipt: str) -> Entry:
    """Takes a request off the ledger, with those that asked the same: later runs read what it named again.

    Raises `NotFound` for an unknown receipt.
    """
    known = entries(workspace)
    found = next((entry for entry in known if entry.receipt == receipt), None)
    if found is None:
        named = ", ".join(entry.receipt for entry in known[-5:]) or "none at all"
        raise NotFound(f"no request to forget with receipt {receipt}", found=named)
    _write(workspace, [entry for entry in known if entry.asked != found.asked])
    return found


def _write(workspace: str, known: Sequence[Entry]) -> None:
    data = json.dumps([asdict(entry) for entry in known], indent=1).encode()
    write_whole(data, f"{workspace.rstrip('/')}/{_LEDGER}")


def receipt_uri(workspace: str, receipt: str) -> str:
    """Where a receipt lies."""
    return f"{workspace.rstrip('/')}/{_RECEIPTS}/{receipt}.json"


def receipt_of(workspace: str, receipt: str) -> dict[str, Any] | None:
    """A receipt that was given; null before the request was carried out."""
    return read_json(receipt_uri(workspace, receipt))
