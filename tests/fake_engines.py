"""Engines named for what they do wrong. Each answers with a text that follows from the messages alone."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tilth.schemas import Reason
from tilth.transforms.inference.engines import Load
from tilth.transforms.inference.failures import CallFailed, EngineDied
from tilth.transforms.inference.requests import Completion, Request


def right_answer(request: Request) -> str:
    """What an honest engine says: a function of the messages, the seed and the sample."""
    said = repr([dict(message) for message in request.messages])
    key = f"{said}|{request.sampling.seed}|{request.sample_index}"
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()


def asked_of(request: Request) -> str:
    """The text of the first message: what the fakes know requests by."""
    return request.messages[0]["content"]


@dataclass
class HonestEngine:
    """Answers every request rightly, after `delay(request)` turns of the event loop."""

    delay: Callable[[Request], int] = lambda _: 0
    asked: Counter[str] = field(default_factory=Counter)
    seen: list[Request] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    starts: int = 0
    closed: int = 0

    async def start(self) -> None:
        """Counts."""
        self.starts += 1

    async def restart(self) -> None:
        """Counts."""
        self.starts += 1

    async def close(self) -> None:
        """Counts."""
        self.closed += 1

    async def load(self) -> Load | None:
        """Says nothing."""
        return None

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        """The right answer."""
        self.asked[asked_of(request)] += 1
        self.seen.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for _ in range(self.delay(request)):
                await asyncio.sleep(0)
            return await self.answer(request)
        finally:
            self.running -= 1

    async def answer(self, request: Request) -> Completion:
        """What comes after the delay; fakes change this."""
        return Completion(right_answer(request), "stop", 10, 5)


@dataclass
class PoisonedEngine(HonestEngine):
    """Refuses for good every request whose text is in `poison`; its message quotes the request, as servers do."""

    poison: frozenset[str] = frozenset()
    blames_all: bool = False

    async def answer(self, request: Request) -> Completion:
        """The right answer, or a refusal."""
        if asked_of(request) in self.poison:
            raise CallFailed(Reason.REQUEST_REFUSED, "HTTP 400", blames_all=self.blames_all)
        return await super().answer(request)


@dataclass
class FlakyEngine(HonestEngine):
    """Fails the first `failures` calls of every text with `reason`, then answers."""

    failures: int = 1
    reason: Reason = Reason.SERVER_ERROR
    retry_after_s: float | None = None

    async def answer(self, request: Request) -> Completion:
        """A failure, then the right answer."""
        if self.asked[asked_of(request)] <= self.failures:
            raise CallFailed(self.reason, "HTTP 500", retryable=True, retry_after_s=self.retry_after_s)
        return await super().answer(request)


@dataclass
class DyingEngine(HonestEngine):
    """Dies at the calls with these ordinals, and takes all that is in flight with it until it is restarted."""

    at: Sequence[int] = ()
    calls: int = 0
    dead: bool = False

    async def restart(self) -> None:
        """Comes back to life."""
        await super().restart()
        self.dead = False

    async def generate(self, request: Request, timeout_s: float) -> Completion:
        """The right answer while it lives; what was in flight at a death is lost, also when it is back by then."""
        life = self.starts
        completion = await super().generate(request, timeout_s)
        self.calls += 1
        self.dead = self.dead or self.calls in self.at
        if self.dead or life != self.starts:
            raise EngineDied(-9, ("CUDA error: out of memory",))
        return completion


@dataclass
class BabblingEngine(HonestEngine):
    """Answers with `texts` in turn, per text asked; the last one from then on."""

    texts: Sequence[str] = ("nonsense",)

    async def answer(self, request: Request) -> Completion:
        """The next text for this request's first message."""
        turn = min(self.asked[asked_of(request)], len(self.texts)) - 1
        return Completion(self.texts[turn], "stop", 10, 5)


@dataclass
class BrokenEngine(HonestEngine):
    """Raises what no engine should: an exception of its own that quotes the user."""

    async def answer(self, request: Request) -> Completion:
        """Never answers."""
        raise RuntimeError(f"cannot handle {asked_of(request)}")


@dataclass
class HeldEngine(HonestEngine):
    """Does not answer texts in `held` until it is told to `let_go`."""

    held: frozenset[str] = frozenset()
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Completion:
        """The right answer, for held texts after `let_go`."""
        if asked_of(request) in self.held:
            await self.gate.wait()
        return await super().answer(request)

    def let_go(self) -> None:
        """Answers what is held."""
        self.gate.set()


@dataclass
class SociableEngine(HonestEngine):
    """Answers nothing before `company` requests are in flight at once; from then on it answers all."""

    company: int = 2
    enough: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Completion:
        """The right answer, in company."""
        if self.running >= self.company:
            self.enough.set()
        await asyncio.wait_for(self.enough.wait(), 20)
        return await super().answer(request)
