"""The cache of answers: content-addressed, durable within 50 ms, shared by hosts; it is also the run's journal."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import NoReturn, Self

from tilth.schemas import BadInput, ConfigError, NotFound, TilthError
from tilth.transforms.inference.cache_store import DAY_S, CacheStats, Group, Pruned, Store
from tilth.transforms.inference.requests import Completion
from tilth.transforms.inference.usage import Usage

__all__ = ["FLUSH_S", "CacheStats", "CompletionCache", "Pruned", "if_there"]

FLUSH_S = 0.05

# A commit begins long before the promise ends. 5, 10 and 25 ms ran 5,000 rows equally fast (B3), and what comes within
# one group is what a kill costs beside the calls in flight.
_GROUP_S = 0.005


class CompletionCache:
    """Answers by request key, and what each run has spent, in one SQL database (SQLite or PostgreSQL).

    One writer thread commits what was put in groups, at most `FLUSH_S` after the first of a group; `put` never waits
    for the disk, unless 50,000 answers are queued already. Safe to use from any thread, and for several processes on
    one database; each process opens its own.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        """Opens the database at an SQLAlchemy URL; makes it when it is not there, or raises `NotFound`.

        Raises `ConfigError` for a URL that cannot be used or a database that does not answer, and `MissingExtra`
        where the driver is not installed. No error holds the password.
        """
        self._pid = os.getpid()
        self._store = Store(url, create)
        self._writer = _Writer(self._store)
        # Runs when the cache is forgotten or the interpreter ends, so that an unclosed cache loses nothing.
        self._end = weakref.finalize(self, _end, self._pid, self._writer, self._store)

    def get_many(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that are there, by key; what was put a moment ago is among them."""
        self._check()
        _require_plain(*keys)
        # In this order: what is committed between the two looks is seen by the second.
        found = self._writer.queued(keys)
        stale, now = set[str](), int(time.time())
        for key, completion, used_at in self._store.read(keys):
            found[key] = completion
            if used_at < now - DAY_S:
                stale.add(key)
        if stale:
            self._writer.used(stale)
        return found

    def put(
        self, key: str, identity: str, completion: Completion, *, charge: tuple[str, Usage] | None = None
    ) -> None:
        """Stores an answer; the first answer under a key stays. Raises what the writer met, on the next call.

        `charge`: a run and what to add to its account, in the very commit that holds the answer.
        """
        self._check()
        _require_plain(key, identity)
        self._writer.add(key, identity, completion, charge)

    def charge(self, run: str, usage: Usage) -> None:
        """Adds to what a run has spent, in the commit of the answers put before it, or the one after.

        A process that dies between the two has stored answers that are not charged: to rule that out, give `put` the
        charge.
        """
        self._check()
        self._writer.charge(run, usage)

    def spent(self, run: str) -> Usage:
        """What a run has spent so far, over all of its sittings."""
        self.flush()
        return self._store.spent(run)

    def flush(self) -> None:
        """Returns when everything put and charged so far is committed. Raises what the writer met."""
        self._check()
        self._writer.flush()

    def stats(self) -> CacheStats:
        """What the cache holds, by model."""
        self.flush()
        return self._store.stats()

    def prune(
        self,
        older_than_s: float | None = None,
        identity: str | Collection[str] | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Pruned:
        """Removes answers for good and gives their space back; tells how many, and how large.

        Answers not used for `older_than_s` seconds go, and of the rest those used least recently until `max_bytes`
        are left. With an `identity`, only its answers are looked at, and all of them go when nothing else is asked.
        Accounts of runs stay. Raises `ConfigError` when nothing is asked.
        """
        if older_than_s is None and identity is None and max_bytes is None:
            wanted = "an age, a model or a size"
            raise ConfigError(
                "nothing says which answers to remove", wanted=wanted, do="add --older-than 30d"
            )
        self.flush()
        named = [identity] if isinstance(identity, str) else identity
        return self._store.prune(older_than_s, named, max_bytes, dry_run)

    @property
    def place(self) -> str:
        """Where it is, without user, password or options."""
        return self._store.shown

    def close(self) -> None:
        """Flushes and ends the writer. May be called twice."""
        if self._end.detach():
            _end(self._pid, self._writer, self._store)
            self._writer.check()

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise TilthError("the cache of answers was opened in another process", do="open one per process")
        if not self._end.alive:
            raise _closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except TilthError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # the first error is the one to be seen, and this one is not lost

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CompletionCache holds a thread and is never pickled: open one where it is used")

    def __repr__(self) -> str:
        return f"CompletionCache({self.place!r})"


def if_there(url: str) -> AbstractContextManager[CompletionCache | None]:
    """The cache at a URL for the time of a block; null where there is none yet. Raises what opening one raises else."""
    try:
        return CompletionCache(url, create=False)
    except NotFound:
        return nullcontext()


def _end(pid: int, writer: _Writer, store: Store) -> None:
    if pid == os.getpid():  # a fork has no writer, and may have its lock forever
        writer.stop()
        store.dispose()


def _require_plain(*names: str) -> None:
    for name in names:
        if (not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name)) or "\0" in name:
            raise BadInput(
                "a key or model of the cache of answers", wanted="text without NUL or lone surrogates"
            )


class _Writer:
    """The queue, and the thread that commits it in groups."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)  # the writer waits for it
        self._done = threading.Condition(self._lock)  # callers wait for it
        self._queue, self._writing = Group(), Group()
        self._number, self._committed = 1, 0  # of the group that is queueing, and of the last one committed
        self._hurried = 0  # up to this group, nobody waits for company
        self._stopping = False
        self._error: TilthError | None = None
        # A daemon: an interpreter that ends waits for `_end`, which runs later than its wait for other threads.
        self._thread = threading.Thread(target=self._run, name="tilth-cache", daemon=True)
        self._thread.start()

    def add(self, key: str, identity: str, completion: Completion, charge: tuple[str, Usage] | None) -> None:
        with self._lock:
            self._admit()
            if key not in self._queue.answers and key not in self._writing.answers:
                self._queue.answers[key] = identity, completion
                self._queue.chars += len(completion.text)
            if charge is not None:
                self._queue.charges.setdefault(charge[0], Usage()).add(charge[1])
            self._came()

    def charge(self, run: str, usage: Usage) -> None:
        with self._lock:
            self._admit()
            self._queue.charges.setdefault(run, Usage()).add(usage)
            self._came()

    def used(self, keys: set[str]) -> None:
        """Notes a use of these; when the queue is full the note is left to a later use."""
        with self._lock:
            if self._error is None and not self._queue.full:
                self._queue.used |= keys
                self._came()

    def queued(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers among these that are not committed yet."""
        with self._lock:
            self.check()
            first, second = self._writing.answers, self._queue.answers
            found = ((key, first.get(key) or second.get(key)) for key in keys)
            return {key: answer[1] for key, answer in found if answer is not None}

    def flush(self) -> None:
        with self._lock:
            target = self._number if self._queue else self._number - 1
            self._hurried = max(self._hurried, target)
            self._work.notify()
            while self._committed < target:
                self.check()
                self._done.wait()
            self.check()

    def stop(self) -> None:
        """Ends the thread once the queue is committed, or has failed."""
        with self._lock:
            self._stopping = True
            self._work.notify()
        # The garbage collector may run this on the thread itself.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def check(self) -> None:
        """Raises what the thread met."""
        if (error := self._error) is not None:
            raise type(error)(error.what, found=error.found, wanted=error.wanted, do=error.do)

    def _admit(self) -> None:
        self.check()
        while self._queue.full:
            self._done.wait()
            self.check()
        if self._stopping:  # closed by another thread: nobody would commit it
            raise _closed()

    def _came(self) -> None:
        if not self._queue:
            self._queue.began = time.monotonic()
            self._work.notify()
        elif self._queue.large:
            self._work.notify()

    def _run(self) -> None:
        try:
            while group := self._take():
                self._store.write(group)
                with self._lock:
                    self._writing = Group()
                    self._committed += 1
                    self._done.notify_all()
        except BaseException as error:  # whatever it is, the caller must hear of it
            self._fail(error if isinstance(error, TilthError) else _unexpected(error))

    def _fail(self, error: TilthError) -> None:
        with self._lock:
            self._error = error
            self._done.notify_all()

    def _take(self) -> Group | None:
        """Waits for the next group; null when there will be none."""
        with self._lock:
            while not self._queue and not self._stopping:
                self._work.wait()
            while (left := self._left_s()) > 0:
                self._work.wait(left)
            if not self._queue:
                return None
            self._writing, self._queue = self._queue, Group()
            self._number += 1
            self._done.notify_all()
            return self._writing

    def _left_s(self) -> float:
        queue = self._queue
        if not queue or self._stopping or queue.large or self._hurried >= self._number:
            return 0.0
        return queue.began + _GROUP_S - time.monotonic()


def _closed() -> TilthError:
    return TilthError("the cache of answers is closed", do="open it again")


def _unexpected(error: BaseException) -> TilthError:
    do = "report this: the writer met what it should have known"
    return TilthError("the cache of answers failed", found=type(error).__name__, do=do)
