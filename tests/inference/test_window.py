"""The window: what the policy decides against simulated servers in virtual time, and the gate that it moves."""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.transforms.inference.engines import Load
from tilth.transforms.inference.window import Interval, Window, WindowConfig, WindowPolicy

pytestmark = pytest.mark.slow  # hours of simulated time

T = TypeVar("T")
MEAN_SERVICE_S = 0.3 * math.exp(0.5)  # of a lognormal with median 0.3 s and sigma 1


def lognormal(seed: int, count: int, median: float = 0.3, sigma: float = 1.0) -> list[float]:
    """Service times with the tail that answers of a language model have."""
    rng = random.Random(seed)
    return [median * rng.lognormvariate(0.0, sigma) for _ in range(count)]


@dataclass
class Server:
    """Serves `slots(now)` calls at once, the others wait in the order of coming; may refuse with 429."""

    slots: Callable[[float], int]
    refuse_above: int | None = None  # in flight
    refuse_rate: float | None = None  # accepted per second, with one second of burst
    reports: bool = False
    reports_slots: bool = False
    kv_slots: int | None = None  # KV cache is full when so many run
    delay_s: float = 0.0  # on the way there, spent outside of a slot
    running: int = 0
    queue: deque[int] = field(default_factory=deque[int])
    _tokens: float = 0.0
    _at: float = 0.0

    def refuses(self, now: float) -> bool:
        if self.refuse_above is not None and self.running + len(self.queue) >= self.refuse_above:
            return True
        if self.refuse_rate is None:
            return False
        self._tokens = min(self._tokens + (now - self._at) * self.refuse_rate, self.refuse_rate)
        self._at = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False

    def load(self, now: float) -> Load | None:
        if not self.reports:
            return None
        slots = self.slots(now)
        kv_use = min(1.0, self.running / self.kv_slots) if self.kv_slots else 0.1
        return Load(self.running, len(self.queue), kv_use, slots if self.reports_slots else None)


@dataclass
class Outcome:
    """What one simulated run did."""

    started: list[float] = field(default_factory=list[float])  # service
    finished: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])
    flights: list[tuple[float, int]] = field(
        default_factory=list[tuple[float, int]]
    )  # in flight, per interval
    limits: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])

    def rate(self, start: float, end: float) -> float:
        return sum(start <= at < end for at in self.finished) / (end - start)

    def most_in_flight(self, start: float = 0.0) -> int:
        return max(count for at, count in self.flights if at >= start)


class Simulation:
    """A worker with a window and a policy, a server, and virtual time."""

    def __init__(self, server: Server, times: list[float], policy: WindowPolicy, seed: int = 0) -> None:
        self.server, self.times, self.policy = server, times, policy
        self.rng = random.Random(seed)
        self.out = Outcome()
        self.events: list[tuple[float, int, str, int]] = []
        self.sent: dict[int, float] = {}
        self.retries: deque[int] = deque()
        self.tries: dict[int, int] = {}
        self.next_row = self.serial = 0
        self.since = self.finished = self.throttled = 0
        self.latency = self.asked_at = 0.0
        self.full = True

    def run(self, until: float = math.inf) -> Outcome:
        self._fill(0.0)
        self._push(self.policy.interval_s, "decide", 0)
        while self.events and len(self.out.finished) < len(self.times):
            now, _, what, row = heapq.heappop(self.events)
            if now > until:
                break
            getattr(self, "_on_" + what)(now, row)
            self._start(now)
            self._fill(now)
        return self.out

    def _push(self, at: float, what: str, row: int) -> None:
        self.serial += 1
        heapq.heappush(self.events, (at, self.serial, what, row))

    def _fill(self, now: float) -> None:
        while len(self.sent) < self.policy.limit:
            if self.retries:
                row = self.retries.popleft()
            elif self.next_row < len(self.times):
                row, self.next_row = self.next_row, self.next_row + 1
            else:
                self.full = False
                return
            self.sent[row] = now
            self._push(now + self.server.delay_s, "arrive", row)

    def _on_arrive(self, now: float, row: int) -> None:
        if self.server.refuses(now):
            self.out.refused.append(now)
            self.throttled += 1
            del self.sent[row]
            self.tries[row] = self.tries.get(row, 0) + 1
            wait = min(0.5 * 2 ** self.tries[row], 20.0) * self.rng.uniform(0.5, 1.0)
            self._push(now + wait, "retry", row)
        else:
            self.server.queue.append(row)
            self._start(now)

    def _on_retry(self, now: float, row: int) -> None:
        self.retries.append(row)

    def _start(self, now: float) -> None:
        while self.server.queue and self.server.running < self.server.slots(now):
            row = self.server.queue.popleft()
            self.server.running += 1
            self.out.started.append(now)
            self._push(now + self.times[row], "finish", row)

    def _on_finish(self, now: float, row: int) -> None:
        self.server.running -= 1
        self.finished += 1
        self.latency += now - self.sent.pop(row)
        self.out.finished.append(now)

    def _on_decide(self, now: float, row: int) -> None:
        self.out.flights.append((now, len(self.sent)))
        mean = self.latency / self.finished if self.finished else 0.0
        seconds = now - self.asked_at
        self.policy.observe(
            Interval(seconds, self.finished, self.throttled, mean, self.full, self.server.load(now))
        )
        self.out.limits.append((now, self.policy.limit))
        self.finished = self.throttled = 0
        self.latency, self.asked_at, self.full = 0.0, now, True
        self._push(now + self.policy.interval_s, "decide", 0)


def always(slots: int) -> Callable[[float], int]:
    return lambda _: slots


def simulate(
    server: Server, times: list[float], until: float = math.inf, seed: int = 0, **bounds: int
) -> Outcome:
    return Simulation(server, times, WindowPolicy(WindowConfig(**bounds)), seed).run(until)


def ideal_last_start(times: list[float], slots: int) -> float:
    """When the last row is begun if every slot takes the next row the moment it is free: no schedule is faster.

    What comes after, the drain, is the tail of single rows and no matter of the window.
    """
    free = [0.0] * slots
    last = 0.0
    for seconds in times:
        last = heapq.heapreplace(free, free[0] + seconds)
    return last


def ideal_rate(slots: int) -> float:
    return slots / MEAN_SERVICE_S


# Throughput, with nothing known of the server


@pytest.mark.parametrize("seed", range(6))
def test_sixty_four_slots_are_busy_from_the_first_row_on(seed: int) -> None:
    """1,500 rows at 64 slots with a long tail are begun within 3 % of the ideal, and never more than 4 x slots wait."""
    times = lognormal(seed, 1500)
    out = simulate(Server(always(64)), times, seed=seed)
    assert ideal_last_start(times, 64) / out.started[-1] >= 0.97
    assert out.most_in_flight() <= 4 * 64


@pytest.mark.parametrize("slots", [64, 100, 256])
def test_a_long_run_keeps_the_slots_busy_without_a_long_queue(slots: int) -> None:
    """Trials of other windows cost less than 3 %, and after 30 s at most twice the slots are in flight."""
    times = lognormal(slots, slots * 240)
    out = simulate(Server(always(slots)), times)
    assert ideal_last_start(times, slots) / out.started[-1] >= 0.97
    assert out.most_in_flight() <= 4 * slots
    assert out.most_in_flight(30.0) <= 2 * slots


def test_many_slots_are_found_in_seconds() -> None:
    """From 64, the window of a server of 1,024 slots is wide enough within four seconds."""
    out = simulate(Server(always(1024)), lognormal(0, 20_000))
    assert next(at for at, limit in out.limits if limit >= 1024) <= 4.0


@pytest.mark.parametrize("seconds", [0.2, 20.0])
@pytest.mark.parametrize("slots", [64, 256])
def test_answers_that_come_in_waves_do_not_mislead(slots: int, seconds: float) -> None:
    """Equal service times end all at once; what is counted then swings, and the slots stay busy all the same."""
    times = [seconds] * 20_000
    out = simulate(Server(always(slots), delay_s=0.001), times)
    assert ideal_last_start(times, slots) / out.started[-1] >= 0.93
    assert out.most_in_flight() <= 4 * slots


@pytest.mark.parametrize("seed", range(3))
def test_half_the_capacity_goes_and_comes_back(seed: int) -> None:
    """A server that halves and recovers is full again within 20 s, and its queue is never beyond 4 x slots."""

    def slots(now: float) -> int:
        return 32 if 60 <= now < 120 else 64

    out = simulate(Server(slots), lognormal(seed, 40_000), until=180.0, seed=seed)
    assert out.rate(30, 60) >= 0.9 * ideal_rate(64)
    assert out.rate(70, 120) >= 0.9 * ideal_rate(32)
    assert out.rate(140, 180) >= 0.9 * ideal_rate(64)
    assert max(count for at, count in out.flights if 100 <= at < 120) <= 2.5 * 32
    assert out.most_in_flight() <= 4 * 64


def test_no_evidence_no_change() -> None:
    """A window that is not full says nothing about a wider or a narrower one."""
    policy = WindowPolicy(WindowConfig())
    assert {policy.observe(Interval(0.5, 40, 0, 0.4, False, None)) for _ in range(500)} == {64}


def test_a_wider_window_that_pays_is_kept() -> None:
    """Without a limit in sight the window goes to the maximum and stays near it."""
    out = simulate(Server(always(10_000)), lognormal(1, 60_000), maximum=700)
    assert max(limit for _, limit in out.limits) == 700
    late = [limit for at, limit in out.limits if at > 10]
    assert sum(late) / len(late) >= 0.9 * 700


# What the engine says of itself


@pytest.mark.parametrize("says_slots", [False, True])
@pytest.mark.parametrize("slots", [64, 256])
def test_a_load_report_leads_straight_to_a_short_queue(slots: int, says_slots: bool) -> None:
    """The engine's queue is never empty once it has filled, and no longer than its slots and a wobble."""
    times = lognormal(slots, slots * 80)
    server = Server(always(slots), reports=True, reports_slots=says_slots, delay_s=0.005)
    out = simulate(server, times)
    assert ideal_last_start(times, slots) / out.started[-1] >= 0.97
    assert out.most_in_flight() <= 2.5 * slots
    assert out.limits[-1][1] > slots


def test_known_slots_give_the_window_at_once() -> None:
    """Two times the slots after the first report, whatever the window was."""
    policy = WindowPolicy(WindowConfig())
    assert policy.observe(Interval(0.1, 0, 0, 0.0, True, Load(64, 0, 0.1, 256))) == 512


def test_a_full_cache_shortens_the_queue() -> None:
    """With the KV cache full the queue shrinks to half of what runs, gently, and never below what runs."""
    server = Server(always(40), reports=True, reports_slots=False, kv_slots=40)
    out = simulate(server, lognormal(0, 4000), initial=400)
    assert 40 < out.limits[-1][1] <= 61
    steps = [b / a for (_, a), (_, b) in zip(out.limits, out.limits[1:], strict=False)]
    assert min(steps) >= 0.92  # 0.95, and whole numbers
    assert out.rate(5, out.started[-1]) >= 0.95 * ideal_rate(40)


def test_a_queue_of_others_does_not_take_the_window_away() -> None:
    """What others wait for may be long: the window never shrinks below what the engine runs."""
    policy = WindowPolicy(WindowConfig(initial=200))
    for _ in range(200):
        policy.observe(Interval(0.5, 50, 0, 0.5, True, Load(100, 5000, 0.5)))
    assert 100 <= policy.limit <= 115


def test_half_of_a_reporting_engine_goes_and_comes_back() -> None:
    """With a report, throughput follows the capacity at once in both directions."""

    def slots(now: float) -> int:
        return 32 if 60 <= now < 120 else 64

    out = simulate(Server(slots, reports=True), lognormal(3, 40_000), until=180.0)
    assert out.rate(65, 120) >= 0.9 * ideal_rate(32)
    assert out.rate(125, 180) >= 0.9 * ideal_rate(64)
    assert max(count for at, count in out.flights if 100 <= at < 120) <= 2.5 * 32


def test_a_report_about_something_else_is_not_followed() -> None:
    """A report of an idle engine, while calls are answered, does not let the window grow without end."""
    policy = WindowPolicy(WindowConfig())
    for _ in range(400):
        policy.observe(Interval(0.5, 64, 0, policy.limit / 128, True, Load(1, 0, 0.0)))
    assert policy.limit <= 256


# 429


@pytest.mark.parametrize("most", [10, 40, 300])
@pytest.mark.parametrize("seed", range(2))
def test_a_limit_on_concurrency_is_found_and_kept(most: int, seed: int) -> None:
    """Above N in flight the server refuses: after 20 s at least 90 % of N are used, one call in twenty is refused."""
    server = Server(always(10_000), refuse_above=most, delay_s=0.02)
    out = simulate(server, lognormal(seed, most * 250), seed=seed)
    last = out.started[-1]
    assert out.rate(20, last) >= 0.9 * ideal_rate(most)
    assert sum(at > 20 for at in out.refused) <= 0.05 * len(out.started)
    assert len(out.refused) <= 1300  # nearly all of them in the first two seconds, from a window of 64 or 512


@pytest.mark.parametrize("seed", range(3))
def test_a_limit_on_the_rate_is_found_and_kept(seed: int) -> None:
    """Above 50 calls a second the server refuses: at least 85 % of them are used, one call in ten is refused."""
    server = Server(always(10_000), refuse_rate=50.0, delay_s=0.02)
    out = simulate(server, lognormal(seed, 6000), seed=seed)
    assert out.rate(20, out.started[-1]) >= 0.85 * 50
    assert sum(at > 20 for at in out.refused) <= 0.1 * len(out.started)


def test_a_limit_that_is_lifted_is_found_again() -> None:
    """A server that refused above 20 and then stops refusing is used in full within two minutes."""

    class Lifted(Server):
        def refuses(self, now: float) -> bool:
            return now < 30 and super().refuses(now)

    out = simulate(Lifted(always(64), refuse_above=20), lognormal(0, 40_000), until=200.0)
    assert out.rate(10, 30) >= 0.8 * ideal_rate(20)
    assert out.rate(150, 200) >= 0.9 * ideal_rate(64)


def test_one_cut_an_interval_in_proportion_to_what_was_refused() -> None:
    """All refused halves the window, a few take a tenth, however many there are."""
    every, few = WindowPolicy(WindowConfig()), WindowPolicy(WindowConfig())
    assert every.observe(Interval(0.5, 0, 10_000, 0.0, True, None)) == 32
    assert few.observe(Interval(0.5, 99, 1, 0.1, True, None)) == 57


def test_no_cut_goes_below_what_is_carried() -> None:
    """Forty-eight calls are answered at once: a storm of refusals cuts to four fifths of them, and not to half."""
    policy = WindowPolicy(WindowConfig())
    for _ in range(60):
        policy.observe(Interval(0.5, 40, 0, 0.6, False, None))
    assert policy.observe(Interval(0.5, 40, 1000, 0.6, True, None)) == 38


# Any sequence


def intervals() -> st.SearchStrategy[Interval]:
    load = st.builds(
        Load,
        st.integers(0, 5000),
        st.integers(0, 5000),
        st.floats(0.0, 1.0),
        st.none() | st.integers(0, 5000),
    )
    return st.builds(
        Interval,
        st.floats(0.0, 100.0),
        st.integers(0, 10_000),
        st.just(0) | st.integers(0, 10_000),
        st.floats(0.0, 1000.0),
        st.booleans(),
        st.none() | load,
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(intervals(), max_size=60), st.integers(1, 100), st.integers(1, 4000), st.integers(1, 5000))
def test_the_window_stays_within_its_bounds(seen: list[Interval], low: int, more: int, initial: int) -> None:
    """Whatever is seen, the window is between minimum and maximum, from the start on."""
    policy = WindowPolicy(WindowConfig(initial=initial, minimum=low, maximum=low + more))
    limits = [policy.limit, *(policy.observe(one) for one in seen)]
    assert all(low <= limit <= low + more for limit in limits)
    assert policy.interval_s > 0


@settings(max_examples=100, deadline=None)
@given(st.lists(intervals(), max_size=30), st.integers(1, 5000))
def test_a_fixed_window_stays_fixed(seen: list[Interval], size: int) -> None:
    """A size that was set is not changed by anything, load, 429 or latency."""
    policy = WindowPolicy(WindowConfig(size=size))
    assert {policy.limit, *(policy.observe(one) for one in seen)} == {size}


# The gate


class VirtualSelector(selectors.DefaultSelector):
    """Does not wait: what would be waited for is added to the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when nothing is left to do."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


def virtually(
    main: Callable[[VirtualLoop], Coroutine[Any, Any, T]],
) -> T:  # Any: what coroutines are typed with
    """Runs a coroutine in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_than_the_limit_are_inside() -> None:
    """The third of three waits for a release."""

    async def main() -> None:
        window = Window(2)
        await window.acquire()
        await window.acquire()
        third = asyncio.create_task(window.acquire())
        await settle()
        assert (window.in_flight, window.waiting, third.done()) == (2, 1, False)
        window.release()
        await third
        assert (window.in_flight, window.waiting) == (2, 0)

    asyncio.run(main())


def test_retries_come_first_and_all_in_the_order_of_coming() -> None:
    """Two retries pass two firsts; among equals nobody overtakes."""

    async def main() -> list[str]:
        window, order = Window(1), list[str]()
        await window.acquire()

        async def one(name: str, first: bool) -> None:
            await window.acquire(first=first)
            order.append(name)
            window.release()

        names = [("a", False), ("b", False), ("r", True), ("s", True)]
        tasks = [asyncio.create_task(one(name, first)) for name, first in names]
        await settle()
        window.release()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == ["r", "s", "a", "b"]


def test_a_slot_that_was_handed_to_a_cancelled_waiter_goes_on() -> None:
    """Cancelled between release and waking up: the next one gets the slot, none is lost."""

    async def main() -> None:
        window = Window(1)
        await window.acquire()
        cancelled, other = (asyncio.create_task(window.acquire()) for _ in range(2))
        await settle()
        window.release()
        cancelled.cancel()
        await asyncio.wait_for(other, 5)
        assert (window.in_flight, window.waiting) == (1, 0)
        window.release()
        assert window.in_flight == 0

    asyncio.run(main())


def test_a_lower_limit_lets_the_surplus_drain() -> None:
    """Nobody is thrown out, and nobody comes in until fewer than the new limit are inside."""

    async def main() -> None:
        window = Window(3)
        for _ in range(3):
            await window.acquire()
        waiter = asyncio.create_task(window.acquire())
        await settle()
        window.limit = 1
        window.release()
        window.release()
        await settle()
        assert (window.in_flight, waiter.done()) == (1, False)
        window.limit = 2
        await waiter
        assert window.in_flight == 2

    asyncio.run(main())


def test_nobody_gets_in_before_the_pause_is_over() -> None:
    """`Retry-After` holds for all, a shorter one does not end a longer one, and time inside counts on."""

    async def main(loop: VirtualLoop) -> None:
        window = Window(4, loop.time)
        await window.acquire()
        window.pause_until(10.0)
        window.pause_until(5.0)
        await window.acquire()
        assert 10.0 <= loop.time() < 10.1
        window.pause_until(9.0)
        await window.acquire()
        assert loop.time() < 10.1

    virtually(main)


def test_a_paused_window_is_not_full() -> None:
    """A pause says nothing of the engine, though all slots may be taken."""

    async def main(loop: VirtualLoop) -> None:
        window = Window(1, loop.time)
        await window.acquire()
        window.take_full()
        window.pause_until(10.0)
        await asyncio.sleep(5)
        assert not window.take_full()

    virtually(main)


def test_time_inside_is_accounted() -> None:
    """Mean in flight is weighted by time, busy is the time with anybody inside, full needs the whole interval."""

    async def main(loop: VirtualLoop) -> None:
        window = Window(2, loop.time)
        await asyncio.sleep(5)
        await window.acquire()
        await window.acquire()
        window.take_full()
        await asyncio.sleep(4)
        assert window.take_full()
        window.release()
        await asyncio.sleep(2)
        assert not window.take_full()
        window.release()
        await asyncio.sleep(4)
        assert window.busy_s() == pytest.approx(6.0)
        assert window.mean_in_flight() == pytest.approx((2 * 4 + 1 * 2) / 10)

    virtually(main)


def test_a_moment_between_two_requests_is_no_gap() -> None:
    """A feeder that makes the next request after a release keeps the window full."""

    async def main(loop: VirtualLoop) -> bool:
        window = Window(1, loop.time)
        await window.acquire()
        window.take_full()
        for _ in range(10):
            await asyncio.sleep(0.099)
            window.release()
            await asyncio.sleep(0.001)
            await window.acquire()
        return window.take_full()

    assert virtually(main)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_no_schedule_exceeds_the_limit_or_loses_a_slot(seed: int, limit: int) -> None:
    """Random work, cancellations, pauses and limits: never too many inside, and all slots are free at the end."""

    async def main(loop: VirtualLoop) -> None:
        rng, window = random.Random(seed), Window(limit, loop.time)
        inside = 0

        async def work() -> None:
            nonlocal inside
            await window.acquire(first=rng.random() < 0.3)
            inside += 1
            try:
                assert inside <= window.in_flight
                await asyncio.sleep(rng.choice([0.0, 0.01, 0.1]))
            finally:
                inside -= 1
                window.release()

        tasks = [asyncio.create_task(work()) for _ in range(60)]
        for _ in range(120):
            what = rng.random()
            if what < 0.5:
                rng.choice(tasks).cancel()
            elif what < 0.6:
                window.pause_until(loop.time() + rng.choice([0.01, 0.05]))
            elif what < 0.7:
                surplus = window.in_flight
                window.limit = rng.randint(1, 8)
                assert window.in_flight <= max(window.limit, surplus)
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.005]))
            assert window.in_flight <= 8
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1000)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in done)
        assert (window.in_flight, window.waiting, inside) == (0, 0, 0)
        for _ in range(window.limit):
            await asyncio.wait_for(window.acquire(), 1000)

    virtually(main)
