"""The server that other tests measure and judge with does what it says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any  # Any: settings of the server

import aiohttp
import jsonschema
import orjson
import pytest

from loopback import Loopback, expected_answer, prompt_hash, request_hash, serve

pytestmark = pytest.mark.slow  # servers, processes and databases are started

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["x", "y"]},
        "stars": {"type": "integer", "minimum": 3, "maximum": 5},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "minItems": 2},
        "note": {"type": "string", "minLength": 20, "maxLength": 25},
        "sure": {"type": "boolean"},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
    },
    "required": ["label", "stars", "parts", "note", "sure", "maybe"],
    "$defs": {
        "part": {"type": "object", "properties": {"weight": {"type": "number", "minimum": 0, "maximum": 1}}}
    },
}


def _said(n: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Row {n}"}]


async def _ask_all(server: Loopback, rows: list[int]) -> list[int]:
    """The statuses, asked all at once; 0 for a connection that was cut."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(n: int) -> int:
            try:
                body = orjson.dumps({"model": "m", "messages": _said(n), "seed": n})
                async with session.post(f"{server.url}/chat/completions", data=body) as got:
                    await got.read()
                    return got.status
            except aiohttp.ClientError:
                return 0

        return list(await asyncio.gather(*(one(n) for n in rows)))


def test_slots_bound_the_work_and_are_kept_busy() -> None:
    """No more than `slots` answers are worked on at once, and a full line keeps them busy the whole time."""
    with serve(slots=8, latency_s=0.02, sigma=0.5) as server:
        asyncio.run(_ask_all(server, list(range(200))))
        stats = server.stats()
    assert (stats["received"], stats["finished"]) == (200, 200)
    # A client on a busy machine may still be sending when the first answers are done.
    assert stats["max_in_flight"] > 8
    assert 4.0 < stats["mean_busy"] <= 8.0
    assert stats["span_s"] > 200 * 0.02 / 8


def test_fates_follow_from_content_and_attempt_not_from_order() -> None:
    """The same rows meet the same faults in any order and in another process; the shares are kept; attempts differ."""
    faults: dict[str, Any] = {
        "error_share": 0.2,
        "throttle_share": 0.1,
        "cut_before_share": 0.1,
        "cut_within_share": 0.1,
    }
    rows = list(range(400))
    with serve(**faults) as server, serve(**faults) as other:
        first = asyncio.run(_ask_all(server, rows))
        turned = asyncio.run(_ask_all(other, rows[::-1]))[::-1]
        second = asyncio.run(_ask_all(server, rows))
    assert first == turned
    assert first != second
    assert 50 < first.count(500) < 110
    assert 20 < first.count(429) < 60
    assert 50 < first.count(0) < 110


def test_the_log_tells_what_was_asked_and_answered(tmp_path: Path) -> None:
    """One line per received request and per finished answer, by prompt and by request, in the order of time."""
    with serve(log=tmp_path / "log", latency_s=0.01) as server:
        asyncio.run(_ask_all(server, [1, 2, 1]))
        events = server.events()
    assert sorted(one.kind for one in events) == ["finished"] * 3 + ["received"] * 3
    assert [one.prompt for one in events].count(prompt_hash(_said(1))) == 4
    assert {one.request for one in events} == {request_hash(_said(n), n) for n in (1, 2)}
    assert [one.at_s for one in events] == sorted(one.at_s for one in events)


def test_it_dies_on_the_request_after_so_many() -> None:
    """`die_after` ends the process with what was in flight."""
    with serve(die_after=5, latency_s=0.2) as server:
        assert asyncio.run(_ask_all(server, list(range(6)))) == [0] * 6
        assert server.process.wait(10) == 70


def test_answers_fit_their_schema_and_differ_by_seed() -> None:
    """`expected_answer` fits every schema of the kinds it knows; a choice is the same whichever way they stand."""
    answers = [expected_answer(_said(1), seed, schema=SCHEMA) for seed in range(50)]
    for one in answers:
        jsonschema.validate(orjson.loads(one), SCHEMA)
    assert len(set(answers)) == 50
    assert expected_answer(_said(1), 1, choices=["a", "b"]) == expected_answer(
        _said(1), 1, choices=["b", "a"]
    )


def test_an_unknown_setting_is_refused() -> None:
    """A misspelt behaviour fails loudly instead of being the default."""
    with serve() as server, pytest.raises(AssertionError, match="slotz"):
        server.control(slotz=3)
