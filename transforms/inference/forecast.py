"""What a run would ask and cost, counted on its very requests before any is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tilth.transforms.inference.accounting import priced
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.requests import Request, request_key
from tilth.transforms.inference.usage import Caps, Prices, Usage

if TYPE_CHECKING:
    from tilth.transforms.inference.tokens import TokenCounter


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would ask. Retries and answers that must be asked for again come on top.

    `expected` rests on answers of the same model in the cache, `most` on the longest answer that is allowed; costs are
    null where no prices are set, times null where no earlier sitting measured the model.
    """

    model: str
    requests: int
    hits: int  # already in the cache
    shared: int  # answered by the call of an equal request
    calls: int
    prompt_tokens: int  # of the calls
    exact: bool  # whether prompt tokens were counted by the model's own tokenizer
    counted_by: str
    completion_tokens_most: int
    completion_tokens_expected: int | None
    cost_most: float | None
    cost_expected: float | None
    tokens_per_s: float | None  # measured in the last sitting with this model
    seconds_most: float | None
    seconds_expected: float | None
    stops_at: str | None  # the cap that would stop the run, as an option

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the model and the run before it is asked anything."""

    identity: str
    prices: Prices
    caps: Caps
    spent: Usage  # by earlier sittings of the run
    mean_answer: float | None  # completion tokens of an answer of the same model
    tokens_per_s: float | None


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    hits: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    most: int = 0
    expected: float = 0.0


def known_of(
    cache: CompletionCache | None,
    run: str,
    identity: str,
    prices: Prices,
    caps: Caps,
    tokens_per_s: float | None,
) -> Known:
    """What the cache (null where there is none yet) knows of the run and the model."""
    spent = cache.spent(run) if cache else Usage()
    same = [one for one in (cache.stats().identities if cache else ()) if one.identity == identity]
    mean = same[0].completion_tokens / same[0].rows if same and same[0].rows else None
    return Known(identity, prices, caps, spent, mean, tokens_per_s)


def forecast(
    parts: Iterable[Sequence[Request]],
    known: Known,
    counter: TokenCounter,
    hits: Callable[[Sequence[str]], Iterable[str]] = lambda _: (),
) -> Forecast:
    """Counts the requests of all parts. `hits` tells which keys the cache has."""
    tally, asked = _Tally(), set[str]()
    for requests in parts:
        keys = [request_key(request, known.identity) for request in requests]
        there = set(hits(keys))
        calls = {
            key: request
            for key, request in zip(keys, requests, strict=True)
            if key not in there and key not in asked
        }
        asked |= calls.keys()
        tally.requests += len(keys)
        tally.hits += sum(key in there for key in keys)
        _count(tally, list(calls.values()), known, counter)
    return _forecast(tally, known, counter)


def _count(tally: _Tally, calls: Sequence[Request], known: Known, counter: TokenCounter) -> None:
    most = [request.sampling.max_tokens for request in calls]
    tally.calls += len(calls)
    tally.prompt_tokens += sum(counter.count([request.messages for request in calls]))
    tally.most += sum(most)
    tally.expected += sum(min(one, known.mean_answer or 0.0) for one in most)


def _forecast(tally: _Tally, known: Known, counter: TokenCounter) -> Forecast:
    expected = None if known.mean_answer is None else round(tally.expected)
    return Forecast(
        known.identity,
        tally.requests,
        tally.hits,
        tally.requests - tally.hits - tally.calls,
        tally.calls,
        tally.prompt_tokens,
        counter.exact,
        counter.how,
        tally.most,
        expected,
        _cost(known, tally.prompt_tokens, tally.most),
        _cost(known, tally.prompt_tokens, expected),
        known.tokens_per_s,
        _seconds(known, tally.prompt_tokens, tally.most),
        _seconds(known, tally.prompt_tokens, expected),
        _stops_at(tally, expected, known),
    )


def _cost(known: Known, prompt_tokens: int, completion_tokens: int | None) -> float | None:
    if completion_tokens is None or not priced(known.prices):
        return None
    return round(known.prices.cost(prompt_tokens, completion_tokens), 6)


def _seconds(known: Known, prompt_tokens: int, completion_tokens: int | None) -> float | None:
    if completion_tokens is None or not known.tokens_per_s:
        return None
    return round((prompt_tokens + completion_tokens) / known.tokens_per_s, 1)


def _stops_at(tally: _Tally, expected: int | None, known: Known) -> str | None:
    """The first cap that is below what would be spent; of tokens as expected, or the prompts' alone."""
    spent, caps = known.spent, known.caps
    prompt = spent.prompt_tokens + tally.prompt_tokens
    completion = spent.completion_tokens + (expected or 0)
    needed = {
        "max_calls": spent.calls + tally.calls,
        "max_tokens": prompt + completion,
        "max_cost": known.prices.cost(prompt, completion),
    }
    for name, amount in needed.items():
        cap = getattr(caps, name)
        if cap is not None and tally.calls and amount > cap:
            return "--" + name.replace("_", "-")
    return None
