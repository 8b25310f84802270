"""What `tilth run --dry-run` promises of recipes with models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.sample_world import LOGS
from integration.wild_world import calls, options, run_wild
from loopback import Loopback, serve
from tilth.flows.conductor import Conductor
from tilth.flows.preview import preview
from tilth.flows.recipes import RECIPES
from tilth.flows.settings import load
from tilth.schemas import TABLES

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wildfeedback")]


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


def test_what_is_exact_is_what_the_run_asks(server: Loopback, tmp_path: Path) -> None:
    """The forecast asks nothing; its exact counts are the run's own, and what it ran is not run again."""
    settings = options(tmp_path, server, [str(LOGS / "support.openai.jsonl")])
    server.reset()
    seen = preview("wildfeedback", load(options=settings), Conductor())
    assert server.stats()["received"] == 0
    exact = {one["purpose"]: one["calls"] for one in seen["asked"] if one["known"] == "exact"}
    assert exact.keys() == {"label"}
    result = run_wild(settings)
    assert result.run_id == seen["run_id"]
    assert calls(result)["label"] == exact["label"]
    estimated = {one["purpose"] for one in seen["asked"] if one["known"] == "estimate"}
    assert estimated == calls(result).keys() - {"label"}


def test_a_cap_that_would_stop_the_run_is_named(server: Loopback, tmp_path: Path) -> None:
    """A forecast says which cap stands in the way."""
    settings = options(tmp_path, server, [str(LOGS / "support.openai.jsonl")])
    assert preview("wildfeedback", load(options=settings), Conductor())["stops_at"] is None
    capped = {**settings, "caps": {"max_calls": 3}}
    assert preview("wildfeedback", load(options=capped), Conductor())["stops_at"] == "--max-calls"


def test_replies_of_ultrafeedback_are_exact(server: Loopback, tmp_path: Path) -> None:
    """What each policy is asked for is known from the logs alone."""
    settings = options(tmp_path, server, [str(LOGS / "support.openai.jsonl")])
    own = {**settings, "ultrafeedback": {"policies": ["a", "b"], "samples": 2}}
    seen = preview("ultrafeedback", load(options=own), Conductor())
    exact = {one["purpose"]: one["calls"] for one in seen["asked"] if one["known"] == "exact"}
    assert exact.keys() == {"reply-a", "reply-b"}
    assert exact["reply-a"] == exact["reply-b"] > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_table_says_what_it_was_made_from(recipe: str) -> None:
    """The lineage of a recipe names every table it commits; it leads back to sources, or to the release it reads."""
    lineage = RECIPES[recipe].lineage
    roots = {f"parent.{table}" for table in RECIPES[recipe].tables} or {"sources"}
    assert lineage.keys() <= TABLES.keys()
    for table in lineage:
        seen, waiting = set[str](), {table}
        while waiting:
            seen |= waiting
            waiting = {source for one in waiting for source in lineage.get(one, ())} - seen
        assert seen & roots, table
