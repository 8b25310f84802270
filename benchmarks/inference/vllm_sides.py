"""What the vLLM benchmarks share: sides that answer the same prompts, each a process with a model that stays loaded.

A side is `raw` (vLLM's own `LLM`), `engine` (ours, a bare window of requests) or `worker` (ours whole: engine, adaptive
window, cache on disk). Sides take turns, so that a machine that grows slower grows slower for all.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARD_ROWS = 128
DAY_S = 86_400.0


@dataclass(frozen=True)
class Spec:
    """One measurement: the model, what is asked, and how."""

    model: str
    args: dict[str, Any]
    prompts: int
    words: list[str]  # that prompts are made of
    length: int  # of a prompt, in words
    max_tokens: int
    temperature: float
    seeded: bool
    ignore_eos: bool
    chat: bool  # raw: `LLM.chat`, else `LLM.generate` of the rendered text
    sampling: dict[str, Any] = field(default_factory=dict)

    def texts(self, turn: int) -> list[str]:
        """The prompts of one turn: the same for all sides, other ones in each turn, for the prefix cache's sake."""
        draw = random.Random(turn)
        return [" ".join(draw.choices(self.words, k=self.length)) for _ in range(self.prompts)]


@dataclass(frozen=True)
class Turn:
    """What one side did in one turn."""

    seconds: float
    prompt_tokens: int
    tokens: int

    @property
    def rate(self) -> float:
        """Completion tokens per second."""
        return self.tokens / self.seconds


class Side:
    """A side in a process of its own."""

    def __init__(self, kind: str, spec: Spec) -> None:
        self.kind = kind
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        command = [sys.executable, str(Path(__file__).resolve()), kind, json.dumps(asdict(spec))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._answer()  # loaded

    def turn(self, number: int) -> Turn:
        """Answers all prompts of a turn."""
        assert self._process.stdin is not None
        print(number, file=self._process.stdin, flush=True)
        return Turn(**self._answer())

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:  # vLLM's own output may stand between
            if line.startswith("side:"):
                return json.loads(line.removeprefix("side:"))
        self._log.seek(0)
        raise SystemExit(f"{self.kind} ended:\n{self._log.read().decode()[-4000:]}")

    def close(self) -> None:
        """Ends the process and its engine."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def sides(kinds: Sequence[str], spec: Spec) -> Iterator[list[Side]]:
    """All sides, loaded and warm."""
    loaded: list[Side] = []
    try:
        for kind in kinds:
            loaded.append(Side(kind, spec))
            loaded[-1].turn(-1)
        yield loaded
    finally:
        for side in loaded:
            side.close()


def compare(
    loaded: Sequence[Side], repeats: int, around: Callable[[Side, int], Turn]
) -> dict[str, list[Turn]]:
    """`repeats` turns of each side, in an order that changes from turn to turn."""
    found: dict[str, list[Turn]] = {side.kind: [] for side in loaded}
    for number in range(repeats):
        order = list(loaded) if number % 2 == 0 else list(loaded)[::-1]
        for side in order:
            found[side.kind].append(around(side, number))
    return found


def table(found: dict[str, list[Turn]], extra: Callable[[str], str] = lambda _: "") -> str:
    """Medians of tokens/s, their spread, and the median of the ratios to raw, turn by turn."""
    lines = [
        "| side | tokens/s, median | from .. to | tokens per turn | of raw |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, turns in found.items():
        rates = [turn.rate for turn in turns]
        ratio = statistics.median(mine.rate / raw.rate for mine, raw in zip(turns, found["raw"], strict=True))
        lines.append(
            f"| {kind}{extra(kind)} | {statistics.median(rates):,.0f} | {min(rates):,.0f} .. {max(rates):,.0f} | "
            f"{statistics.median(turn.tokens for turn in turns):,.0f} | {ratio:.1%} |"
        )
    return "\n".join(lines)


# The other side of the pipe.


def main(kind: str, spec: Spec) -> None:
    """Loads the model, then answers one turn for each number on standard input."""
    if kind == "raw":
        _raw(spec)
    else:
        asyncio.run(_serve({"engine": _through_engine, "worker": _through_worker}[kind], spec))


def _say(**told: Any) -> None:
    print(f"side:{json.dumps(told)}", flush=True)


def _raw(spec: Spec) -> None:
    vllm = importlib.import_module("vllm")
    llm = vllm.LLM(model=spec.model, disable_log_stats=True, **spec.args)
    _say()
    for line in sys.stdin:
        texts = spec.texts(int(line))
        started = time.perf_counter()
        outputs = _raw_answers(llm, vllm, spec, texts)
        seconds = time.perf_counter() - started
        prompt_tokens = sum(len(one.prompt_token_ids) for one in outputs)
        tokens = sum(len(one.outputs[0].token_ids) for one in outputs)
        _say(seconds=seconds, prompt_tokens=prompt_tokens, tokens=tokens)


def _raw_answers(llm: Any, vllm: Any, spec: Spec, texts: list[str]) -> Any:
    params = [
        vllm.SamplingParams(
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            seed=index if spec.seeded else None,
            ignore_eos=spec.ignore_eos,
            output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
            **spec.sampling,
        )
        for index in range(len(texts))
    ]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    if spec.chat:
        return llm.chat(conversations, params, use_tqdm=False)
    tokenizer = llm.get_tokenizer()
    rendered = [
        tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=True)
        for one in conversations
    ]
    return llm.generate(rendered, params, use_tqdm=False)


async def _serve(answer: Callable[..., Awaitable[list[Any]]], spec: Spec) -> None:
    from tilth.transforms.inference.engines import EngineConfig, connect

    extra = {**spec.sampling, **({"ignore_eos": True} if spec.ignore_eos else {})}
    config = EngineConfig(kind="vllm", model=spec.model, args={**spec.args, "sampling_params": extra})
    engine = connect(config)
    await engine.start()
    _say()
    while line := await asyncio.to_thread(sys.stdin.readline):
        texts = spec.texts(int(line))
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            completions = await answer(engine, spec, texts, folder)
            seconds = time.perf_counter() - started
        prompt_tokens = sum(one.prompt_tokens for one in completions)
        _say(
            seconds=seconds,
            prompt_tokens=prompt_tokens,
            tokens=sum(one.completion_tokens for one in completions),
        )
    await engine.close()


def _requests(spec: Spec, texts: list[str]) -> list[Any]:
    from tilth.transforms.inference.requests import Request, Sampling

    def one(index: int, text: str) -> Request:
        seed = index if spec.seeded else None
        sampling = Sampling(temperature=spec.temperature, max_tokens=spec.max_tokens, seed=seed)
        return Request(id=str(index), messages=[{"role": "user", "content": text}], sampling=sampling)

    return [one(index, text) for index, text in enumerate(texts)]


async def _through_engine(engine: Any, spec: Spec, texts: list[str], folder: str) -> list[Any]:
    """A window of twice what the engine runs at once, without worker, cache or journal."""
    del folder
    requests = iter(_requests(spec, texts))
    found: list[Any] = []

    async def lane() -> None:
        for request in requests:
            found.append(await engine.generate(request, DAY_S))  # noqa: PERF401 - lanes share the list

    slots = (await engine.load()).slots
    await asyncio.gather(*(lane() for _ in range(2 * slots)))
    return found


class _Kept:
    """An engine that the worker may start and close as often as it likes."""

    def __init__(self, engine: Any) -> None:
        self.generate, self.load, self.restart = engine.generate, engine.load, engine.restart

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class _Shard:
    """Some of the requests, as a job of the worker."""

    def __init__(self, requests: Sequence[Any], found: list[Any]) -> None:
        self._requests, self._found = requests, found

    def requests(self) -> Sequence[Any]:
        return self._requests

    def finish(self, outcomes: Sequence[Any]) -> None:
        self._found.extend(outcomes)


async def _through_worker(engine: Any, spec: Spec, texts: list[str], folder: str) -> list[Any]:
    """Everything that stands between a shard and its answers: window, retries, cache on disk, accounts."""
    from tilth.transforms.inference.cache import CompletionCache
    from tilth.transforms.inference.worker import Account, Worker, WorkerConfig

    requests, found = _requests(spec, texts), []
    shards = [_Shard(requests[at : at + SHARD_ROWS], found) for at in range(0, len(requests), SHARD_ROWS)]
    with CompletionCache(f"sqlite:///{folder}/cache.db") as cache:
        await Worker(_Kept(engine), cache, "benchmark", WorkerConfig(), Account("benchmark")).run(shards)
    return found


if __name__ == "__main__":
    main(sys.argv[1], Spec(**json.loads(sys.argv[2])))
