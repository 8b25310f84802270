"""How many requests are in flight: a policy that follows what is observed, and the gate that it moves."""

from __future__ import annotations

from dataclasses import dataclass

from tilth.transforms.inference.engines import Load


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


class WindowPolicy:
    """Decides the size of the window from what is seen. Pure: no clock, no I/O."""

    def __init__(self, config: WindowConfig) -> None:
        self.limit = config.size or config.initial

    def observe(self, seen: Interval) -> int:
        """The new size, after one interval."""
        raise NotImplementedError(seen)
