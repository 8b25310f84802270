"""What the engine in this process promises beyond the contract."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast  # Any: what is inside vLLM

import orjson
import psutil
import pytest

from contracts.engine_contract import SECRET, TIMEOUT_S, ask, told
from inference_vllm.shared_engine import SharedEngine, config
from tilth.schemas import ConfigError, Reason
from tilth.transforms.inference.engines import Engine, Load, connect
from tilth.transforms.inference.engines.pool import Pool
from tilth.transforms.inference.engines.vllm import VllmEngine
from tilth.transforms.inference.failures import CallFailed, EngineDied, EngineFailed
from tilth.transforms.inference.requests import Completion

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("default")]
LONG = ask("Tell me everything.", max_tokens=1900)


async def until(holds: Callable[[], bool], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.01)


def inside(engine: Engine) -> Any:
    """The engine, to look at what is private."""
    return engine


def test_late_request_is_dropped_by_the_engine(shared: SharedEngine) -> None:
    """A request over its time fails as retryable, and the engine core works on it no longer."""

    async def work(engine: Engine) -> tuple[CallFailed, int]:
        with pytest.raises(CallFailed) as caught:
            await engine.generate(LONG, 0.2)
        assert inside(engine)._llm.get_num_unfinished_requests() == 0
        await engine.generate(ask("Next", max_tokens=2), TIMEOUT_S)
        return caught.value, inside(engine)._stats.num_running_reqs

    failure, running = shared.use(work)
    assert (failure.reason, failure.retryable) == (Reason.TIMED_OUT, True)
    assert running == 0


def test_load_tells_what_runs(shared: SharedEngine) -> None:
    """While a request runs, the engine says so, uses some KV cache, and tells how many it can run at once."""

    async def work(engine: Engine) -> Load:
        task = asyncio.create_task(engine.generate(LONG, TIMEOUT_S))
        seen = Load(0, 0, 0.0)
        end = time.monotonic() + 30
        while (seen.running == 0 or seen.kv_use == 0.0) and not task.done() and time.monotonic() < end:
            await asyncio.sleep(0.01)
            seen = await engine.load() or seen
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return seen

    seen = shared.use(work)
    assert seen.running == 1
    assert seen.waiting == 0
    assert 0.0 < seen.kv_use < 1.0
    assert seen.slots is not None
    assert seen.slots > 1


def test_refused_request_says_why_without_its_text(shared: SharedEngine) -> None:
    """A schema that vLLM cannot use is this request's failure, and neither it nor the prompt is quoted."""
    schema = orjson.dumps({"type": "object", "properties": {SECRET: {"type": "nosuch"}}}).decode()

    async def work(engine: Engine) -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            await engine.generate(ask(f"{SECRET}?", schema=schema), TIMEOUT_S)
        return caught.value

    failure = shared.use(work)
    assert (failure.reason, failure.retryable, failure.blames_all) == (Reason.REQUEST_REFUSED, False, False)
    assert SECRET not in told(failure)


def test_seeds_and_prompts_longer_than_a_step(shared: SharedEngine) -> None:
    """Many long prompts with seeds, more than the engine reads in one step, are answered, on a CPU too."""

    async def work(engine: Engine) -> list[Completion]:
        requests = [ask(f"{n} " * 300, seed=n, temperature=0.8, max_tokens=4) for n in range(48)]
        return list(await asyncio.gather(*(engine.generate(one, TIMEOUT_S) for one in requests)))

    assert all(one.completion_tokens > 0 for one in shared.use(work))


def test_choice_logprobs_are_of_the_choices(shared: SharedEngine) -> None:
    """Probabilities of choices that begin with different letters add up to at most 1, and to nearly all of it."""

    async def work(engine: Engine) -> Completion:
        return await engine.generate(ask("Is it?", choices=("yes", "no"), want_logprobs=True), TIMEOUT_S)

    got = shared.use(work)
    assert got.choice_logprobs is not None
    assert sum(map(math.exp, got.choice_logprobs)) == pytest.approx(1.0, abs=0.01)
    best = ("yes", "no")[got.choice_logprobs.index(max(got.choice_logprobs))]
    assert got.text == best  # at temperature 0


def test_prompt_is_the_chat_template(shared: SharedEngine) -> None:
    """The tokens are those that the model's own tokenizer makes of the conversation."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello world"}]

    async def work(engine: Engine) -> tuple[list[int], list[int]]:
        prompt = await inside(engine)._render(messages)
        tokenizer = inside(engine)._llm.renderer.get_tokenizer()
        wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return list(prompt["prompt_token_ids"]), list(wanted)

    got, wanted = shared.use(work)
    assert got == wanted


def test_log_holds_no_prompt(shared: SharedEngine) -> None:
    """What vLLM wrote, of requests that failed too, quotes none of them."""

    async def work(engine: Engine) -> list[str]:
        refused = [
            ask(f"{SECRET} " * 5000),
            ask(SECRET, schema="{"),
            ask(SECRET, schema='{"type": "nosuch"}'),
        ]
        await asyncio.gather(*(engine.generate(one, TIMEOUT_S) for one in refused), return_exceptions=True)
        await engine.generate(ask(f"{SECRET}, {SECRET}", max_tokens=4), TIMEOUT_S)
        return [path.read_text() for path in inside(engine)._folder.glob("*.log")]

    logs = shared.use(work)
    assert any(logs)
    assert SECRET not in "".join(logs)


def test_killed_engine_is_told_and_comes_back(shared: SharedEngine) -> None:
    """When the core is killed, requests in flight and after fail with its exit code; a restart answers as before."""

    async def work(engine: Engine) -> tuple[list[object], Completion, Completion, list[psutil.Process]]:
        before = await engine.generate(ask("Again?"), TIMEOUT_S)
        family = list(inside(engine)._family)
        flying = [asyncio.create_task(engine.generate(replace(LONG, id=f"{n}"), TIMEOUT_S)) for n in range(8)]
        await until(lambda: inside(engine)._llm.get_num_unfinished_requests() == 8)
        os.kill(inside(engine)._cores[0].pid, signal.SIGKILL)
        failed: list[object] = await asyncio.wait_for(asyncio.gather(*flying, return_exceptions=True), 30)
        failed += await asyncio.gather(engine.generate(LONG, TIMEOUT_S), return_exceptions=True)
        await engine.restart()
        return failed, before, await engine.generate(ask("Again?"), TIMEOUT_S), family

    failed, before, after, family = shared.use(work)
    assert {type(one) for one in failed} == {EngineDied}
    died = cast("list[EngineDied]", failed)
    assert {one.exit_code for one in died} == {-signal.SIGKILL}
    assert all(one.last_lines for one in died)
    assert after == before
    assert not any(one.is_running() for one in family)


@pytest.mark.parametrize(
    ("args", "found", "wanted"),
    [
        ({"max_num_seq": 4}, "max_num_seq", "max_num_seqs"),
        ({"sampling_params": {"ignore_eoss": True}}, "ignore_eoss", "ignore_eos"),
        ({"sampling_params": {"temperature": 1.0}}, "temperature", "sampling"),
        ({"model": "other"}, "model", "engine.model"),
    ],
)
def test_wrong_arguments_are_named(tiny_model: Path, args: dict[str, Any], found: str, wanted: str) -> None:
    """An argument that vLLM does not know, or that is set elsewhere, is refused with what is meant."""
    with pytest.raises(ConfigError) as caught:
        asyncio.run(connect(replace(config(tiny_model), args=args)).start())
    assert caught.value.found == found
    assert wanted in str(caught.value.wanted)


def test_value_that_vllm_refuses_is_a_config_error(tiny_model: Path) -> None:
    """A value of the wrong kind is refused before anything is loaded."""
    with pytest.raises(ConfigError, match="dtype"):
        asyncio.run(connect(config(tiny_model, dtype="float3")).start())


def test_engine_that_cannot_load_shows_why(tiny_model: Path, tmp_path: Path) -> None:
    """Weights that are broken end the start with what vLLM's processes said, and none of them is left."""
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    engine = VllmEngine(config(tmp_path))
    before = psutil.Process().children(recursive=True)
    with pytest.raises(EngineFailed) as caught:
        asyncio.run(engine.start())
    assert "vllm" in str(caught.value.found)
    left = [one.name() for one in psutil.Process().children(recursive=True) if one not in before]
    assert not [name for name in left if name.startswith("VLLM")]
    asyncio.run(engine.close())


def test_one_engine_per_device(tiny_model: Path) -> None:
    """Each engine's processes see their own device, this process keeps what it saw, and all of them answer."""

    async def run(pool: Pool) -> tuple[list[Completion], list[str]]:
        try:
            await pool.start()
            engines = [inside(member.engine) for member in inside(pool)._members]
            logs = [one._log.read_text() for one in engines]
            return list(await asyncio.gather(*(pool.generate(ask(f"{n}"), TIMEOUT_S) for n in range(8)))), [
                word for log in logs for word in sorted(set(log.split())) if word.startswith("CUDA_VISIBLE")
            ]
        finally:
            await pool.close()

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    pool = connect(replace(config(tiny_model, max_num_seqs=8), devices=("0", "1")))
    assert isinstance(pool, Pool)
    answers, seen = asyncio.run(run(pool))
    assert seen == ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1"]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before
    assert all(one.completion_tokens > 0 for one in answers)
