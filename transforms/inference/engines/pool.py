"""Several engines of one model as one: the least busy answers, and one that is gone is left alone for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Final

from tilth.schemas import ConfigError, Reason
from tilth.transforms.inference.engines import Engine, Load
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion, Request

FIRST_REST_S: Final = 0.1  # one lost connection is often an idle one that the server closed
REST_GROWTH: Final = 4.0
LONGEST_REST_S: Final = 60.0
THROTTLED_REST_S: Final = 1.0  # for a 429 that names no time
_NOT_UP: Final = (EngineFailed, EngineDied)
_LOG: Final = logging.getLogger(__name__)


class Member:
    """One engine of a pool, and how it has done."""

    def __init__(self, engine: Engine, number: int) -> None:
        self.engine = engine
        self.name: str = getattr(engine, "host", f"engine {number}")
        self.in_flight = 0
        self.turn = number  # of its last request: ties go to the one that waited longest
        self.losses = 0  # in a row
        self.throttled = False
        self.up = False  # started and not known to be dead
        self.restarts = 0
        self.revival: asyncio.Task[None] | None = None
        self._struck_s = 0.0
        self._rests_until_s = 0.0

    def free(self, now: float) -> bool:
        """Whether it gets requests: not while it rests, and after a loss one at a time until one is answered."""
        if not self.up or now < self._rests_until_s:
            return False
        return self.losses == 0 or self.in_flight == 0

    def answered(self) -> None:
        """Forgives what was."""
        self.losses, self.throttled, self._rests_until_s = 0, False, 0.0

    def lost(self, asked_s: float) -> None:
        """A request that was asked then got no answer; those of one outage count as one loss."""
        now = time.monotonic()
        if asked_s < self._struck_s:
            return
        pause = min(LONGEST_REST_S, FIRST_REST_S * REST_GROWTH**self.losses)
        self.losses, self.throttled = self.losses + 1, False
        self._struck_s, self._rests_until_s = now, now + pause

    def throttle(self, seconds: float | None) -> None:
        """Rests as long as the server asked."""
        until = time.monotonic() + (THROTTLED_REST_S if seconds is None else seconds)
        self.throttled, self._rests_until_s = True, max(self._rests_until_s, until)

    def rest_s(self, now: float) -> float:
        """Seconds that are left of its rest."""
        return max(0.0, self._rests_until_s - now)


class Pool:
    """Engines of one model behind the protocol of one.

    A request goes to the member with the fewest in flight. When a member loses it (connection lost, engine dead, 429),
    another one gets it within the same call and time limit; a failure reaches the caller when no member is left.
    A member that dies is restarted in the background, `restarts` times.
    """

    def __init__(self, members: Sequence[Engine], restarts: int = 2) -> None:
        if not members:
            raise ConfigError("a pool of no engines", wanted="at least one", do="name a base URL or a device")
        self._members = [Member(engine, n) for n, engine in enumerate(members)]
        self._restarts = restarts
        self._turns = len(self._members)

    def __repr__(self) -> str:
        return f"Pool({[member.engine for member in self._members]!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return Pool, ([member.engine for member in self._members], self._restarts)

    async def start(self) -> None:
        """Starts all members. Raises when none can be started, or when one is configured wrongly."""
        started = await asyncio.gather(
            *(self._start(member) for member in self._members), return_exceptions=True
        )
        wrong = [one for one in started if isinstance(one, BaseException) and not isinstance(one, _NOT_UP)]
        failures = [one for one in started if isinstance(one, _NOT_UP)]
        if wrong or len(failures) == len(self._members):
            await self.close()
            raise wrong[0] if wrong else self._none_starts(failures)

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        """The answer of the least busy member, or of another one when that one is lost."""
        ends_s = time.monotonic() + timeout_s
        tried: list[Member] = []
        failure: CallFailed | EngineDied | None = None
        while (member := self._pick(tried)) is not None:
            tried.append(member)
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                break
            try:
                return await self._ask(member, request, left_s)
            except (CallFailed, EngineDied) as caught:
                if not _is_of_the_member(caught):
                    raise
                failure = caught
        raise self._left_alone(failure) from None

    async def load(self) -> Load | None:
        """The sum over the members that answer, cache use averaged; null when one of them does not say."""
        now = time.monotonic()
        asked = [member.engine.load() for member in self._members if member.up and member.rest_s(now) == 0.0]
        loads = await asyncio.gather(*asked)
        told = [one for one in loads if one is not None]
        if not told or len(told) < len(loads):
            return None
        slots = [one.slots for one in told if one.slots is not None]
        return Load(
            sum(one.running for one in told),
            sum(one.waiting for one in told),
            sum(one.kv_use for one in told) / len(told),
            sum(slots) if len(slots) == len(told) else None,
        )

    async def restart(self) -> None:
        """Starts every dead member again. Raises when none comes back."""
        await self._stop_revivals()
        revived = await asyncio.gather(*(self._revive(member) for member in self._members if not member.up))
        failures = [failure for failure in revived if failure is not None]
        if failures and not any(member.up for member in self._members):
            raise self._none_starts(failures)

    async def close(self) -> None:
        """Closes all members."""
        await self._stop_revivals()
        for member in self._members:
            member.up = False
        await asyncio.gather(*(member.engine.close() for member in self._members))

    async def _stop_revivals(self) -> None:
        tasks = [member.revival for member in self._members if member.revival is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self, member: Member) -> EngineFailed | EngineDied | None:
        try:
            await member.engine.start()
        except _NOT_UP as failure:
            _LOG.warning("%s did not start; the others go on", member.name)
            self._revive_later(member)
            return failure
        member.up = True
        return None

    async def _revive(self, member: Member) -> EngineFailed | EngineDied | None:
        try:
            await member.engine.restart()
        except _NOT_UP as failure:
            return failure
        member.up = True
        member.answered()
        return None

    def _revive_later(self, member: Member) -> None:
        """Starts a member again beside the work of the others, with growing pauses."""
        if member.revival is None or member.revival.done():
            member.revival = asyncio.create_task(self._revive_slowly(member))

    async def _revive_slowly(self, member: Member) -> None:
        while not member.up and member.restarts < self._restarts:
            member.restarts += 1
            await asyncio.sleep(min(LONGEST_REST_S, 2.0 ** (member.restarts - 1)))
            await self._revive(member)

    def _pick(self, tried: Sequence[Member]) -> Member | None:
        """The one with the fewest in flight; when all rest after losses, the one that has rested longest."""
        now = time.monotonic()
        left = [member for member in self._members if member not in tried]
        free = [member for member in left if member.free(now)]
        if free:
            return min(free, key=lambda member: (member.in_flight, member.turn))
        resting = [member for member in left if member.up and not member.throttled]
        return min(resting, key=lambda member: (member.rest_s(now), member.turn), default=None)

    async def _ask(self, member: Member, request: Request, timeout_s: float) -> Completion:
        self._turns += 1
        member.turn = self._turns
        member.in_flight += 1
        asked_s = time.monotonic()
        try:
            answer = await member.engine.generate(request, timeout_s)
        except (CallFailed, EngineDied) as failure:
            self._blame(member, failure, asked_s)
            raise
        finally:
            member.in_flight -= 1
        member.answered()
        return answer

    def _blame(self, member: Member, failure: CallFailed | EngineDied, asked_s: float) -> None:
        if isinstance(failure, EngineDied):
            member.up = False
            self._revive_later(member)
        elif failure.reason is Reason.CONNECTION_LOST:
            member.lost(asked_s)
        elif failure.reason is Reason.RATE_LIMITED:
            member.throttle(failure.retry_after_s)

    def _left_alone(self, failure: CallFailed | EngineDied | None) -> Exception:
        """What to tell when no member is left for a request: the shortest wait, or that all are gone."""
        now = time.monotonic()
        waits = [member.rest_s(now) for member in self._members if member.up and member.throttled]
        if waits:
            detail = f"429 from {len(waits)} of {len(self._members)} servers"
            return CallFailed(Reason.RATE_LIMITED, detail, retryable=True, retry_after_s=min(waits))
        if isinstance(failure, EngineDied) and not any(member.up for member in self._members):
            return failure
        names = ", ".join(member.name for member in self._members)
        if not any(member.up for member in self._members) and failure is None:
            return EngineFailed("no engine of the pool is up", found=names, do="start it first")
        return CallFailed(Reason.CONNECTION_LOST, f"no answer from any of {names}", retryable=True)

    def _none_starts(self, failures: Sequence[EngineFailed | EngineDied]) -> EngineFailed:
        names = ", ".join(member.name for member in self._members)
        do = next((failure.do for failure in failures if isinstance(failure, EngineFailed)), None)
        return EngineFailed("no engine of the pool can be started", found=names, do=do)


def _is_of_the_member(failure: CallFailed | EngineDied) -> bool:
    """Whether another member may answer what this one did not."""
    if isinstance(failure, EngineDied):
        return True
    return failure.reason in (Reason.CONNECTION_LOST, Reason.RATE_LIMITED) and failure.retryable
