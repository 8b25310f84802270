"""What the inference benchmarks share: rows to ask, our stage through Beam, and the raw asyncio client beside it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))  # the loopback server is a part of the tests

from loopback import Loopback  # noqa: E402
from tilth.transforms.inference.accounting import used_of  # noqa: E402
from tilth.transforms.inference.ask import Ask  # noqa: E402
from tilth.transforms.inference.calling import Patience  # noqa: E402
from tilth.transforms.inference.engines import EngineConfig, identify  # noqa: E402
from tilth.transforms.inference.usage import Usage  # noqa: E402
from tilth.transforms.inference.window import WindowConfig  # noqa: E402
from tilth.transforms.inference.worker import Account, WorkerConfig  # noqa: E402
from tilth.transforms.parts import Shard, read_part, write_part  # noqa: E402
from tilth.transforms.shell import Runner  # noqa: E402
from tilth.transforms.stage import Manifest, Stage, notes, numbered, parts, run_stage, total  # noqa: E402

SHARD_ROWS = 500
WORDS = "the reply was polite and wrong about the date of the second meeting, so please judge it"


def rows(count: int, edited: int | None = None, prompt: str = "Judge this reply") -> pl.DataFrame:
    """A request frame of `count` short prompts; `edited` is the row that differs from the last time."""
    texts = [f"{prompt} {n}{' anew' if n == edited else ''}: {WORDS}" for n in range(count)]
    messages = [[{"role": "user", "content": text}] for text in texts]
    return pl.DataFrame({"id": [f"row-{n:06d}" for n in range(count)], "messages": messages}).with_columns(
        max_tokens=pl.lit(64, pl.Int32)
    )


@dataclass(frozen=True)
class Run:
    """One run of ours."""

    seconds: float
    manifests: list[Manifest]
    usage: Usage

    @property
    def completions(self) -> pl.DataFrame:
        """What was answered, in order."""
        return _read(parts(self.manifests, "completions"))

    @property
    def quarantine(self) -> pl.DataFrame:
        """What was not."""
        return _read(parts(self.manifests, "quarantine"))

    @property
    def answered(self) -> int:
        """How many rows have an answer."""
        return total(self.manifests, "answered")


def _read(shards: Sequence[Shard]) -> pl.DataFrame:
    return pl.concat([read_part(shard) for shard in shards]) if shards else pl.DataFrame()


def shards_of(frame: pl.DataFrame, place: Path) -> list[Shard]:
    """The frame as parts of `SHARD_ROWS` rows."""
    slices = frame.iter_slices(SHARD_ROWS)
    return [write_part(part, str(place / f"{n:04d}.parquet")) for n, part in enumerate(slices)]


def ask(
    server: Loopback,
    frame: pl.DataFrame,
    place: Path,
    window: WindowConfig | None = None,
    patience: Patience | None = None,
    name: str = "ask",
    run: str = "bench",
) -> Run:
    """Answers a frame through Beam with cache and journal on; the time holds all of it but reading the sources."""
    engine = EngineConfig("openai", "loopback", base_urls=(server.url,))
    worker = WorkerConfig(window or WindowConfig(), patience or Patience())
    url = f"sqlite:///{place}/answers.sqlite"
    step = Ask(identify(engine), engine, url, Account(run), worker, purpose=name)
    shards = shards_of(frame, place / "requests")
    tasks = numbered([{}] * len(shards), [{"requests": (shard,)} for shard in shards])
    stage = Stage(step, f"{place}/stages/{run}-{name}")
    with Runner().session() as execute:
        started = time.perf_counter()
        manifests = run_stage(stage, tasks, execute)
        seconds = time.perf_counter() - started
    return Run(seconds, manifests, used_of(notes(stage, tasks)))


def raw(server: Loopback, frame: pl.DataFrame, window: int) -> float:
    """Seconds that a bare asyncio client takes: no retries, no cache, nothing written down."""

    async def go() -> float:
        gate = asyncio.Semaphore(window)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def one(messages: list[dict[str, str]]) -> str:
                body = {"model": "loopback", "messages": messages, "max_tokens": 64}
                async with gate, session.post(f"{server.url}/chat/completions", json=body) as answer:
                    return (await answer.json())["choices"][0]["message"]["content"]

            started = time.perf_counter()
            answers = await asyncio.gather(*(one(m) for m in frame.get_column("messages").to_list()))
            assert len(answers) == frame.height
            return time.perf_counter() - started

    return asyncio.run(go())
