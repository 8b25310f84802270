"""One row's way to its answer: attempts with backoff, misfits asked for again, a dead engine revived."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tilth.schemas import Reason
from tilth.transforms.inference.engines import Engine
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion, Request
from tilth.transforms.inference.structured import Misfit, ask_again, fitted
from tilth.transforms.inference.usage import Usage
from tilth.transforms.inference.window import Window


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try. Nothing here changes what an answer is."""

    request_timeout_s: float = 600.0  # of one attempt
    total_timeout_s: float = 3600.0  # of one row, with all of its attempts and waits
    attempts: int = 6  # of one row, when calls fail in a way that may pass
    backoff_s: float = 0.5  # before the second attempt at most; doubles, with full jitter
    max_backoff_s: float = 30.0
    reasks: int = 2  # how often an answer that does not fit is asked for again, with the error
    restarts: int = 2  # of a dead engine, in one sitting


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer. `detail` holds codes and numbers, no text of anybody's."""

    reason: Reason
    detail: str


Outcome = Completion | Failure


@dataclass(slots=True)
class Pulse:
    """What calls have met since it was last looked at; the window's policy feeds on it."""

    finished: int = 0
    throttled: int = 0
    latency_s: float = 0.0  # summed over the finished


@dataclass(slots=True)
class _Row:
    """Where one row stands."""

    deadline: float
    calls: int = 0
    failed: int = 0  # calls that failed by no fault of the row's, 429 left out: it says "later", not "no"
    reasks: int = 0


@dataclass(slots=True)
class Caller:
    """Calls the engine for rows that hold a place in the window; counts what it does in `usage` and `pulse`."""

    engine: Engine
    window: Window
    patience: Patience
    usage: Usage
    permit: Callable[[], None]  # counts a call before it is made, or raises `CapReached`
    pulse: Pulse = field(default_factory=Pulse)
    answered: int = 0
    _restarts: int = 0
    _lives: int = 0
    _reviving: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, request: Request) -> Outcome:
        """The answer to `request`, or why there is none. The place in the window is given back in any case.

        The first call has been permitted by whoever gave the place. Raises `EngineFailed` when no other row can be
        answered either, `CapReached` when the row would need another call and may not have it.
        """
        row = _Row(time.monotonic() + self.patience.total_timeout_s)
        asked = request
        while True:
            lives = self._lives
            try:
                completion = await self._call(asked, row)
            except CallFailed as failed:
                if (outcome := await self._after_failure(failed, row)) is not None:
                    return outcome
                continue
            except EngineDied as died:
                await self._after_death(died, lives)
                continue
            try:
                found = fitted(request, completion)
            except Misfit as misfit:
                if row.reasks == self.patience.reasks:
                    self.window.release()
                    return Failure(Reason.MALFORMED_OUTPUT, f"calls: {row.calls}")
                row.reasks += 1
                self.usage.reasked += 1
                asked = ask_again(request, completion, misfit, row.reasks)
                continue
            self.window.release()
            self.answered += 1
            return found

    async def _call(self, request: Request, row: _Row) -> Completion:
        if row.calls:
            self._permit_or_release()
        row.calls += 1
        started = time.monotonic()
        timeout_s = max(0.001, min(self.patience.request_timeout_s, row.deadline - started))
        try:
            completion = await self.engine.generate(request, timeout_s)
        except (CallFailed, EngineDied):
            raise
        except asyncio.CancelledError:
            self.window.release()
            raise
        except (
            Exception
        ) as error:  # an engine's own mistake: the type is all that can be told without user text
            raise CallFailed(Reason.SERVER_ERROR, f"the engine raised {type(error).__name__}") from error
        self.pulse.finished += 1
        self.pulse.latency_s += time.monotonic() - started
        self.usage.prompt_tokens += completion.prompt_tokens
        self.usage.completion_tokens += completion.completion_tokens
        return completion

    def _permit_or_release(self) -> None:
        try:
            self.permit()
        except BaseException:
            self.window.release()
            raise

    async def _after_failure(self, failed: CallFailed, row: _Row) -> Failure | None:
        """Waits and takes a new place in the window, or says why it does not."""
        self.window.release()
        if failed.reason is Reason.RATE_LIMITED:
            self.pulse.throttled += 1
        else:
            row.failed += 1
        if failed.blames_all and not self.answered:
            raise EngineFailed(
                "the engine answers no request",
                found=failed.detail,
                wanted="a request that it accepts",
                do="check the model's name, the base URL and the API key",
            )
        wait_s = self._wait_s(failed, row)
        now = time.monotonic()
        if not failed.retryable or row.failed >= self.patience.attempts or now + wait_s >= row.deadline:
            return Failure(failed.reason, f"{failed.detail}, calls: {row.calls}")
        if failed.retry_after_s is not None:
            self.window.pause_until(now + failed.retry_after_s)
        self.usage.retries += 1
        await asyncio.sleep(wait_s)
        await self.window.acquire(first=True)
        return None

    def _wait_s(self, failed: CallFailed, row: _Row) -> float:
        # Full jitter (Brooker, "Exponential backoff and jitter", 2015): rows that failed together come back apart.
        ceiling = min(self.patience.max_backoff_s, self.patience.backoff_s * 2 ** max(0, row.failed - 1))
        return (failed.retry_after_s or 0.0) + random.uniform(0.0, ceiling)

    async def _after_death(self, died: EngineDied, lives: int) -> None:
        self.window.release()
        async with self._reviving:
            if lives == self._lives:  # else another row has seen to it
                await self._revive(died)
        await self.window.acquire(first=True)

    async def _revive(self, died: EngineDied) -> None:
        if self._restarts == self.patience.restarts:
            said = "".join(f"\n    {line}" for line in died.last_lines)
            raise EngineFailed(
                f"the engine died {self._restarts + 1} times",
                found=f"exit code {died.exit_code}{said}",
                wanted="an engine that stays up",
                do="look at its log; finished rows are kept, run again to go on",
            )
        self._restarts += 1
        await self.engine.restart()
        self._lives += 1
