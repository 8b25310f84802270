"""`tilth evaluate` as a user meets it: a catalog, a server, answers in, a score out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from loopback import Loopback, serve
from tilth.catalog import Release, open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.evaluate import Errand, evaluate
from tilth.flows.evaluate_cli import evaluate as command
from tilth.flows.settings import load
from tilth.schemas import BadInput, ConfigError, NotFound
from tilth.schemas.ids import content_id
from tilth.transforms.parts import write_part

COUNT = 12


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def item(n: int) -> dict[str, Any]:
    return {
        "id": content_id("item", str(n)),
        "prompt_id": content_id("prompt", str(n)),
        "prompt": [turn("user", f"question number {n} about peas")],
        "checklist": [f'Is about "soil{n}".'],
        "reference": [turn("assistant", f"logged {n} [q=5]")],
        "cluster": n % 3,
        "distance": 0.1,
        "feedback_ids": [content_id("f", str(n))],
        "conversation_id": content_id("c", str(n)),
        "method": "model",
        "split": "test",
    }


WANTED = {item(n)["id"]: ("win", "tie", "loss")[n // 4] for n in range(COUNT)}


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    """A workspace with an evaluation set of twelve items in two parts."""
    place = str(tmp_path / "work")
    with open_catalog(place) as catalog:
        home = catalog.staging("wildfeedback", "evaluation", "run")
        parts = [pl.DataFrame([item(n) for n in some]) for some in (range(5), range(5, COUNT))]
        shards = [write_part(part, f"{home}/{n}.parquet", "evaluation") for n, part in enumerate(parts)]
        catalog.publish(Release("wildfeedback", "run", {"evaluation": [shard.uri for shard in shards]}))
    return place


@pytest.fixture
def answers(tmp_path: Path) -> str:
    """Answers of which four are better than the logged reply, four as good, four worse; not in the set's order."""
    rows = [{"id": item(n)["id"], "completion": f"answer {n} [q={(9, 5, 1)[n // 4]}]"} for n in range(COUNT)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    return str(path)


def perform(workspace: str, server: Loopback | None, **options: Any) -> dict[str, Any]:
    url = server.url if server else "http://127.0.0.1:9/v1"
    given = {"workspace": workspace, "engine": {"model": "loopback", "base_urls": [url]}}
    return evaluate(load(None, given), Errand(**options), Conductor())


@pytest.fixture(scope="module")
def running() -> Iterator[Loopback]:
    with serve(script="sensible") as server:
        yield server


@pytest.fixture
def server(running: Loopback) -> Loopback:
    running.control(position_bias=0.0, tie_share=0.0, garble_share=0.0)
    running.reset()
    return running


def test_a_dry_run_counts_calls_and_asks_nothing(workspace: str, answers: str) -> None:
    """The forecast needs no server: both orders for each judge, and the answers of each model."""
    told = perform(workspace, None, answers=answers, against_model="other", judges=("x", "y=2"), dry_run=True)
    assert told["status"] == "forecast"
    assert told["calls"] == {"against": COUNT, "judge-x": 2 * COUNT, "judge-y": 2 * COUNT}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, ConfigError),
        ({"answers": "a.jsonl", "policy": "p"}, ConfigError),
        ({"policy": "p", "against": "a.jsonl", "against_model": "q"}, ConfigError),
        ({"policy": "p", "output": "out.txt"}, ConfigError),
        ({"policy": "p", "dataset": "wildfeedback.nothing"}, NotFound),
        ({"answers": "none.jsonl"}, NotFound),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_asked(
    workspace: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """Options that contradict each other, and sets and files that are not there, are errors at once."""
    with pytest.raises(error):
        perform(workspace, None, **options)


def test_answers_must_fit_the_set(workspace: str, answers: str, tmp_path: Path) -> None:
    """A file that lacks answers is refused with their number, unless missing ones are allowed."""
    few = tmp_path / "few.jsonl"
    few.write_text("".join(Path(answers).read_text().splitlines(keepends=True)[:9]))
    with pytest.raises(BadInput, match="3 of 12"):
        perform(workspace, None, answers=str(few), dry_run=True)
    assert perform(workspace, None, answers=str(few), allow_missing=True, dry_run=True)["items"] == COUNT


@pytest.mark.slow
def test_answers_of_a_file_are_scored(workspace: str, answers: str, tmp_path: Path, server: Loopback) -> None:
    """A judge that knows the better reply finds what was planted; the same again asks nothing."""
    out = tmp_path / "out.parquet"
    told = perform(workspace, server, answers=answers, judges=("judge",), output=str(out))
    found = told["score"]
    assert (found["wins"], found["ties"], found["losses"], found["win_rate"]) == (4, 4, 4, 0.5)
    assert dict(pl.read_parquet(out).select("id", "verdict").iter_rows()) == WANTED
    assert [one["items"] for one in found["clusters"]] == [4, 4, 4]
    assert int(server.stats()["received"]) == 2 * COUNT
    assert told["usage"]["run"]["calls"] == 2 * COUNT
    again = perform(workspace, server, answers=answers, judges=("judge",), output=str(out))
    assert again["score"] == found
    assert int(server.stats()["received"]) == 2 * COUNT


@pytest.mark.slow
def test_a_model_answers_and_a_panel_judges(workspace: str, server: Loopback) -> None:
    """The policy is asked once per item, each judge twice; the checklist decides nothing when it is not shown."""
    told = perform(workspace, server, policy="small", judges=("one", "two"), temperature=0.5)
    assert int(server.stats()["received"]) == COUNT + 2 * 2 * COUNT
    assert set(told["models"]) == {"small", "one", "two"}
    assert told["score"]["missing"] == told["score"]["failed"] == 0
    assert told["warnings"] == []
    own = perform(
        workspace, server, policy="small", against_model="other", judges=("small",), checklist=False
    )
    assert len(own["warnings"]) == 1
    assert own["score"]["items"] == COUNT


@pytest.mark.slow
def test_a_judge_that_looks_at_places_decides_nothing(workspace: str, answers: str, server: Loopback) -> None:
    """A judge that always prefers the first reply makes every item inconsistent: no win and no loss."""
    server.control(position_bias=1.0)
    found = perform(workspace, server, answers=answers, judges=("biased",))["score"]
    assert (found["inconsistent"], found["win_rate"], found["win_rate_strict"]) == (COUNT, None, 0.5)


@pytest.mark.slow
def test_answers_that_cannot_be_read_are_failures(workspace: str, answers: str, server: Loopback) -> None:
    """A judge that answers with anything but a judgment makes no tie: each item has failed."""
    server.control(garble_share=1.0)
    found = perform(workspace, server, answers=answers, judges=("garbled",))["score"]
    assert (found["failed"], found["ties"], found["win_rate"]) == (COUNT, 0, None)


@pytest.mark.slow
def test_the_command_prints_the_score(workspace: str, answers: str, server: Loopback) -> None:
    """`tilth evaluate` takes what its help shows, says what a win means, and prints one value with `--json`."""
    app = typer.Typer()
    app.command()(command)
    asked = ["wildfeedback.evaluation", "-a", answers, "--judge", "judge", "-m", "loopback"]
    words = [*asked, "--base-url", server.url, "-w", workspace]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert "dissatisfied" in shown.stdout
    told = CliRunner().invoke(app, [*words, "--json"])
    assert json.loads(told.stdout)["score"]["win_rate"] == 0.5
    dry = CliRunner().invoke(app, [*words, "--dry-run"])
    assert "judge" in dry.stdout
