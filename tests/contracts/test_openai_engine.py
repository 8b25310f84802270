"""The `openai` engine against the loopback server: the contract, what failures mean, and what is never told."""

from __future__ import annotations

import asyncio
import base64
import logging
import pickle
import resource
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar  # Any: settings of the server

import orjson
import pytest

from contracts.engine_contract import SECRET, EngineContract, ask, told, used
from loopback import Behaviour, Loopback, expected_answer, serve
from tilth.schemas import ConfigError, Reason
from tilth.transforms.inference.engines import Engine, EngineConfig, connect, identify
from tilth.transforms.inference.engines.openai_answers import _wrapped, load_of, match_choices
from tilth.transforms.inference.failures import CallFailed, EngineFailed
from tilth.transforms.inference.requests import Completion, Request

pytestmark = pytest.mark.slow  # servers, processes and databases are started

T = TypeVar("T")
KEY = "sk-loopback-0123456789abcdef"
ASKED = ask("What is the capital of nowhere?", seed=3, max_tokens=64)


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    """One server for the module; each test sets it as it needs."""
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_new(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    server.control(**_DEFAULTS)
    server.reset()
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


_DEFAULTS: dict[str, Any] = {**asdict(Behaviour()), "max_model_len": 1000}


def _config(*servers: Loopback, **settings: Any) -> EngineConfig:
    return EngineConfig(model="loopback", base_urls=tuple(one.url for one in servers), **settings)


def _with(config: EngineConfig, work: Callable[[Engine], Awaitable[T]]) -> T:
    return used(connect(config), work)


def _answer(config: EngineConfig, request: Request = ASKED, timeout_s: float = 20.0) -> Completion:
    return _with(config, lambda engine: engine.generate(request, timeout_s))


def _failure(config: EngineConfig, request: Request = ASKED, timeout_s: float = 20.0) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        _answer(config, request, timeout_s)
    return caught.value


class TestVllmServer(EngineContract):
    """A server that says it is vLLM."""

    too_long_words = 2_000

    @pytest.fixture(autouse=True)
    def _server(self, server: Loopback) -> None:
        self.config = _config(server)

    def make(self) -> Engine:
        return connect(self.config)


class TestOtherServer(TestVllmServer):
    """A server that refuses what only vLLM knows: choices travel as a JSON schema."""

    @pytest.fixture(autouse=True)
    def _plain(self, server: Loopback, _server: None) -> None:
        server.control(vllm=False)


class TestPool(TestVllmServer):
    """Two servers as one engine."""

    @pytest.fixture(autouse=True)
    def _two(self, server: Loopback, _server: None) -> Iterator[None]:
        with serve(max_model_len=1000) as other:
            self.config = _config(server, other)
            yield


def test_the_answer_is_the_one_to_this_prompt(server: Loopback) -> None:
    """Text, finish reason and counts are those that the server gave for these messages and this seed."""
    got = _answer(_config(server))
    assert got.text == expected_answer(ASKED.messages, 3)
    assert (got.finish_reason, got.completion_tokens, got.choice_logprobs) == ("stop", 12, None)


@pytest.mark.parametrize("vllm", [True, False])
def test_a_thousand_answers_are_not_swapped(server: Loopback, vllm: bool) -> None:
    """A thousand requests with uneven latencies, all at once, each get their own right answer."""
    server.control(vllm=vllm, latency_s=0.02, sigma=1.0)
    choices = ("red", "green", "blue")
    requests = [
        ask(f"Row {n}", seed=n, choices=choices if n % 2 else None, max_tokens=64) for n in range(1000)
    ]

    async def work(engine: Engine) -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(one, 60) for one in requests)))

    for one, got in zip(requests, _with(_config(server), work), strict=True):
        seed, shape = one.sampling.seed, _wrapped(choices)
        if vllm or not one.choices:
            assert got.text == expected_answer(one.messages, seed, choices=one.choices)
        else:
            assert {"answer": got.text} == orjson.loads(expected_answer(one.messages, seed, schema=shape))


@pytest.mark.parametrize(
    ("settings", "reason", "retryable", "blames_all", "detail"),
    [
        ({"error_share": 1.0}, Reason.SERVER_ERROR, True, False, "500 server_error"),
        ({"error_share": 1.0, "error_status": 503}, Reason.SERVER_ERROR, True, False, "503 server_error"),
        ({"error_share": 1.0, "error_status": 408}, Reason.TIMED_OUT, True, False, "408 server_error"),
        ({"error_share": 1.0, "error_status": 409}, Reason.SERVER_ERROR, True, False, "409 server_error"),
        ({"error_share": 1.0, "error_status": 422}, Reason.REQUEST_REFUSED, False, False, "422 server_error"),
        ({"error_share": 1.0, "error_status": 413}, Reason.TOO_LONG, False, False, "413 server_error"),
        ({"error_share": 1.0, "error_status": 307}, Reason.REQUEST_REFUSED, False, True, "307 server_error"),
        ({"throttle_share": 1.0}, Reason.RATE_LIMITED, True, False, "429 rate_limit_exceeded"),
        ({"cut_before_share": 1.0}, Reason.CONNECTION_LOST, True, False, "ServerDisconnectedError"),
        ({"cut_within_share": 1.0}, Reason.CONNECTION_LOST, True, False, "ClientPayloadError"),
        ({"not_json_share": 1.0}, Reason.MALFORMED_OUTPUT, True, False, "200 no_answer_in_body"),
        ({"no_choices_share": 1.0}, Reason.MALFORMED_OUTPUT, True, False, "200 no_answer_in_body"),
        ({"empty_share": 1.0}, Reason.MALFORMED_OUTPUT, True, False, "200 empty_content"),
        ({"forbid": True}, Reason.REQUEST_REFUSED, False, True, "403 forbidden"),
        ({"strict_model": True, "model": "another"}, Reason.REQUEST_REFUSED, False, True, "404"),
        ({"poison": "nowhere"}, Reason.REQUEST_REFUSED, False, False, "400"),
        ({"max_model_len": 8}, Reason.TOO_LONG, False, False, "400"),
    ],
)
def test_what_failures_mean(
    server: Loopback, settings: dict[str, Any], reason: Reason, retryable: bool, blames_all: bool, detail: str
) -> None:
    """Each way to fail has its reason, says whether asking again may help, and tells codes only."""
    server.control(**settings)
    failure = _failure(_config(server))
    assert (failure.reason, failure.retryable, failure.blames_all) == (reason, retryable, blames_all)
    assert failure.detail == detail


@pytest.mark.parametrize("form", ["seconds", "date", "ms"])
def test_retry_after_is_read_in_every_form(server: Loopback, form: str) -> None:
    """Seconds, an HTTP date and milliseconds all become seconds to wait; without a header there are none."""
    server.control(throttle_share=1.0, retry_after_s=30.0, retry_after_form=form)
    assert _failure(_config(server)).retry_after_s == pytest.approx(30.0, abs=2.0)
    server.control(retry_after_s=None)
    assert _failure(_config(server)).retry_after_s is None


def test_a_server_that_never_answers_costs_the_time_limit(server: Loopback) -> None:
    """The call ends at its time limit as `timed_out`, and the server sees the request dropped."""
    server.control(never_share=1.0)
    began = time.monotonic()
    failure = _failure(_config(server), timeout_s=0.3)
    assert (failure.reason, failure.retryable) == (Reason.TIMED_OUT, True)
    assert 0.25 < time.monotonic() - began < 5
    _until(lambda: server.stats()["dropped"] == 1)


def test_a_cancelled_request_frees_its_slot(server: Loopback) -> None:
    """Cancelling tells the server, which stops working on it."""
    server.control(latency_s=60.0)

    async def work(engine: Engine) -> None:
        task = asyncio.create_task(engine.generate(ASKED, 60))
        while not (load := await engine.load()) or load.running == 0:
            assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while (load := await engine.load()) and load.running:
            await asyncio.sleep(0.01)

    _with(_config(server), lambda engine: asyncio.wait_for(work(engine), 20))
    assert server.stats()["dropped"] == 1


def test_the_window_is_not_capped_by_connections(server: Loopback) -> None:
    """1,500 requests are in flight at once, in a process that began with the usual limit of open files or less."""
    server.control(latency_s=2.0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, limits[1]))
    requests = [ask(f"Row {n}") for n in range(1500)]

    async def work(engine: Engine) -> None:
        await asyncio.gather(*(engine.generate(one, 60) for one in requests))

    try:
        _with(_config(server), work)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert server.stats()["max_in_flight"] == 1500


def test_one_call_makes_one_attempt(server: Loopback) -> None:
    """Nothing below the engine asks again by itself."""
    for settings in ({"error_share": 1.0}, {"cut_before_share": 1.0}, {"throttle_share": 1.0}):
        server.control(error_share=0.0, cut_before_share=0.0)
        server.control(**settings)
        server.reset()
        _failure(_config(server))
        assert server.stats()["received"] == 1


def test_logprobs_are_those_of_the_server(server: Loopback) -> None:
    """The numbers stand with their choices, and the likelier one is the answer."""
    got = _answer(_config(server), ask("Wet?", choices=("yes", "no", "perhaps"), want_logprobs=True))
    assert got.choice_logprobs is not None
    assert ("yes", "no", "perhaps")[got.choice_logprobs.index(max(got.choice_logprobs))] == got.text


def test_choices_are_matched_by_first_tokens_that_decide() -> None:
    """Sums over tokens that begin one choice; null when a choice is not met or the first token does not decide."""
    ranked = {"yes": -1.0, "y": -3.0, "no": -2.0, "maybe": -2.5, " no": -0.5, "": -0.1}
    assert match_choices(ranked, ("no", "yes")) == pytest.approx((-2.0, -0.8731), abs=1e-3)
    assert match_choices(ranked, ("no", "never")) is None
    assert match_choices({"1": -0.1, "10": -3.0}, ("1", "10")) is None
    assert match_choices({"p": -9.0, "pos": -0.1, "poor": -2.0}, ("positive", "poor")) is not None
    assert match_choices({"ne": -0.1, "neg": -3.0, "neu": -4.0}, ("negative", "neutral")) is None
    assert match_choices({}, ("a", "b")) is None


def test_load_is_read_from_metrics_or_not_asked_again(server: Loopback) -> None:
    """Gauges of a busy server are seen; a server without metrics is asked for them once."""
    text = b'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_running{engine="1"} 4.0\n'
    text += b'vllm:num_requests_waiting{engine="0"} 2.0\nvllm:num_requests_waiting{engine="1"} 0.0\n'
    text += b'vllm:kv_cache_usage_perc{engine="0"} 0.5\nvllm:kv_cache_usage_perc{engine="1"} 0.25\n'
    found = load_of(text)
    assert found is not None
    assert (found.running, found.waiting, found.kv_use) == (7, 2, 0.375)
    server.control(metrics=False)

    async def work(engine: Engine) -> None:
        assert await engine.load() is None
        server.control(metrics=True)
        assert await engine.load() is None

    _with(_config(server), work)


def test_identity_is_model_and_revision() -> None:
    """Where it runs is no part of what answers are known by."""
    config = EngineConfig(model="org/model", base_urls=("http://127.0.0.1:1/v1",))
    assert identify(config) == "org/model"
    assert identify(EngineConfig(model="org/model", revision="abc123")) == "org/model@abc123"


def test_a_key_is_needed_for_openai_only(server: Loopback) -> None:
    """Without base URLs a missing key is a `ConfigError` that names the variable; a server of one's own needs none."""
    with pytest.raises(ConfigError, match="export OPENAI_API_KEY"):
        _answer(EngineConfig(model="any"))
    assert _answer(_config(server)).text


def test_the_key_and_headers_come_from_the_named_variables(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key of `api_key_env` is sent; extra headers of `headers_env` are sent and win."""
    server.control(api_key=KEY)
    monkeypatch.setenv("TILTH_TEST_KEY", f" {KEY}\n")
    assert _answer(_config(server, api_key_env="TILTH_TEST_KEY")).text
    monkeypatch.setenv("TILTH_TEST_KEY", "other")
    monkeypatch.setenv("TILTH_TEST_HEADERS", f'{{"Authorization": "Bearer {KEY}"}}')
    assert _answer(_config(server, api_key_env="TILTH_TEST_KEY", headers_env="TILTH_TEST_HEADERS")).text
    for broken in ("not JSON", "[]", '{"a": 1}'):
        monkeypatch.setenv("TILTH_TEST_HEADERS", broken)
        with pytest.raises(ConfigError, match="TILTH_TEST_HEADERS"):
            _answer(_config(server, headers_env="TILTH_TEST_HEADERS"))


def test_a_refused_key_blames_all(server: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    """401 in the middle of a run is no failure of one row, and tells the server's code, not its message."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.control(api_key="another")
    failure = _failure(_config(server))
    assert (failure.reason, failure.retryable, failure.blames_all) == (Reason.REQUEST_REFUSED, False, True)
    assert failure.detail == "401 invalid_api_key"
    assert KEY not in told(failure)


@pytest.mark.parametrize(
    "settings",
    [
        {"poison": SECRET}, {"max_model_len": 3}, {"api_key": "other"}, {"error_share": 1.0}, {"throttle_share": 1.0},
        {"cut_before_share": 1.0}, {"cut_within_share": 1.0}, {"not_json_share": 1.0}, {"never_share": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_nothing_tells_the_key_or_the_prompt(
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
) -> None:
    """Neither is in an exception or those behind it, in repr, in a pickle or in any log at DEBUG; nor is a password."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.control(**settings)
    texts: list[str] = []

    async def work(engine: Engine) -> None:
        with pytest.raises(CallFailed) as caught:
            await engine.generate(ask(f"Tell {SECRET}."), 0.3)
        texts.extend([told(caught.value), repr(engine), str(engine)])
        texts.append(pickle.dumps(engine).decode(errors="replace"))

    with caplog.at_level(logging.DEBUG):
        _with(_config(server), work)
    texts += [caplog.text, *(str(vars(record)) for record in caplog.records)]
    assert not any(KEY in text or SECRET in text for text in texts)


def test_credentials_of_a_url_are_used_and_not_shown(
    server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL's own credentials go ahead of the key, as basic authentication; repr and errors leave them out."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    config = EngineConfig(model="loopback", base_urls=(f"http://someone:pa%40ss@127.0.0.1:{server.port}/v1",))
    assert _answer(config).text
    assert "pa%40ss" not in repr(connect(config))
    assert "someone" not in repr(connect(config))
    encoded = base64.b64encode(b"someone:pa@ss").decode()
    assert encoded not in repr(connect(config))


def test_an_engine_pickles(server: Loopback) -> None:
    """A pickled engine is one that is not started, of the same configuration, and answers once it is."""
    made = pickle.loads(pickle.dumps(connect(_config(server))))

    async def run() -> Completion:
        await made.start()
        try:
            return await made.generate(ASKED, 20)
        finally:
            await made.close()

    assert asyncio.run(run()).text == expected_answer(ASKED.messages, 3)


def test_a_server_that_is_not_there_is_named() -> None:
    """Starting fails within seconds and names the host; a URL that is none is a `ConfigError`."""
    with serve() as gone:
        port = gone.port
    with pytest.raises(EngineFailed, match=rf"127\.0\.0\.1:{port}"):
        _answer(EngineConfig(model="m", base_urls=(f"http://someone:secret@127.0.0.1:{port}/v1",)))
    with pytest.raises(ConfigError, match="base URL"):
        connect(EngineConfig(model="m", base_urls=("127.0.0.1:8000",)))


def test_an_engine_goes_on_after_a_restart(server: Loopback) -> None:
    """`restart` connects anew."""

    async def work(engine: Engine) -> Completion:
        await engine.restart()
        return await engine.generate(ASKED, 20)

    assert _with(_config(server), work).text


def _until(holds: Callable[[], bool], limit_s: float = 10.0) -> None:
    ends = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < ends, "it did not come to hold in time"
        time.sleep(0.01)
