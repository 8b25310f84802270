"""How many requests are in flight: a policy that follows what is observed, and the gate that it moves.

Too small a window leaves the engine idle, too large a one only fills its queue. Three signals, the best one first:

- what the engine says of itself: keep its queue short and never empty;
- 429: multiplicative decrease, then additive increase (Chiu and Jain 1989, as in TCP), the cut in proportion to the
  share of refused calls (DCTCP, RFC 8257);
- neither: throughput. By Little's law (in flight = throughput x latency) a wider window gives more throughput until
  the engine is busy, and from there on only more latency. The window doubles while that pays (TCP's slow start, with
  the exit of BBR's startup), then trials of a narrower and of a wider one follow changes. Netflix' gradient limits
  compare latencies instead; answers of a language model have so long a tail that one mean says little, so here a
  decision waits for a number of finished calls, not for a time.

All thresholds are defaults of ours, chosen for service times with a lognormal tail of sigma 1.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tilth.transforms.inference.engines import Load

STARTING_INTERVAL_S: Final = 0.1  # while it grows fast: short against one answer
INTERVAL_S: Final = 0.5

# the engine's load
SLOTS_FACTOR: Final = 2.0  # one set of requests runs, one waits: a slot that frees is filled in the next step
SLOTS_CAP: Final = (
    4.0  # requests that are on their way are neither running nor waiting; beyond this they are not it
)
QUEUE_LOW: Final = (
    0.1  # waiting below this share of running is about to be empty: some 10 % end between two steps
)
QUEUE_HIGH: Final = 1.25  # above one full set, with room for the wobble of a report
KV_FULL: Final = 0.95  # from here on vLLM preempts running requests, and work is done twice
KV_QUEUE_HIGH: Final = 0.5
LOAD_GROWTH: Final = 1.25  # once a queue was seen; before that the window doubles
LOAD_SHRINK: Final = (
    0.95  # per interval; a queue that is too long costs nothing but latency, so there is no haste
)
LOAD_COVERS: Final = 0.125  # a report of less than this share of the window is about something else
LOAD_MEMORY_S: Final = 5.0  # a report that fails to come now and then changes nothing

# 429
LEAST_CUT: Final = 0.1
REFUSED_CUT: Final = 0.5  # of the share that was refused: when all are, the window halves as in TCP
ON_THE_WAY_S: Final = 1.0  # the longest that a refusal takes
CARRIED_S: Final = 2.0
CARRIED_SHARE: Final = 0.8  # of what was answered at once, throughput x latency: no cut goes below
CLIMB_SHARE_PER_S: Final = 0.05  # of the ceiling: back from a halved window in ten seconds
CLIMB_PER_S: Final = 1.0  # at least
CEILING_SHARE: Final = 0.98  # stay this much below the window that was refused
CEILING_S: Final = 30.0  # limits of endpoints are counted per minute; ask for more twice in that time

# throughput
DOUBLING_GAIN: Final = 1.25  # BBR's: a doubling that gives less has passed the knee
AFTER_DOUBLING: Final = (
    1.5  # times the window before: less than 25 % more means that the knee is below 1.25 of it
)
TRIAL_CALLS: Final = 100, 600  # the throughput of n calls is known to 1.3/sqrt(n), 5-13 %, at sigma 1
TRIAL_WINDOWS: Final = 6  # calls per trial, in windows, between those bounds
DOWN_LOOK: Final = (
    0.65  # a trial looks deeper than it will go, so what is kept has a margin of 1.2 above the knee
)
DOWN_STEP: Final = 0.8
DOWN_KEEPS: Final = 0.95
DOWN_LOST: Final = 0.85
DOWN_HOPELESS: Final = 0.75  # a trial that has lost this much after a quarter of its calls is over
UP_STEP: Final = 1.25
UP_GAIN: Final = 1.10
UP_CONFIRMED: Final = 1.05
CHANGED: Final = 1.25  # at the same window: the engine is another one now
PAUSE_S: Final = 5.0  # between trials that led nowhere, doubled each time
LONGEST_PAUSE_S: Final = 30.0
KNEE_KNOWN_S: Final = 120.0  # after a trial that lost clearly: each costs a quarter of some seconds

FULL_SHARE: Final = 0.9  # of the time; a slot is empty for the moment in which the next request is made


@dataclass(frozen=True, slots=True)
class WindowConfig:
    """Bounds of the window. `size` above 0 fixes it."""

    size: int = 0
    initial: int = 64
    minimum: int = 1
    maximum: int = 2048


@dataclass(frozen=True, slots=True)
class Interval:
    """What was seen since the last decision."""

    seconds: float
    finished: int  # calls that ended with an answer
    throttled: int  # calls that ended with 429
    mean_latency_s: float  # of the finished; 0.0 when there are none
    full: bool  # the window was full the whole time: more requests were waiting at the gate
    load: Load | None  # what the engine says, where it does


class _Phase(Enum):
    DOUBLE = auto()  # starting: does twice the window give more?
    CLIMB = auto()  # after 429: slowly back, up to just below what was refused
    MEASURE = auto()  # at rest
    DOWN = auto()  # does a narrower one give as much?
    UP = auto()  # does a wider one give more?


@dataclass(slots=True)
class _Trial:
    """One window, held until enough calls have finished to say what it gives."""

    limit: int
    calls: int  # to count
    latencies: float  # to count for, in mean latencies: answers may come in waves of one latency
    settle_calls: int  # not counted: they were sent under the window before
    settle_s: float
    finished: int = 0
    seconds: float = 0.0
    latency_sum: float = 0.0

    def add(self, seen: Interval) -> bool:
        """Whether the trial is complete, with this interval."""
        if self.settle_calls > 0 or self.settle_s > 0:
            self.settle_calls -= seen.finished
            self.settle_s -= seen.seconds
            return False
        self.finished += seen.finished
        self.seconds += seen.seconds
        self.latency_sum += seen.finished * seen.mean_latency_s
        return self.finished >= self.calls and self.seconds >= self.latencies * self.latency_s

    @property
    def latency_s(self) -> float:
        return self.latency_sum / max(self.finished, 1)

    @property
    def rate(self) -> float:
        """Calls per second: the geometric mean of what was counted and of what Little's law says.

        The count is wrong where answers come in waves, the law where the window has just changed.
        """
        if not self.finished or self.seconds <= 0:
            return 0.0
        counted = self.finished / self.seconds
        return math.sqrt(counted * self.limit / self.latency_s) if self.latency_s > 0 else counted


class WindowPolicy:
    """Decides the size of the window from what is seen. Pure: no clock, no I/O."""

    def __init__(self, config: WindowConfig) -> None:
        self._config = config
        self._size = float(config.size or self._bounded(config.initial))
        self._slots: int | None = None
        self._queue_seen = False
        self._grew = False  # in the last interval: the engine has not seen all of it yet
        self._load_age_s = math.inf
        self._ceiling = math.inf
        self._ceiling_age_s = 0.0
        self._climb_to = math.inf
        self._on_the_way = 0.0  # calls that were sent before the last cut: their 429 says nothing new
        self._carried = 0.0
        self._up_from: int | None = None  # the window that a wider one is compared to, until it is confirmed
        self._base: float | None = None  # calls per second at rest, or before the last doubling
        self._doublings = 0
        self._rest_size = self.limit  # the window before a trial of another one
        self._latency_s = 0.0
        self._pauses = {_Phase.DOWN: 0.0, _Phase.UP: PAUSE_S}
        self._since = {_Phase.DOWN: 0.0, _Phase.UP: 0.0}
        self._phase = _Phase.DOUBLE
        self._trial = self._new_trial(self.limit // 2)

    @property
    def limit(self) -> int:
        """The size of the window now."""
        return int(self._size)

    @property
    def interval_s(self) -> float:
        """How long to watch before the next decision, in seconds."""
        starting = self._phase is _Phase.DOUBLE and not self._queue_seen
        return STARTING_INTERVAL_S if starting else INTERVAL_S

    def observe(self, seen: Interval) -> int:
        """The new size, after one interval."""
        if self._config.size:
            return self.limit
        self._age(seen)
        if seen.throttled:
            self._back_off(seen)
            return self.limit
        if seen.load is not None and self._covers(seen.load):
            self._load_age_s = 0.0
            self._follow(seen.load, seen.full)
        elif self._load_age_s > LOAD_MEMORY_S and seen.full:
            self._try(seen)
        return self.limit

    def _age(self, seen: Interval) -> None:
        self._load_age_s += seen.seconds
        self._ceiling_age_s += seen.seconds
        self._on_the_way = self._on_the_way if self._ceiling_age_s < ON_THE_WAY_S else 0.0
        for phase in self._since:
            self._since[phase] += seen.seconds
        if seen.seconds > 0:
            now = seen.finished * seen.mean_latency_s / seen.seconds
            self._carried += (now - self._carried) * min(1.0, seen.seconds / CARRIED_S)

    def _bounded(self, size: float) -> float:
        return min(max(size, self._config.minimum, 1), max(self._config.maximum, 1))

    def _resize(self, size: float) -> None:
        self._size = self._bounded(size)

    # What the engine says of itself

    def _covers(self, load: Load) -> bool:
        return load.running > 0 and load.running + load.waiting >= LOAD_COVERS * self._size

    def _follow(self, load: Load, full: bool) -> None:
        if load.slots and load.slots != self._slots:
            self._slots, self._grew = load.slots, True
            self._resize(min(SLOTS_FACTOR * load.slots, self._top))
            return
        low = load.waiting < QUEUE_LOW * load.running
        self._queue_seen = self._queue_seen or not low
        if low and full:
            self._widen_queue()
        else:
            self._grew = False
            self._shorten_queue(load)

    def _widen_queue(self) -> None:
        """Grows in every second interval: the first one after a change shows the engine before it."""
        if self._grew:
            self._grew = False
            return
        cap = min(self._top, SLOTS_CAP * self._slots if self._slots else math.inf)
        size = self._size * (LOAD_GROWTH if self._queue_seen else 2.0)
        self._grew = True
        self._resize(max(self._size, min(math.ceil(size), cap)))

    def _shorten_queue(self, load: Load) -> None:
        high = KV_QUEUE_HIGH if load.kv_use >= KV_FULL else QUEUE_HIGH
        if load.waiting > high * load.running:
            least = (1 + QUEUE_LOW) * load.running  # others may share the engine: what waits need not be ours
            self._resize(max(self._size * LOAD_SHRINK, min(least, self._size)))

    # 429

    @property
    def _top(self) -> float:
        """The widest window that is worth asking for, as long as the ceiling is remembered."""
        return min(self._ceiling - 1, self._ceiling * CEILING_SHARE)

    def _back_off(self, seen: Interval) -> None:
        before, late = self._size, self._on_the_way
        self._on_the_way = late - seen.throttled
        if self._on_the_way >= 0:
            return
        refused = seen.throttled / (seen.throttled + seen.finished)
        cut = before * (1 - max(LEAST_CUT, REFUSED_CUT * refused))
        self._resize(min(max(cut, CARRIED_SHARE * self._carried), before - 1))
        self._on_the_way = before - self._size
        self._ceiling, self._ceiling_age_s = before, 0.0
        self._base = self._up_from = None
        self._climb_to = self._top
        self._phase = _Phase.CLIMB

    def _climb(self, seen: Interval) -> None:
        known = self._ceiling if self._ceiling < math.inf else self._size
        step = max(CLIMB_PER_S, CLIMB_SHARE_PER_S * known) * seen.seconds
        self._resize(max(self._size, min(self._size + step, self._climb_to)))
        if self._size < min(self._climb_to, self._config.maximum):
            return
        if self._up_from is None:
            self._begin(_Phase.MEASURE, self._size)
        else:
            self._ceiling = math.inf if self._size > self._ceiling else self._ceiling
            self._begin(_Phase.UP, self._size)

    # Throughput

    def _try(self, seen: Interval) -> None:
        if self._phase is _Phase.CLIMB:
            self._climb(seen)
        elif self._trial.add(seen) or self._hopeless():
            trial, self._latency_s = self._trial, self._trial.latency_s
            {
                _Phase.DOUBLE: self._doubled,
                _Phase.MEASURE: self._measured,
                _Phase.DOWN: self._looked_down,
                _Phase.UP: self._looked_up,
            }[self._phase](trial.rate)

    def _hopeless(self) -> bool:
        trial = self._trial
        enough = self._phase is _Phase.DOWN and 4 * trial.finished >= trial.calls
        return enough and trial.seconds > trial.latency_s and trial.rate < DOWN_HOPELESS * (self._base or 0.0)

    def _begin(self, phase: _Phase, size: float) -> None:
        before = self.limit
        self._resize(size)
        self._phase = phase
        self._trial = self._new_trial(before // 2 if before != self.limit else 0)

    def _new_trial(self, settle_calls: int) -> _Trial:
        settle_s = self._latency_s if settle_calls else 0.0
        if self._phase is _Phase.DOUBLE:
            return _Trial(self.limit, max(1, self.limit // 2), 0.5, settle_calls, settle_s)
        low, high = TRIAL_CALLS
        calls = min(max(TRIAL_WINDOWS * self.limit, low), high)
        return _Trial(self.limit, calls, 2.0, settle_calls, settle_s)

    def _doubled(self, rate: float) -> None:
        before = self._base
        paid = before is None or rate >= DOUBLING_GAIN * before
        if paid and self.limit < min(self._config.maximum, self._top):
            self._double(rate)
            return
        # short answers come first: what the first window gives looks better than it is, so it cuts nothing
        known = not paid and self._doublings > 1
        self._base = None
        self._begin(
            _Phase.MEASURE, min(self._size, AFTER_DOUBLING * self._rest_size) if known else self._size
        )

    def _double(self, rate: float) -> None:
        self._base, self._rest_size, self._doublings = rate, self.limit, self._doublings + 1
        self._begin(_Phase.DOUBLE, min(2 * self._size, self._top))

    def _measured(self, rate: float) -> None:
        before, self._base = self._base, rate
        if self._up_from is not None:
            self._confirm(before or rate)
        elif before and rate > CHANGED * before:
            self._forget_pauses()
            self._double(rate)
        elif before and rate * CHANGED < before:
            self._forget_pauses()
            self._rest()
        else:
            self._base = (before + rate) / 2 if before else rate
            self._rest()

    def _forget_pauses(self) -> None:
        self._pauses = {_Phase.DOWN: 0.0, _Phase.UP: PAUSE_S}

    def _rest(self) -> None:
        """The next trial that is due, or another measurement. What worked last time goes on first."""
        for phase in sorted(self._pauses, key=self._pauses.__getitem__):
            due = self._since[phase] >= self._pauses[phase]
            if due and (self._look_down() if phase is _Phase.DOWN else self._look_up()):
                return
        self._begin(_Phase.MEASURE, self._size)

    def _look_down(self) -> bool:
        narrow = max(self._config.minimum, round(self._size * DOWN_LOOK))
        if narrow >= self.limit:
            return False
        self._rest_size = self.limit
        self._begin(_Phase.DOWN, narrow)
        return True

    def _look_up(self) -> bool:
        wide = min(math.ceil(self._size * UP_STEP), self._config.maximum)
        if self._ceiling_age_s < CEILING_S:
            wide = min(wide, int(self._top)) if self._ceiling < math.inf else wide
        if wide <= self.limit:
            return False
        self._up_from = self.limit
        if self._ceiling < math.inf:
            self._climb_to, self._phase = wide, _Phase.CLIMB
        else:
            self._begin(_Phase.UP, wide)
        return True

    def _looked_down(self, rate: float) -> None:
        base = self._base or rate
        kept = rate >= DOWN_KEEPS * base
        self._put_off(_Phase.DOWN, worked=kept)
        if rate < DOWN_LOST * base:
            self._pauses[_Phase.DOWN] = KNEE_KNOWN_S
        self._begin(_Phase.MEASURE, self._rest_size * (DOWN_STEP if kept else 1.0))

    def _looked_up(self, rate: float) -> None:
        if rate >= UP_GAIN * (self._base or rate):
            self._begin(_Phase.MEASURE, self._size)
        else:
            self._back_down()

    def _confirm(self, before: float) -> None:
        if (self._base or 0.0) < UP_CONFIRMED * before:
            self._base = before
            self._back_down()
        else:
            self._up_from = None
            self._put_off(_Phase.UP, worked=True)
            self._rest()

    def _back_down(self) -> None:
        size, self._up_from = self._up_from or self.limit, None
        self._put_off(_Phase.UP, worked=False)
        self._begin(_Phase.MEASURE, size)

    def _put_off(self, phase: _Phase, *, worked: bool) -> None:
        self._since[phase] = 0.0
        longer = min(max(PAUSE_S, 2 * self._pauses[phase]), LONGEST_PAUSE_S)
        self._pauses[phase] = 0.0 if worked else longer


class Window:
    """The gate of one event loop: at most `limit` requests are inside.

    Whoever waits is let in in the order of coming, retries first. A slot that is freed goes to the next one at once,
    so nobody overtakes, and a waiter that is cancelled gives back what it was just given. When the limit is lowered,
    the surplus drains.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._in_flight = 0
        self._waiting = 0
        self._retries: deque[asyncio.Future[None]] = deque()
        self._firsts: deque[asyncio.Future[None]] = deque()
        self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._since = clock()  # the last change of what is inside
        self._began: float | None = None
        self._busy_s = self._slot_s = self._short_s = 0.0
        self._asked_at = self._since

    @property
    def limit(self) -> int:
        """How many may be inside; may be set at any time."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if limit != self._limit:
            self._account(self._clock())
            self._limit = limit
            self._admit()

    @property
    def in_flight(self) -> int:
        """How many are inside."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """How many wait at the gate."""
        return self._waiting

    async def acquire(self, first: bool = False) -> None:
        """Waits for a slot and takes it. `first`: before all that wait, but for others that came so."""
        if self._began is None:
            self._began = self._clock()
        if self._in_flight < self._limit and self._timer is None:
            self._account(self._clock())
            self._in_flight += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._retries if first else self._firsts).append(waiter)
        self._waiting += 1
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiting -= 1
            else:  # the slot was handed over in the same turn of the loop
                self.release()
            raise

    def release(self) -> None:
        """Gives a slot back."""
        self._account(self._clock())
        self._in_flight -= 1
        if self._waiting:
            self._admit()

    def pause_until(self, at: float) -> None:
        """Lets nobody in before this time of the clock (`Retry-After`). A shorter pause does not end a longer one."""
        if at > self._paused_until and at > self._clock():
            self._account(self._clock())
            self._paused_until = at
            self._set_timer()

    def mean_in_flight(self, now: float | None = None) -> float:
        """How many were inside on the mean, weighted by time, since the first one came."""
        now = self._now(now)
        seconds = 0.0 if self._began is None else now - self._began
        return self._slot_s / seconds if seconds > 0 else float(self._in_flight)

    def busy_s(self, now: float | None = None) -> float:
        """For how many seconds at least one was inside."""
        self._now(now)
        return self._busy_s

    def take_full(self, now: float | None = None) -> bool:
        """Whether the window was full, and not paused, since the last time this was asked."""
        now = self._now(now)
        seconds, short = now - self._asked_at, self._short_s
        self._asked_at, self._short_s = now, 0.0
        return seconds > 0 and short <= (1 - FULL_SHARE) * seconds

    def _now(self, now: float | None) -> float:
        now = self._clock() if now is None else now
        self._account(now)
        return now

    def _account(self, now: float) -> None:
        """Books the time since the last change; called before every change."""
        seconds, self._since = now - self._since, now
        if self._in_flight:
            self._busy_s += seconds
            self._slot_s += self._in_flight * seconds
        if self._in_flight < self._limit or self._timer is not None:
            self._short_s += seconds

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self._limit and self._timer is None:
            queue = self._retries or self._firsts
            if not queue:
                return  # who is left was cancelled, and has not run yet to say so
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._waiting -= 1
                self._in_flight += 1

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._paused_until - self._clock()
        self._timer = asyncio.get_running_loop().call_later(max(delay, 0.0), self._resume)

    def _resume(self) -> None:
        if self._clock() < self._paused_until:  # timers may ring a little early
            self._set_timer()
            return
        self._account(self._clock())
        self._timer = None
        self._admit()
