"""A forecast counts the very requests of a run; accounts add up; a measured rate gives a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tilth.transforms.inference.accounting import account, measured_rate, remember_rate
from tilth.transforms.inference.cache import CompletionCache
from tilth.transforms.inference.forecast import Known, forecast, known_of
from tilth.transforms.inference.requests import Completion, Request, Sampling, request_key
from tilth.transforms.inference.usage import Caps, Prices, Usage

KNOWN = Known("model", Prices(), Caps(), Usage(), None, None)


@dataclass
class WordCounter:
    """Counts words, so that a test can."""

    exact: bool = True
    how: str = "words"

    def count(self, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[int]:
        return [sum(len(message["content"].split()) for message in prompt) for prompt in prompts]


def _request(text: str, max_tokens: int = 10) -> Request:
    return Request(f"id of {text}", [{"role": "user", "content": text}], Sampling(max_tokens=max_tokens))


PARTS = [[_request("one two"), _request("three")], [replace(_request("three"), id="again"), _request("four")]]


def test_calls_are_what_neither_the_cache_nor_an_equal_request_answers() -> None:
    """Requests = hits + shared + calls; a prompt that is asked once is counted once, wherever it stands."""
    hit = request_key(PARTS[1][1], "model")
    seen = forecast(PARTS, KNOWN, WordCounter(), lambda keys: {hit} & set(keys))
    assert (seen.requests, seen.hits, seen.shared, seen.calls) == (4, 1, 1, 2)
    assert (seen.prompt_tokens, seen.completion_tokens_most) == (3, 20)


def test_what_is_not_known_is_null() -> None:
    """Without prices there is no cost, without a measurement no time, without earlier answers no expectation."""
    seen = forecast(PARTS, KNOWN, WordCounter()).to_dict()
    unknown = {name for name, value in seen.items() if value is None}
    assert unknown == {
        "completion_tokens_expected",
        "cost_most",
        "cost_expected",
        "tokens_per_s",
        "seconds_most",
        "seconds_expected",
        "stops_at",
    }


def test_what_is_known_is_used() -> None:
    """Answers are expected to be as long as earlier ones, and never longer than allowed; cost and time follow."""
    known = replace(KNOWN, prices=Prices(1_000_000, 2_000_000), mean_answer=4.0, tokens_per_s=2.0)
    seen = forecast([[_request("a b"), _request("c", 3)]], known, WordCounter())
    assert (seen.completion_tokens_most, seen.completion_tokens_expected) == (13, 7)
    assert (seen.cost_most, seen.cost_expected) == (3 + 26, 3 + 14)
    assert (seen.seconds_most, seen.seconds_expected) == (8.0, 5.0)


@pytest.mark.parametrize(
    ("caps", "spent", "told"),
    [
        (Caps(max_calls=4), Usage(calls=1), None),
        (Caps(max_calls=3), Usage(calls=1), "--max-calls"),
        (Caps(max_tokens=3), Usage(), None),
        (Caps(max_tokens=3), Usage(completion_tokens=1), "--max-tokens"),
        (Caps(max_cost=2.9), Usage(), "--max-cost"),
    ],
)
def test_a_cap_that_would_stop_the_run_is_named(caps: Caps, spent: Usage, told: str | None) -> None:
    """What earlier sittings spent counts too."""
    known = replace(KNOWN, caps=caps, spent=spent, prices=Prices(1_000_000, 0))
    assert forecast([[_request(text) for text in "abc"]], known, WordCounter()).stops_at == told


def test_what_the_cache_knows_is_of_the_same_model(tmp_path: Path) -> None:
    """Answers of another model say nothing of how long this one's are."""
    with CompletionCache(f"sqlite:///{tmp_path / 'answers.sqlite'}") as cache:
        for n, (identity, length) in enumerate([("model", 3), ("model", 5), ("other", 100)]):
            cache.put(f"key {n}", identity, Completion("text", "stop", 1, length))
        cache.charge("run", Usage(calls=7))
        known = known_of(cache, "run", "model", Prices(), Caps(), None)
    assert (known.mean_answer, known.spent.calls) == (4.0, 7)
    assert known_of(None, "run", "model", Prices(), Caps(), None).mean_answer is None


NOTE: dict[str, Any] = {
    "rows": 4,
    "hits": 1,
    "shared": 0,
    "calls": 3,
    "retries": 0,
    "reasked": 0,
    "failures": {"too_long": 1},
    "prompt_tokens": 60,
    "completion_tokens": 40,
    "seconds": 2.0,
    "in_flight": 0,
    "window": 64,
    "mean_in_flight": 1.5,
    "cost": 0.0,
}


def test_a_sitting_is_the_sum_of_its_lanes() -> None:
    """Counts and rates of lanes add up, and their time runs side by side; the run has an account of its own."""
    spent = Usage(calls=10, prompt_tokens=1_000_000)
    books = account("model", [NOTE, NOTE], spent, Prices(prompt=2.0, completion=4.0))
    assert books.sitting["calls"] == 6
    assert books.sitting["failures"] == {"too_long": 2}
    assert (books.sitting["tokens_per_s"], books.sitting["mean_in_flight"]) == (100.0, 3.0)
    assert books.sitting["cost"] == pytest.approx((120 * 2 + 80 * 4) / 1e6)
    assert (books.run["calls"], books.run["cost"]) == (10, 2.0)


def test_the_books_are_a_property_of_a_version() -> None:
    """A catalog version carries them as one JSON text."""
    books = account("model", [NOTE], Usage(), Prices())
    assert json.loads(books.properties()["tilth.usage"]) == books.to_dict()
    assert books.run["cost"] is None


def test_a_sitting_without_a_call_measures_nothing(tmp_path: Path) -> None:
    """The rate is of the last sitting that asked this model; hits alone leave it as it was."""
    place = str(tmp_path)
    assert measured_rate(place, "model") is None
    remember_rate(place, account("model", [NOTE], Usage(), Prices()))
    remember_rate(place, account("model", [{**NOTE, "calls": 0}], Usage(), Prices()))
    remember_rate(place, account("model", [], Usage(), Prices()))
    assert measured_rate(place, "model") == 50.0
    assert measured_rate(place, "other") is None
