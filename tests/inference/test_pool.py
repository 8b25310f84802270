"""A pool spreads requests evenly, goes on without members that are gone, and comes back to them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from loopback import Loopback, expected_answer, serve
from tilth.schemas import ConfigError, Reason, TilthError
from tilth.transforms.inference.engines import Engine, EngineConfig, Load, connect
from tilth.transforms.inference.engines.pool import Pool
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion, Request, Sampling

pytestmark = pytest.mark.slow  # servers, processes and databases are started

T = TypeVar("T")


def _request(n: int) -> Request:
    return Request(str(n), [{"role": "user", "content": f"Row {n}"}], Sampling(seed=n, max_tokens=64))


class CountingEngine:
    """Answers after a moment and counts; fails with what it was given, while it was given something."""

    def __init__(self, name: str, latency_s: float = 0.0, load: Load | None = None) -> None:
        self.host, self.latency_s, self.told = name, latency_s, load
        self.asked = self.starts = self.in_flight = self.most = 0
        self.failure: Exception | None = None

    async def start(self) -> None:
        self.starts += 1
        if isinstance(self.failure, TilthError):
            raise self.failure

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        self.asked += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.latency_s)
        finally:
            self.in_flight -= 1
        if self.failure is not None:
            raise self.failure
        return Completion(f"{self.host}:{request.id}", "stop", 1, 1)

    async def load(self) -> Load | None:
        return self.told

    async def restart(self) -> None:
        self.failure = None
        await self.start()

    async def close(self) -> None:
        pass


LOST = CallFailed(Reason.CONNECTION_LOST, "gone", retryable=True)


def _with(pool: Engine, work: Callable[[Engine], Awaitable[T]]) -> T:
    async def run() -> T:
        await pool.start()
        try:
            return await work(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


async def _all(engine: Engine, count: int, timeout_s: float = 30.0) -> list[Completion]:
    return list(await asyncio.gather(*(engine.generate(_request(n), timeout_s) for n in range(count))))


def test_requests_spread_evenly() -> None:
    """Members of equal speed get equal shares, in flight and in total; one after another they take turns."""
    members = [CountingEngine(name, 0.005) for name in "abc"]

    async def work(engine: Engine) -> None:
        await _all(engine, 300)
        assert [member.asked for member in members] == [100, 100, 100]
        assert [member.most for member in members] == [100, 100, 100]
        for n in range(6):
            await engine.generate(_request(n), 5)
        assert [member.asked for member in members] == [102, 102, 102]

    _with(Pool(members), work)


def test_a_faster_member_gets_more() -> None:
    """The fewest in flight come first, so a member that is four times as fast answers more."""
    fast, slow = CountingEngine("fast", 0.002), CountingEngine("slow", 0.008)

    async def work(engine: Engine) -> None:
        rows = iter(range(200))

        async def worker() -> None:
            for n in rows:
                await engine.generate(_request(n), 5)

        await asyncio.gather(*(worker() for _ in range(8)))

    _with(Pool([fast, slow]), work)
    assert fast.asked > 2 * slow.asked


def test_a_killed_server_loses_no_request() -> None:
    """One of three servers is killed in the middle; every request gets its right answer in one call."""
    with serve(latency_s=0.05) as a, serve(latency_s=0.05) as b, serve(latency_s=0.05) as c:
        pool = connect(_config(a, b, c))

        async def work(engine: Engine) -> list[Completion]:
            task = asyncio.create_task(_paced(engine, 600, 48))
            while (await asyncio.to_thread(b.stats))["finished"] < 50:
                await asyncio.sleep(0)
            b.kill()
            return await task

        got = _with(pool, work)
        assert [one.text for one in got] == [expected_answer(_request(n).messages, n) for n in range(600)]
        assert a.stats()["finished"] + c.stats()["finished"] >= 500


def test_a_member_that_lost_once_is_rested_and_comes_back() -> None:
    """A dead member is knocked at with growing pauses, one request at a time, and used again once it answers."""
    good, bad = CountingEngine("good"), CountingEngine("bad")
    bad.failure = LOST

    async def work(engine: Engine) -> None:
        await _all(engine, 20)
        assert bad.asked == 10  # what was in flight when it was first lost
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            await _all(engine, 20)
            await asyncio.sleep(0.005)
        assert 11 <= bad.asked <= 13  # after 0.1 s, and 0.4 s after that
        bad.failure = None
        ends = time.monotonic() + 10
        while good.most and bad.asked < 100:
            await _all(engine, 20)
            await asyncio.sleep(0.005)
            assert time.monotonic() < ends

    _with(Pool([good, bad]), work)


def test_when_all_are_gone_the_error_names_all_hosts() -> None:
    """The failure reaches the caller when no server is left; it names every host and no credentials."""
    with serve(latency_s=0.05) as a, serve(latency_s=0.05) as b:
        urls = tuple(f"http://someone:secret@127.0.0.1:{one.port}/v1" for one in (a, b))
        pool = connect(EngineConfig(model="m", base_urls=urls))

        async def work(engine: Engine) -> CallFailed:
            await engine.generate(_request(0), 5)
            a.kill()
            b.kill()
            with pytest.raises(CallFailed) as caught:
                await engine.generate(_request(1), 5)
            return caught.value

        failure = _with(pool, work)
        assert (failure.reason, failure.retryable) == (Reason.CONNECTION_LOST, True)
        assert all(f"127.0.0.1:{one.port}" in failure.detail for one in (a, b))
        assert "secret" not in str(failure) + repr(pool)


def test_a_throttled_member_rests_as_long_as_it_asked() -> None:
    """429 with Retry-After sends requests elsewhere until then; when all are throttled the shortest wait is told."""
    calm, busy = CountingEngine("calm"), CountingEngine("busy")
    busy.failure = CallFailed(Reason.RATE_LIMITED, "429", retryable=True, retry_after_s=0.3)

    async def work(engine: Engine) -> None:
        await _all(engine, 2)
        seen = busy.asked
        await _all(engine, 20)
        assert busy.asked == seen == 1
        calm.failure = CallFailed(Reason.RATE_LIMITED, "429", retryable=True, retry_after_s=9.0)
        with pytest.raises(CallFailed) as caught:
            await engine.generate(_request(0), 5)
        assert caught.value.reason is Reason.RATE_LIMITED
        assert 0 < (caught.value.retry_after_s or 0) <= 0.3
        calm.failure = busy.failure = None
        await asyncio.sleep(caught.value.retry_after_s or 0)
        await engine.generate(_request(0), 5)
        assert busy.asked == 2

    _with(Pool([calm, busy]), work)


@pytest.mark.parametrize(
    "reason", [Reason.REQUEST_REFUSED, Reason.TOO_LONG, Reason.SERVER_ERROR, Reason.TIMED_OUT]
)
def test_failures_of_a_request_are_not_passed_on(reason: Reason) -> None:
    """What is not the member's loss reaches the caller after one attempt."""
    members = [CountingEngine("a"), CountingEngine("b")]
    for member in members:
        member.failure = CallFailed(reason, "400")

    async def work(engine: Engine) -> None:
        with pytest.raises(CallFailed) as caught:
            await engine.generate(_request(0), 5)
        assert caught.value.reason is reason

    _with(Pool(members), work)
    assert sum(member.asked for member in members) == 1


def test_a_dead_engine_is_restarted_beside_the_others() -> None:
    """`EngineDied` costs no request while another member lives; the dead one is started again, so often as allowed."""
    alive, dead = CountingEngine("alive"), CountingEngine("dead")
    dead.failure = EngineDied(-9)

    async def work(engine: Engine) -> None:
        got = await _all(engine, 10)
        assert Counter(one.text.partition(":")[0] for one in got) == {"alive": 10}
        ends = time.monotonic() + 10
        while dead.starts < 2:
            await asyncio.sleep(0.01)
            assert time.monotonic() < ends
        await asyncio.sleep(0)
        assert {one.text.partition(":")[0] for one in await _all(engine, 10)} == {"alive", "dead"}

    _with(Pool([alive, dead]), work)


def test_when_all_engines_died_the_caller_restarts_them() -> None:
    """`EngineDied` reaches the caller when none is up, and `restart` brings them back."""
    members = [CountingEngine("a"), CountingEngine("b")]

    async def work(engine: Engine) -> None:
        for member in members:
            member.failure = EngineDied(1)
        with pytest.raises(EngineDied):
            await engine.generate(_request(0), 5)
        await engine.restart()
        assert len(asyncio.all_tasks()) == 1  # what would have restarted them in the background is gone
        assert len(await _all(engine, 4)) == 4
        assert [member.starts for member in members] == [2, 2]

    _with(Pool(members), work)


def test_one_member_that_does_not_start_does_not_stop_the_pool() -> None:
    """The others answer, and it is taken in when it can be started; a pool of none that start fails, naming all."""
    late, there = CountingEngine("late:1"), CountingEngine("there:2")
    late.failure = EngineFailed("no server answers", do="start it")

    async def work(engine: Engine) -> None:
        assert {one.text.partition(":")[0] for one in await _all(engine, 4)} == {"there"}

    _with(Pool([late, there]), work)
    late.failure = there.failure = EngineFailed("no server answers", do="start it")
    with pytest.raises(EngineFailed, match="late:1, there:2"):
        _with(Pool([late, there]), work)
    there.failure = None
    late.failure = ConfigError("no API key")
    with pytest.raises(ConfigError, match="no API key"):
        _with(Pool([there, late]), work)
    with pytest.raises(ConfigError):
        Pool([])


def test_loads_add_up() -> None:
    """Running, waiting and slots are sums, cache use is the mean; null when a member does not say."""
    a = CountingEngine("a", load=Load(3, 1, 0.5, 8))
    b = CountingEngine("b", load=Load(4, 0, 0.25, 8))
    assert _with(Pool([a, b]), lambda pool: pool.load()) == Load(7, 1, 0.375, 16)
    b.told = Load(4, 0, 0.25)
    assert _with(Pool([a, b]), lambda pool: pool.load()) == Load(7, 1, 0.375, None)
    b.told = None
    assert _with(Pool([a, b]), lambda pool: pool.load()) is None


def _config(*servers: Loopback, **settings: Any) -> EngineConfig:
    return EngineConfig(model="loopback", base_urls=tuple(one.url for one in servers), **settings)


async def _paced(engine: Engine, count: int, window: int) -> list[Completion]:
    gate = asyncio.Semaphore(window)

    async def one(n: int) -> Completion:
        async with gate:
            return await engine.generate(_request(n), 30)

    return list(await asyncio.gather(*(one(n) for n in range(count))))
