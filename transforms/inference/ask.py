"""The step that asks a model: parts of requests in, parts of completions out, over one window per lane."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Final  # Any: JSON values

import orjson
import polars as pl

from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.calling import Failure, Outcome
from tilth.transforms.inference.engines import EngineConfig, connect
from tilth.transforms.inference.requests import Completion, Request, to_frame, to_requests
from tilth.transforms.inference.worker import Account, Snapshot, Worker, WorkerConfig
from tilth.transforms.parts import read_part
from tilth.transforms.stage import Output, Task, Work

_PAYLOAD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Ask:
    """Answers requests with a model.

    Input: `requests` parts (`REQUESTS`). Writes `completions` (`COMPLETIONS`, in the order of the requests) and one
    `quarantine` row for each request without an answer. Only `identity` (`engines.identify`) decides what comes out.
    """

    identity: str
    engine: EngineConfig = field(compare=False)
    cache_url: str = field(compare=False, repr=False)
    account: Account = field(compare=False)
    worker: WorkerConfig = field(default_factory=WorkerConfig, compare=False)
    lanes: int = field(default=1, compare=False)
    purpose: str = (
        "ask"  # what rows without an answer name as their stage; a recipe may ask for several things
    )

    name: ClassVar[str] = "ask"
    version: ClassVar[str] = "1"

    def run(self, task: Task, out: Output) -> None:
        """One task alone. A stage calls `run_lane`."""
        self._answer([_Shard(task, out, self, lambda: None)], lambda _: None)

    def run_lane(self, works: Iterable[Work], note: Callable[[Mapping[str, Any]], None]) -> None:
        """All tasks of a lane through one window."""
        jobs = (_Shard(work.task, work.out, self, lambda work=work: work.done()) for work in works)
        self._answer(jobs, note)

    def _answer(self, jobs: Iterable[_Shard], note: Callable[[Mapping[str, Any]], None]) -> None:
        with CompletionCache(self.cache_url) as cache, _short_pauses():
            worker = Worker(connect(self.engine), cache, self.identity, self.worker, self.account)
            asyncio.run(worker.run(jobs, lambda seen: note(self._note(seen))))
            note(self._note(worker.snapshot()))

    def _note(self, seen: Snapshot) -> Mapping[str, Any]:
        usage = seen.usage
        cost = self.account.prices.cost(usage.prompt_tokens, usage.completion_tokens)
        flow = {"seconds": seen.seconds, "in_flight": seen.in_flight, "window": seen.window}
        return {**asdict(usage), **flow, "mean_in_flight": seen.mean_in_flight, "cost": cost}


@contextlib.contextmanager
def _short_pauses() -> Generator[None]:
    """Leaves what is loaded by now (Beam alone: 130,000 objects) out of the garbage collector's rounds.

    A full round took up to 120 ms, in which no answer is taken and no request sent: without this, B3 runs at 2,400
    rows/s instead of 3,500.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True, slots=True)
class _Shard:
    """One task as a job of the worker."""

    task: Task
    out: Output
    step: Ask
    done: Callable[[], object]

    def requests(self) -> Sequence[Request]:
        """The requests of the task's parts."""
        return to_requests(pl.concat([read_part(shard) for shard in self.task.inputs["requests"]]))

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Writes what was answered and what was not, then the manifest."""
        requests = self.requests()  # read again: holding them while the slowest rows finish would cost memory
        answered = [(r.id, o) for r, o in zip(requests, outcomes, strict=True) if isinstance(o, Completion)]
        failed = [(r, o) for r, o in zip(requests, outcomes, strict=True) if isinstance(o, Failure)]
        ids, completions = [id_ for id_, _ in answered], [completion for _, completion in answered]
        self.out.count("requests", len(requests))
        self.out.count("answered", len(answered))
        self.out.write("completions", to_frame(ids, completions, self.step.identity))
        self.out.write("quarantine", _set_aside(failed, self.step.purpose))
        self.done()


def _set_aside(failed: Sequence[tuple[Request, Failure]], stage: str) -> pl.DataFrame:
    rows = [
        {
            "source": "requests",
            "stage": stage,
            "reason": failure.reason.value,
            "key": f"requests#id={request.id}",
            "detail": failure.detail,
            "payload": orjson.dumps(request.messages).decode()[:_PAYLOAD_BYTES],
            "source_rows": 0,
        }
        for request, failure in failed
    ]
    names = ("source", "stage", "reason", "key", "detail", "payload")
    return pl.DataFrame(rows, schema={**dict.fromkeys(names, pl.String), "source_rows": pl.Int32})
