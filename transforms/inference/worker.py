"""The worker: one window of requests in flight, from one job to the next without a pause, rows settled as they finish.

    jobs -> requests -> cache? -> gate -> engine -> fits? -> cache -> settled; a job whose rows are all settled is done

No barrier anywhere: while a job waits for its slowest rows, rows of the next are in flight. A row that fails is one
failure with a reason; a worker stops early only when going on cannot help (`EngineFailed`) or must not (`CapReached`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tilth.transforms.inference.calling import Caller, Failure, Outcome, Patience
from tilth.transforms.inference.engines import Engine
from tilth.transforms.inference.failures import CapReached, EngineFailed
from tilth.transforms.inference.requests import Completion, Request, request_key
from tilth.transforms.inference.usage import Caps, Prices, Usage
from tilth.transforms.inference.window import Interval, Window, WindowConfig, WindowPolicy

if TYPE_CHECKING:  # settings name `WorkerConfig`; SQLAlchemy is loaded where a cache is opened
    from tilth.transforms.inference.cache import CompletionCache

_TELL_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How hard to push, how long to try and when to give up. Nothing here changes what an answer is."""

    window: WindowConfig = field(default_factory=WindowConfig)
    patience: Patience = field(default_factory=Patience)
    max_failure_share: float = 0.5  # of asked rows; above it the run stops
    min_failures: int = 25  # before the share is looked at


class Job(Protocol):
    """Requests that belong together, such as one shard."""

    def requests(self) -> Sequence[Request]:
        """Reads them. Called once, in a thread."""
        ...

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Told all outcomes, in the order of the requests. Called once, in a thread."""
        ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a worker is doing: what it used in this sitting, and the flow."""

    usage: Usage
    seconds: float
    in_flight: int
    window: int
    mean_in_flight: float


@dataclass(frozen=True, slots=True)
class Account:
    """Whose money is spent: the run, what tokens cost, and where to stop."""

    run: str
    prices: Prices = field(default_factory=Prices)
    caps: Caps = field(default_factory=Caps)


class _Open:
    """A job with rows that are not settled."""

    def __init__(self, job: Job, requests: Sequence[Request], keys: Sequence[str]) -> None:
        self.job, self.requests, self.keys = job, requests, keys
        self.outcomes: dict[int, Outcome] = {}


_Place = tuple[_Open, int]
_Found = asyncio.Task[tuple[_Open, dict[str, Completion]] | None]


class Worker:
    """Answers jobs through one engine and one cache. Runs in one event loop; used for one `run`."""

    def __init__(
        self, engine: Engine, cache: CompletionCache, identity: str, config: WorkerConfig, account: Account
    ) -> None:
        self._engine, self._cache, self._identity = engine, cache, identity
        self._config, self._account = config, account
        self._policy = WindowPolicy(config.window)
        self._window = Window(self._policy.limit)
        self._usage, self._charged = Usage(), Usage()
        self._caller = Caller(engine, self._window, config.patience, self._usage, self._permit)
        self._spent_before = cache.spent(account.run)
        self._capped = account.caps != Caps()  # asked for every call, and mostly nobody set one
        self._flying: dict[str, list[_Place]] = {}  # by key: the places that wait for it; the first one asked
        # Answers since the last two look-ups: what a look-up could not see yet and is not in flight any more.
        self._recent: dict[str, Completion] = {}
        self._older: dict[str, Completion] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop: BaseException | None = None
        self._causes: Counter[str] = Counter()
        self._started = time.monotonic()

    async def run(self, jobs: Iterable[Job], tell: Callable[[Snapshot], None] | None = None) -> Usage:
        """Answers all jobs and returns what this sitting used.

        `tell` is called about twice a second. Raises `EngineFailed`, `CapReached`, or what a job raised; rows that
        were finished by then are in the cache.
        """
        waiting = iter(jobs)
        self._ahead = self._look_ahead(waiting)  # read while the engine starts
        follower: asyncio.Task[None] | None = None
        try:
            await self._engine.start()
            self._started = time.monotonic()
            follower = asyncio.create_task(self._follow(tell))
            await self._admit_all(waiting)
            await self._drain()
        finally:
            if follower is not None:
                follower.cancel()
            await asyncio.wait([self._ahead])
            self._ahead.exception()  # told already, if it was to be told
            await self._cancel_calls()
            await self._engine.close()
            await asyncio.to_thread(self._settle_account)
        if self._stop is not None:
            raise self._stop
        return self._usage

    def snapshot(self) -> Snapshot:
        """What is going on now."""
        now, window = time.monotonic(), self._window
        seconds = now - self._started
        return Snapshot(self._usage, seconds, window.in_flight, window.limit, window.mean_in_flight(now))

    # Admission: jobs in their order, one being read while another is asked.

    async def _admit_all(self, jobs: Iterator[Job]) -> None:
        while (found := await self._ahead) is not None and self._stop is None:
            self._ahead = self._look_ahead(jobs)
            await self._admit(*found)

    def _look_ahead(self, jobs: Iterator[Job]) -> _Found:
        self._older, self._recent = self._recent, {}
        return asyncio.create_task(asyncio.to_thread(self._prepare, jobs))

    def _prepare(self, jobs: Iterator[Job]) -> tuple[_Open, dict[str, Completion]] | None:
        job = next(jobs, None)
        if job is None:
            return None
        requests = job.requests()
        keys = [request_key(request, self._identity) for request in requests]
        return _Open(job, requests, keys), self._cache.get_many(keys)

    async def _admit(self, opened: _Open, known: dict[str, Completion]) -> None:
        if not opened.requests:
            self._finish(opened)
        for index, key in enumerate(opened.keys):
            if (hit := known.get(key)) is not None:
                self._usage.hits += 1
                self._settle((opened, index), hit)
            elif not self._share((opened, index), key):
                await self._window.acquire()
                if self._share((opened, index), key):  # answered while we stood at the gate
                    self._window.release()
                elif not self._launch((opened, index), key):
                    self._window.release()
                    return

    def _launch(self, place: _Place, key: str) -> bool:
        """Sends a row on its way; not when the worker has stopped or a cap is reached."""
        try:
            self._permit()
        except CapReached as reached:
            self._stop = self._stop or reached
        if self._stop is not None:
            return False
        opened, index = place
        self._flying[key] = [place]
        self._spawn(self._ask(opened.requests[index], key))
        return True

    def _share(self, place: _Place, key: str) -> bool:
        """Whether an equal request of this sitting answers this row too."""
        if (flying := self._flying.get(key)) is not None:
            flying.append(place)
        elif (answer := self._recent.get(key) or self._older.get(key)) is not None:
            self._settle(place, answer)
        else:
            return False
        self._usage.shared += 1
        return True

    def _permit(self) -> None:
        """Counts a call that is about to be made. Raises `CapReached` when it must not be."""
        if self._capped:
            spent = self._spent_before.copy()
            spent.add(self._usage)
            self._account.caps.check(spent, self._account.prices)
        self._usage.calls += 1

    # Answers

    async def _ask(self, request: Request, key: str) -> None:
        try:
            outcome = await self._caller.answer(request)
            if isinstance(outcome, Failure):
                self._note_failure(outcome)
            else:
                self._cache.put(key, self._identity, outcome, charge=(self._account.run, self._uncharged()))
                self._recent[key] = outcome
        except CapReached as reached:
            self._stop = self._stop or reached  # what is in flight is paid for: it may finish
            return
        except Exception as error:
            self._halt(error)
            return
        for place in self._flying.pop(key):
            self._settle(place, outcome)

    def _note_failure(self, failure: Failure) -> None:
        self._causes[f"{failure.reason} ({failure.detail})"] += 1
        failed, config = self._causes.total(), self._config
        share = failed / (failed + self._caller.answered)
        if failed >= config.min_failures and share > config.max_failure_share:
            cause, count = self._causes.most_common(1)[0]
            raise EngineFailed(
                f"{failed} of the first {failed + self._caller.answered} requests failed",
                found=f"{count} times {cause}",
                wanted=f"at most a share of {config.max_failure_share:g}",
                do="mend the cause and run again: finished rows are kept; or raise worker.max_failure_share",
            )

    def _settle(self, place: _Place, outcome: Outcome) -> None:
        opened, index = place
        opened.outcomes[index] = outcome
        self._usage.rows += 1
        if isinstance(outcome, Failure):
            failures = self._usage.failures
            failures[outcome.reason.value] = failures.get(outcome.reason.value, 0) + 1
        if len(opened.outcomes) == len(opened.requests):
            self._finish(opened)

    def _finish(self, opened: _Open) -> None:
        outcomes = [opened.outcomes[index] for index in range(len(opened.requests))]
        self._spawn(self._finish_job(opened.job, outcomes))

    async def _finish_job(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        try:
            await asyncio.to_thread(job.finish, outcomes)
        except Exception as error:
            self._halt(error)

    # The end

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _halt(self, error: BaseException) -> None:
        """Stops at once: nothing more is admitted, calls in flight are dropped."""
        if self._stop is None or isinstance(self._stop, CapReached):
            self._stop = error
        self._window.limit = self._config.window.maximum  # wakes whoever stands at the gate
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()

    async def _drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _cancel_calls(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._drain()

    # The flow

    async def _follow(self, tell: Callable[[Snapshot], None] | None) -> None:
        told = 0.0
        while True:
            started = time.monotonic()
            await asyncio.sleep(self._policy.interval_s)
            try:
                await self._decide(started)
                self._charge()  # also for rows that had no answer
                if tell is not None and time.monotonic() - told >= _TELL_S:
                    told = time.monotonic()
                    tell(self.snapshot())
            except Exception as error:
                self._halt(error)
                return

    async def _decide(self, started: float) -> None:
        load = await self._engine.load()
        pulse, caller = self._caller.pulse, self._caller
        caller.pulse = type(pulse)()
        mean = pulse.latency_s / pulse.finished if pulse.finished else 0.0
        seconds, full = time.monotonic() - started, self._window.take_full()
        self._window.limit = self._policy.observe(
            Interval(seconds, pulse.finished, pulse.throttled, mean, full, load)
        )

    def _uncharged(self) -> Usage:
        """What was used since the last time; to be charged in one commit with the answer it was used for."""
        delta = self._usage.minus(self._charged)
        self._charged = self._usage.copy()
        return delta

    def _charge(self) -> None:
        if (delta := self._uncharged()) != Usage():
            self._cache.charge(self._account.run, delta)

    def _settle_account(self) -> None:
        try:
            self._charge()
            self._cache.flush()
        except Exception as error:
            if self._stop is None:
                self._stop = error
