"""The cache of answers: content-addressed, durable within 50 ms, shared by hosts; it is also the run's journal."""

from __future__ import annotations

from collections.abc import Sequence

from tilth.transforms.inference.requests import Completion
from tilth.transforms.inference.usage import Usage

FLUSH_S = 0.05


class CompletionCache:
    """Answers by request key, and what each run has spent, in one SQL database (SQLite or PostgreSQL).

    One writer thread commits what was put in groups, at most `FLUSH_S` after the first of a group; `put` never waits
    for the disk. Safe to use from any thread, and for several processes on one database.
    """

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    def get_many(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that are there, by key; what was put a moment ago is among them."""
        raise NotImplementedError

    def put(self, key: str, identity: str, completion: Completion) -> None:
        """Stores an answer; the first answer under a key stays. Raises what the writer met, on the next call."""
        raise NotImplementedError

    def charge(self, run: str, usage: Usage) -> None:
        """Adds to what a run has spent, in the same commit as the answers put before it."""
        raise NotImplementedError

    def spent(self, run: str) -> Usage:
        """What a run has spent so far, over all of its sittings."""
        raise NotImplementedError

    def flush(self) -> None:
        """Returns when everything put and charged so far is committed. Raises what the writer met."""
        raise NotImplementedError

    def close(self) -> None:
        """Flushes and ends the writer. May be called twice."""
        raise NotImplementedError
