"""What every engine keeps. `EngineContract` is subclassed by one test class per engine, which says how to make one.

The suite needs no particular model: it never knows an answer in advance, it compares answers with each other.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar  # Any: JSON

import jsonschema
import orjson
import pytest

from tilth.schemas import Reason
from tilth.transforms.inference.engines import Engine
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion, Request, Sampling

T = TypeVar("T")
TIMEOUT_S = 120.0
SECRET = "Quetzalcoatl7431"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["a", "b", "tie"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["verdict", "score"],
    "additionalProperties": False,
}


def ask(
    text: str, *, seed: int | None = None, temperature: float = 0.0, max_tokens: int = 16, **more: Any
) -> Request:
    """A request of one user message."""
    stop = tuple(more.pop("stop", ()))
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed, stop=stop)
    return Request(id=text, messages=[{"role": "user", "content": text}], sampling=sampling, **more)


def used(engine: Engine, work: Callable[[Engine], Awaitable[T]]) -> T:
    """Runs the work with an engine that is started for it, and closes it."""

    async def run() -> T:
        try:
            await engine.start()
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(run())


class EngineContract:
    """Subclass it as `Test…` and give `make`; an engine that is slow to start may override `use` to share one."""

    too_long_words = 5_000  # so many words are more than the model's context

    def make(self) -> Engine:
        """An engine that is not started."""
        raise NotImplementedError

    def use(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Runs the work with a started engine, and closes it."""

        return used(self.make(), work)

    def answers(self, requests: list[Request]) -> list[Completion]:
        """The answers, asked all at once."""

        async def work(engine: Engine) -> list[Completion]:
            return list(await asyncio.gather(*(engine.generate(one, TIMEOUT_S) for one in requests)))

        return self.use(work)

    def test_answers_match_their_requests(self) -> None:
        """64 requests at once, in any order, get the answers that they got before: none is swapped."""
        requests = [
            ask(f"Number {n}: what comes after {n * 7}?", choices=(f"{n} up", f"{n} down")) for n in range(64)
        ]
        got = self.answers(requests + requests[::-1])
        texts = [one.text for one in got]
        assert all(text in (one.choices or ()) for text, one in zip(texts[:64], requests, strict=True))
        assert all(text in (one.choices or ()) for text, one in zip(texts[64:], requests[::-1], strict=True))

    def test_a_choice_is_one_of_the_choices(self) -> None:
        """The text is one of the choices, bare."""
        choices = ("yes", "no", "not sure")
        got = self.answers([ask(f"Is {n} even?", choices=choices) for n in range(8)])
        assert {one.text for one in got} <= set(choices)

    def test_an_answer_fits_its_schema(self) -> None:
        """The text is JSON that fits the schema."""
        schema = orjson.dumps(SCHEMA).decode()
        got = self.answers([ask(f"Judge {n}.", schema=schema, max_tokens=200) for n in range(4)])
        for one in got:
            jsonschema.validate(orjson.loads(one.text), SCHEMA)

    def test_choice_logprobs_stand_in_the_order_of_the_choices(self) -> None:
        """One float per choice or none at all; turning the choices round turns the numbers round."""
        there = ask("Is water wet?", choices=("yes", "no"), want_logprobs=True)
        back = replace(there, choices=("no", "yes"))
        first, second = (one.choice_logprobs for one in self.answers([there, back]))
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert len(first) == len(second) == 2
            assert all(math.isfinite(value) and value <= 1e-6 for value in first)
            assert first == pytest.approx(second[::-1], abs=0.05)

    def test_logprobs_that_cannot_be_told_apart_are_not_given(self) -> None:
        """Choices that begin alike get one float each or null, never a list of another length."""
        (got,) = self.answers([ask("Which?", choices=("part one", "part two", "part"), want_logprobs=True)])
        assert got.choice_logprobs is None or len(got.choice_logprobs) == 3

    def test_logprobs_only_when_wanted(self) -> None:
        """A request that does not want them gets none."""
        (got,) = self.answers([ask("Is ice cold?", choices=("yes", "no"))])
        assert got.choice_logprobs is None

    def test_max_tokens_is_kept(self) -> None:
        """An answer that would go on ends with `length`, and has no more tokens than asked for."""
        (got,) = self.answers([ask("Tell me a long story.", max_tokens=3)])
        assert got.finish_reason == "length"
        assert 0 < got.completion_tokens <= 3

    def test_stop_strings_end_the_answer(self) -> None:
        """The text ends before the stop string, which is not part of it, and the reason is `stop`."""

        async def work(engine: Engine) -> tuple[Completion, Completion, str]:
            whole = await engine.generate(ask("Tell me a story.", max_tokens=40), TIMEOUT_S)
            stop = _middle(whole.text)
            return (
                whole,
                await engine.generate(ask("Tell me a story.", max_tokens=40, stop=(stop,)), TIMEOUT_S),
                stop,
            )

        whole, cut, stop = self.use(work)
        assert cut.finish_reason == "stop"
        assert stop not in cut.text
        assert whole.text.startswith(cut.text)

    def test_tokens_are_counted(self) -> None:
        """Both counts are above zero, and a longer prompt counts more."""
        short, long = self.answers([ask("Hello there"), ask("Hello there " * 20)])
        assert min(short.prompt_tokens, short.completion_tokens, long.completion_tokens) > 0
        assert long.prompt_tokens > short.prompt_tokens

    def test_a_prompt_that_is_too_long_is_its_own_failure(self) -> None:
        """It raises `CallFailed` with `too_long`, not retryable; the engine goes on, and no prompt text is told."""

        async def work(engine: Engine) -> tuple[BaseException, Completion]:
            with pytest.raises(CallFailed) as caught:
                await engine.generate(ask(f"{SECRET} " * self.too_long_words), TIMEOUT_S)
            return caught.value, await engine.generate(ask("Still there?"), TIMEOUT_S)

        failure, after = self.use(work)
        assert isinstance(failure, CallFailed)
        assert (failure.reason, failure.retryable, failure.blames_all) == (Reason.TOO_LONG, False, False)
        assert after.completion_tokens > 0
        assert SECRET not in told(failure)

    def test_cancelling_one_leaves_the_others(self) -> None:
        """A cancelled request ends at once; requests beside it and after it are answered."""

        async def work(engine: Engine) -> list[Completion]:
            tasks = [asyncio.create_task(engine.generate(ask(f"Row {n}"), TIMEOUT_S)) for n in range(8)]
            await asyncio.sleep(0)
            tasks[3].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[3]
            rest = await asyncio.gather(*(task for n, task in enumerate(tasks) if n != 3))
            return [*rest, await engine.generate(ask("Row 3"), TIMEOUT_S)]

        assert all(one.completion_tokens > 0 for one in self.use(work))

    def test_close_twice(self) -> None:
        """Closing a closed engine, or one that was never started, does nothing."""

        async def run() -> None:
            await self.make().close()
            engine = self.make()
            await engine.start()
            await engine.close()
            await engine.close()

        asyncio.run(run())

    def test_a_closed_engine_says_so(self) -> None:
        """`generate` after `close` raises at once, and no prompt text is told."""

        async def run() -> BaseException:
            engine = self.make()
            await engine.start()
            await engine.close()
            with pytest.raises((CallFailed, EngineDied, EngineFailed, RuntimeError)) as caught:
                await asyncio.wait_for(engine.generate(ask(f"{SECRET}?"), TIMEOUT_S), 10)
            return caught.value

        assert SECRET not in told(asyncio.run(run()))

    def test_load_is_sane_or_not_said(self) -> None:
        """`load` is null, or counts that are not negative and a share in [0, 1]."""

        async def work(engine: Engine) -> None:
            await engine.generate(ask("Hello"), TIMEOUT_S)
            load = await engine.load()
            if load is not None:
                assert min(load.running, load.waiting) >= 0
                assert 0.0 <= load.kv_use <= 1.0
                assert load.slots is None or load.slots > 0

        self.use(work)

    def test_seeds_decide(self) -> None:
        """At temperature 1, an equal seed gives an equal text and other seeds give other texts."""
        requests = [ask("Say anything.", seed=seed, temperature=1.0) for seed in (1, 1, 2, 3, 4)]
        same, again, *others = [one.text for one in self.answers(requests)]
        assert same == again
        assert any(text != same for text in others)


def _middle(text: str) -> str:
    """A piece of the text from behind its beginning, as long as needed to be met there first."""
    at = len(text) // 2
    for size in range(1, len(text) - at + 1):
        if text.find(text[at : at + size]) == at:
            return text[at : at + size]
    return text[at:]


def told(error: BaseException) -> str:
    """Everything that an exception and those behind it say, as a log would show it."""
    parts: list[str] = []
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        parts += [str(at), repr(at), repr(vars(at)), *getattr(at, "__notes__", [])]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(parts)
