"""The worker: labels are joined by id alone, nothing is asked twice, what fails is one row, caps and budgets hold."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake_engines import (
    BabblingEngine,
    BrokenEngine,
    DyingEngine,
    FlakyEngine,
    HeldEngine,
    HonestEngine,
    PoisonedEngine,
    SociableEngine,
    right_answer,
)
from tilth.schemas import Reason, TilthError
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.calling import Failure, Outcome, Patience
from tilth.transforms.inference.engines import Engine
from tilth.transforms.inference.failures import CapReached, EngineFailed
from tilth.transforms.inference.requests import Completion, Request, Sampling
from tilth.transforms.inference.usage import Caps, Prices, Usage
from tilth.transforms.inference.window import WindowConfig
from tilth.transforms.inference.worker import Account, Worker, WorkerConfig

QUICK = Patience(backoff_s=0.001, max_backoff_s=0.002)
SCHEMA = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


@dataclass
class Listed:
    """A job of given requests that remembers its outcomes and counts how often it was told them."""

    asks: Sequence[Request]
    outcomes: list[Outcome] = field(default_factory=list)
    finished: int = 0
    on_finish: Callable[[], None] = lambda: None

    def requests(self) -> Sequence[Request]:
        return self.asks

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes, self.finished = list(outcomes), self.finished + 1
        self.on_finish()

    def texts(self) -> list[str]:
        return [outcome.text for outcome in self.outcomes if isinstance(outcome, Completion)]

    def failures(self) -> list[Failure]:
        return [outcome for outcome in self.outcomes if isinstance(outcome, Failure)]


def ask(text: str, **more: object) -> Request:
    return replace(Request(f"id-{text}", [{"role": "user", "content": text}]), **more)


def asks(count: int, start: int = 0) -> list[Request]:
    return [ask(f"row {n}") for n in range(start, start + count)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/answers.sqlite"


def answer(
    engine: Engine,
    jobs: Sequence[Listed],
    url: str,
    caps: Caps | None = None,
    prices: Prices | None = None,
    **config: object,
) -> Usage:
    """Runs a worker over jobs in an event loop of its own."""
    given = replace(WorkerConfig(WindowConfig(size=8), QUICK), **config)
    with CompletionCache(url) as cache:
        account = Account("run", prices or Prices(), caps or Caps())
        return asyncio.run(Worker(engine, cache, "model@1", given, account).run(jobs))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_answers_are_joined_by_id_alone(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """However calls are delayed, repeated, spread over jobs and windows, every row gets the answer to its own words."""
    numbers = data.draw(st.lists(st.integers(0, 12), max_size=40))
    delays = data.draw(st.lists(st.integers(0, 9), min_size=13, max_size=13))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(numbers)), max_size=4)))
    poison = frozenset(f"row {n}" for n in data.draw(st.sets(st.integers(0, 12), max_size=3)))
    requests = [replace(ask(f"row {n}"), id=f"{place}") for place, n in enumerate(numbers)]
    bounds = [0, *cuts, len(requests)]
    jobs = [Listed(requests[low:high]) for low, high in itertools.pairwise(bounds)]
    engine = PoisonedEngine(delay=lambda r: delays[int(r.messages[0]["content"][4:])], poison=poison)
    place = f"sqlite:///{tmp_path_factory.mktemp('cache')}/answers.sqlite"
    window = WindowConfig(size=data.draw(st.integers(1, 9)))
    usage = answer(engine, jobs, place, window=window, min_failures=10**6)
    assert [job.finished for job in jobs] == [1] * len(jobs)
    for job in jobs:
        for request, outcome in zip(job.asks, job.outcomes, strict=True):
            if request.messages[0]["content"] in poison:
                assert outcome == Failure(Reason.REQUEST_REFUSED, "HTTP 400, calls: 1")
            else:
                assert isinstance(outcome, Completion)
                assert outcome.text == right_answer(request)
    assert engine.most_running <= window.size
    assert all(engine.asked[text] == 1 for text in engine.asked if text not in poison)
    assert usage.rows == len(requests)
    assert usage.calls + usage.hits + usage.shared == len(requests)


def test_a_second_run_asks_nothing(url: str) -> None:
    """Answers outlive the run: the same requests again are hits, in other jobs and another order too."""
    answer(HonestEngine(), [Listed(asks(30))], url)
    second, job = HonestEngine(), Listed(asks(30)[::-1])
    usage = answer(second, [job], url)
    assert (second.asked.total(), usage.calls, usage.hits) == (0, 0, 30)
    assert job.texts() == [right_answer(request) for request in job.asks]


def test_one_edited_row_costs_one_call(url: str) -> None:
    """B5: of 1,000 rows one is edited; exactly one call is made, and its answer is fresh."""
    answer(HonestEngine(), [Listed(asks(1000))], url)
    edited = [*asks(500), ask("edited", id="id-row 500"), *asks(499, 501)]
    engine, job = HonestEngine(), Listed(edited)
    answer(engine, [job], url)
    assert dict(engine.asked) == {"edited": 1}
    assert job.texts()[500] == right_answer(edited[500])


CHANGES = {
    "words": {"messages": [{"role": "user", "content": "other"}]},
    "role": {"messages": [{"role": "system", "content": "row 0"}]},
    "temperature": {"sampling": Sampling(temperature=0.5)},
    "top_p": {"sampling": Sampling(top_p=0.5)},
    "max_tokens": {"sampling": Sampling(max_tokens=7)},
    "stop": {"sampling": Sampling(stop=("x",))},
    "seed": {"sampling": Sampling(seed=1)},
    "sample": {"sample_index": 1},
    "choices": {"choices": (right_answer(ask("row 0")), "b")},
    "logprobs": {"want_logprobs": True},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_whatever_decides_the_answer_is_in_the_key(changed: str, url: str) -> None:
    """A change of anything that can change the answer is asked anew."""
    answer(HonestEngine(), [Listed([ask("row 0")])], url)
    engine = HonestEngine()
    answer(engine, [Listed([replace(ask("row 0"), **CHANGES[changed])])], url)
    assert engine.asked.total() == 1


def test_another_model_is_asked_anew(url: str) -> None:
    """An answer of one model is never given for another, or for another revision."""
    answer(HonestEngine(), [Listed(asks(1))], url)
    engine = HonestEngine()
    with CompletionCache(url) as cache:
        worker = Worker(engine, cache, "model@2", WorkerConfig(), Account("run"))
        asyncio.run(worker.run([Listed(asks(1))]))
    assert engine.asked.total() == 1


def test_a_slow_row_holds_up_no_other_job(url: str) -> None:
    """No barrier: while the first job waits for its slowest row, all later jobs are answered and finished."""
    engine = HeldEngine(held=frozenset({"row 0"}))
    loops: list[asyncio.AbstractEventLoop] = []

    first = Listed(asks(10))
    last = Listed(asks(10, 40), on_finish=lambda: loops[0].call_soon_threadsafe(engine.let_go) and None)
    jobs = [first, Listed(asks(30, 10)), last]

    async def go() -> None:
        loops.append(asyncio.get_running_loop())
        with CompletionCache(url) as cache:
            worker = Worker(engine, cache, "m", WorkerConfig(WindowConfig(size=2)), Account("run"))
            await asyncio.wait_for(worker.run(jobs), 20)

    asyncio.run(go())
    assert [job.finished for job in jobs] == [1, 1, 1]


def test_a_window_of_fixed_size_is_kept_full(url: str) -> None:
    """As many requests are in flight as the window allows, over the borders of jobs that are smaller, and no more."""
    engine = SociableEngine(company=7)
    answer(engine, [Listed(asks(3, 3 * n)) for n in range(20)], url, window=WindowConfig(size=7))
    assert engine.most_running == 7


def test_a_failing_call_is_made_again(url: str) -> None:
    """What may pass is retried with backoff until it is answered; what was retried is counted."""
    engine, job = FlakyEngine(failures=2, delay=lambda _: 3), Listed(asks(20))
    usage = answer(engine, [job], url, window=WindowConfig(size=3))
    assert len(job.texts()) == 20
    assert engine.most_running == 3
    assert (usage.calls, usage.retries, usage.failures) == (60, 40, {})


def test_a_row_that_keeps_failing_is_set_aside(url: str) -> None:
    """Attempts are bounded; the row is one failure with its reason, and the others are answered."""

    class OneBadRow(FlakyEngine):
        async def answer(self, request: Request) -> Completion:
            return await (
                super().answer(request)
                if "row 3" in str(request.messages)
                else HonestEngine.answer(self, request)
            )

    job = Listed(asks(10))
    usage = answer(OneBadRow(failures=10**6), [job], url)
    assert job.failures() == [Failure(Reason.SERVER_ERROR, "HTTP 500, calls: 6")]
    assert len(job.texts()) == 9
    assert usage.failures == {"server_error": 1}


def test_what_cannot_pass_is_not_retried(url: str) -> None:
    """A refusal of one row costs one call."""
    engine, job = PoisonedEngine(poison=frozenset({"row 4"})), Listed(asks(10))
    answer(engine, [job], url)
    assert engine.asked["row 4"] == 1
    assert [f.reason for f in job.failures()] == [Reason.REQUEST_REFUSED]


def test_too_many_requests_never_use_up_attempts(url: str) -> None:
    """429 says later, not no: a row is not set aside for it while its time lasts."""
    engine, job = FlakyEngine(failures=20, reason=Reason.RATE_LIMITED, retry_after_s=0.001), Listed(asks(3))
    answer(engine, [job], url)
    assert len(job.texts()) == 3


def test_a_rows_time_is_bounded(url: str) -> None:
    """After its total time a row is set aside with what it last met."""
    engine, job = FlakyEngine(failures=10**9, reason=Reason.RATE_LIMITED, retry_after_s=0.02), Listed(asks(2))
    answer(engine, [job], url, patience=replace(QUICK, total_timeout_s=0.1))
    assert {f.reason for f in job.failures()} == {Reason.RATE_LIMITED}


def test_a_misfit_is_asked_again_with_what_was_wrong(url: str) -> None:
    """An answer that does not fit its schema is asked for again; the model sees the error, and another seed is used."""
    engine = BabblingEngine(texts=["nonsense", '{"n": "one"}', '{"n": 1}'])
    job = Listed([ask("row 0", schema=SCHEMA, sampling=Sampling(seed=5))])
    usage = answer(engine, [job], url)
    assert job.texts() == ['{"n": 1}']
    assert (usage.calls, usage.reasked, usage.retries) == (3, 2, 0)
    first, second, third = engine.seen
    assert "not JSON" in second.messages[-1]["content"]
    assert "$.n" in third.messages[-1]["content"]
    assert len({first.sampling.seed, second.sampling.seed, third.sampling.seed}) == 3


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ask("row 0", schema=SCHEMA), "no json"),
        (ask("row 0", schema=SCHEMA), '{"n": 1.5}'),
        (ask("row 0", schema=SCHEMA), "[]"),
        (ask("row 0", choices=("yes", "no")), "perhaps"),
        (ask("row 0"), "  \n"),
    ],
)
def test_what_never_fits_is_set_aside(request_: Request, text: str, url: str) -> None:
    """After a bounded number of times a misfit is a failure, whatever was asked for, and is not cached."""
    engine, job = BabblingEngine(texts=[text]), Listed([request_])
    answer(engine, [job], url)
    assert job.failures() == [Failure(Reason.MALFORMED_OUTPUT, "calls: 3")]
    with CompletionCache(url) as cache:
        assert cache.stats().rows == 0


def test_an_answer_in_a_fence_is_unwrapped(url: str) -> None:
    """JSON in one Markdown fence is the JSON; a choice with white space around it is the choice."""
    fenced, spaced = Listed([ask("a", schema=SCHEMA)]), Listed([ask("b", choices=("yes", "no"))])
    answer(BabblingEngine(texts=['```json\n{"n": 3}\n```']), [fenced], url)
    answer(BabblingEngine(texts=[" yes\n"]), [spaced], url)
    assert fenced.texts() + spaced.texts() == ['{"n": 3}', "yes"]


def test_an_engines_own_mistake_tells_no_text(url: str) -> None:
    """An exception that an engine should not raise fails the row; what it quotes of the user goes nowhere."""
    job = Listed(asks(2))
    answer(BrokenEngine(), [job], url)
    assert {f.detail for f in job.failures()} == {"the engine raised RuntimeError, calls: 1"}


def test_when_nearly_everything_fails_the_run_stops_and_says_why(url: str) -> None:
    """The failure budget: an early stop that names the commonest cause, long before all rows have failed."""
    engine = PoisonedEngine(poison=frozenset(f"row {n}" for n in range(1000)))
    with pytest.raises(EngineFailed, match="25 of the first 25 requests failed") as stopped:
        answer(engine, [Listed(asks(1000))], url)
    assert "HTTP 400" in str(stopped.value)
    assert engine.asked.total() < 60


def test_a_run_with_some_failures_goes_on(url: str) -> None:
    """Below the failure budget every other row is answered."""
    engine, job = PoisonedEngine(poison=frozenset(f"row {n}" for n in range(0, 100, 3))), Listed(asks(100))
    usage = answer(engine, [job], url)
    assert (len(job.texts()), usage.failures) == (66, {"request_refused": 34})


def test_a_refused_key_stops_the_run_at_once(url: str) -> None:
    """When the first answer says that no request can succeed, the run ends without asking the others."""
    engine = PoisonedEngine(poison=frozenset({"row 0"}), blames_all=True)
    with pytest.raises(EngineFailed, match="answers no request"):
        answer(engine, [Listed(asks(100))], url, window=WindowConfig(size=1))
    assert engine.asked.total() == 1


def test_a_dead_engine_is_started_again(url: str) -> None:
    """An engine that dies is restarted once for all rows in flight, and every row is answered."""
    engine, job = DyingEngine(at=[5, 30], delay=lambda _: 3), Listed(asks(60))
    answer(engine, [job], url)
    assert job.texts() == [right_answer(request) for request in job.asks]
    assert engine.starts == 3


def test_an_engine_that_keeps_dying_is_given_up(url: str) -> None:
    """Restarts are bounded; the error shows the exit code and the last lines of the log."""
    engine = DyingEngine(at=range(1, 1000))
    with pytest.raises(EngineFailed) as stopped:
        answer(engine, [Listed(asks(60))], url)
    assert engine.starts == 3
    assert "exit code -9" in str(stopped.value)
    assert "out of memory" in str(stopped.value)


@pytest.mark.parametrize(
    ("cap", "higher", "calls"),
    [
        (Caps(max_calls=10), Caps(max_calls=1000), 10),
        (Caps(max_tokens=150), Caps(max_tokens=10**6), 10),
        (Caps(max_cost=0.0002), Caps(max_cost=1.0), 10),
    ],
)
def test_a_cap_stops_cleanly_and_a_higher_one_goes_on(cap: Caps, higher: Caps, calls: int, url: str) -> None:
    """What was answered by then is kept, the same cap again makes no call, a higher one asks only what is left."""
    prices = Prices(prompt=1.0, completion=2.0)  # 10 and 5 tokens a row: 0.00002 a row
    first = HonestEngine()
    one = WindowConfig(size=1)
    with pytest.raises(CapReached, match="is reached"):
        answer(first, [Listed(asks(40))], url, cap, prices, window=one)
    again = HonestEngine()
    with pytest.raises(CapReached):
        answer(again, [Listed(asks(40))], url, cap, prices, window=one)
    last, job = HonestEngine(), Listed(asks(40))
    answer(last, [job], url, higher, prices)
    assert [first.asked.total(), again.asked.total(), last.asked.total()] == [calls, 0, 40 - calls]
    assert job.texts() == [right_answer(request) for request in job.asks]


def test_a_cap_on_calls_is_exact_with_many_in_flight_and_retries(url: str) -> None:
    """Retries count: not one call more than the cap is made, however many rows are in flight."""
    engine = FlakyEngine(failures=1, delay=lambda _: 3)
    with pytest.raises(CapReached):
        answer(engine, [Listed(asks(100))], url, Caps(max_calls=33))
    assert engine.asked.total() == 33


def test_a_jobs_error_ends_the_run(url: str) -> None:
    """What a job raises when it is finished (a full disk, say) comes out as it was raised."""

    def fail() -> None:
        raise TilthError("the disk is full")

    with pytest.raises(TilthError, match="the disk is full"):
        answer(HonestEngine(), [Listed(asks(3), on_finish=fail), Listed(asks(1000, 3))], url)


def test_jobs_that_cannot_be_read_end_the_run(url: str) -> None:
    """What a job raises when it is read comes out as it was raised, and the engine is closed."""

    def jobs() -> Iterator[Listed]:
        yield Listed(asks(3))
        raise TilthError("the part is gone")

    engine = HonestEngine()
    with CompletionCache(url) as cache, pytest.raises(TilthError, match="the part is gone"):
        asyncio.run(Worker(engine, cache, "m", WorkerConfig(), Account("run")).run(jobs()))
    assert engine.closed


def test_what_a_run_spent_is_kept_over_its_sittings(url: str) -> None:
    """Calls and tokens of a run add up in the cache's database, sitting by sitting."""
    answer(HonestEngine(), [Listed(asks(10))], url)
    answer(HonestEngine(), [Listed(asks(15))], url)
    with CompletionCache(url) as cache:
        spent = cache.spent("run")
    assert (spent.calls, spent.rows, spent.hits) == (15, 25, 10)
    assert (spent.prompt_tokens, spent.completion_tokens) == (150, 75)
