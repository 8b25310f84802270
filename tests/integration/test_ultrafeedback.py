"""The recipe `ultrafeedback` from logs to pairs, against a server whose judge knows the better reply."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from loopback import Loopback, serve
from loopback.sensible import quality
from tilth.flows.conductor import Conductor
from tilth.flows.session import Session
from tilth.flows.settings import load
from tilth.pipelines.observed import Observation
from tilth.pipelines.ultrafeedback import TABLES, UltraFeedback, roles, ultrafeedback
from tilth.schemas import ConfigError, empty
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.transforms.ingest import expand, plan
from tilth.transforms.judging.aspects import AspectJudging
from tilth.transforms.pairs.best_of_n import BestOfN
from tilth.transforms.pairs.rated import RatedPairs
from tilth.transforms.parts import read_part
from tilth.transforms.responses.candidates import Replying

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_beam_or_gx")]

SEVERAL = UltraFeedback(
    policies=("small", "large"),
    samples=2,
    replies=Replying(temperature=1.0),
    judging=AspectJudging(judges=("judge",)),
    rated=RatedPairs("worst"),
)
ON_POLICY = UltraFeedback(policies=("small",), samples=4, select="best_worst", judging=SEVERAL.judging)


@dataclass(frozen=True)
class Made:
    """What a run made."""

    tables: Mapping[str, pl.DataFrame]
    requests: int  # that the server received
    properties: Mapping[str, str]

    def reasons(self) -> dict[str, int]:
        return dict(self.tables["quarantine"].group_by("reason").len().iter_rows())


def _logs(path: Path, count: int = 24) -> str:
    """Conversations of two exchanges; every fourth has a first prompt that another has too."""
    rows = [
        {
            "id": f"c-{n}",
            "user": f"u-{n}",
            "messages": [
                {"role": "user", "content": f"How do I grow plant number {n - (n % 4 == 3)}?"},
                {"role": "assistant", "content": f"With water and light {n}."},
                {"role": "user", "content": f"And in winter number {n}?"},
                {"role": "assistant", "content": f"With less water {n}."},
            ],
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _run(server: Loopback, place: Path, config: UltraFeedback, source: str) -> Made:
    options = {"workspace": str(place), "sources": [source]}
    engine = {"kind": "openai", "model": "loopback", "base_urls": [server.url]}
    settings = load(options={**options, "engine": engine})
    reads = plan(expand(settings.sources), settings.format, settings.map)
    server.reset()
    with Session(settings, "run", Conductor()) as session:
        seen = ultrafeedback(reads, settings.logs(), config, session.means)
    return Made(_tables(seen), server.stats()["received"], seen.properties)


def _tables(seen: Observation) -> dict[str, pl.DataFrame]:
    assert tuple(seen.tables) == TABLES
    return {
        table: pl.concat([empty(table), *(read_part(shard) for shard in shards)])
        for table, shards in seen.tables.items()
    }


@pytest.fixture(scope="module")
def server() -> Any:
    with serve(script="sensible") as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _logs(tmp_path_factory.mktemp("logs") / "talks.jsonl")


@pytest.fixture(scope="module")
def several(server: Loopback, source: str, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return _run(server, tmp_path_factory.mktemp("several"), SEVERAL, source)


def _marks(pairs: pl.DataFrame) -> list[tuple[int, int]]:
    """The qualities that the two sides of each pair are marked with."""
    return [
        (quality(row["chosen"][0]["content"]) or 0, quality(row["rejected"][0]["content"]) or 0)
        for row in pairs.iter_rows(named=True)
    ]


def test_tables_keep_their_contracts(several: Made) -> None:
    """No row of any table has a defect, and none of the tables that are promised is empty."""
    for table, frame in several.tables.items():
        assert frame.height, table
        counts = measure(table, frame).counts
        assert {name: counts[name] for name in CONTRACTS[table].defects if counts[name]} == {}, table


def test_each_prompt_is_asked_once_and_costs_what_is_said(several: Made) -> None:
    """24 conversations with 18 first prompts: 18 x (2 policies x 2 samples + 4 aspects x 2 orders) calls."""
    assert several.requests == 18 * (2 * 2 + 4 * 2)
    assert several.tables["responses"].get_column("prompt_id").n_unique() == 18
    assert several.tables["responses"].height == 18 * 4
    assert several.tables["responses"].get_column("model").n_unique() == 2


def test_ratings_are_those_of_their_own_reply(several: Made) -> None:
    """Whatever order replies were shown in, a rating is what its own text is worth on the scale of 1 to 5."""
    for row in several.tables["ratings"].iter_rows(named=True):
        mark = quality(row["completion"][0]["content"]) or 0
        assert row["rating"] == 1 + round(4 * (mark - 1) / 9)
        assert len(row["attributes"]) == 4
        assert len(row["judgment_ids"]) == 8


def test_the_better_reply_is_chosen(several: Made) -> None:
    """No wrong label, no tie; every prompt is in a pair, or set aside with a reason."""
    pairs = several.tables["pairs"]
    assert all(chosen > rejected for chosen, rejected in _marks(pairs))
    assert set(pairs.get_column("origin")) == {"rated"}
    without = several.tables["quarantine"].filter(stage="pair").height
    assert pairs.height + without == 18
    known = set(several.tables["judgments"].get_column("id"))
    assert set(pairs.get_column("judgment_ids").explode()) <= known


def test_the_protocol_is_kept_with_the_data(several: Made) -> None:
    """What judges were asked is a property of the version, and rows bear its fingerprint."""
    protocol = json.loads(several.properties["tilth.protocol"])
    assert [name for name, _ in protocol["attributes"]] == [name for name, _ in SEVERAL.aspects]
    assert several.tables["judgments"].get_column("protocol").n_unique() == 1


def test_a_judge_that_fails_and_ties_makes_no_wrong_label(
    server: Loopback, source: str, tmp_path: Path
) -> None:
    """One answer in ten is no JSON, one in five a tie: fewer pairs, all right, and what failed is set aside."""
    server.control(garble_share=0.1, tie_share=0.2)
    try:
        made = _run(server, tmp_path, SEVERAL, source)
    finally:
        server.control(garble_share=0.0, tie_share=0.0)
    failed = made.tables["judgments"].filter(verdict="failed")
    assert failed.height
    assert set(failed.get_column("reason")) == {"malformed_output"}
    assert all(chosen > rejected for chosen, rejected in _marks(made.tables["pairs"]))
    assert made.tables["pairs"].height > 5
    rated, aside = made.tables["ratings"].height, made.reasons().get("judges_failed", 0)
    assert rated + aside == made.tables["responses"].height
    assert made.tables["pairs"].get_column("id").n_unique() == made.tables["pairs"].height


def test_one_policy_gives_the_best_over_the_worst_of_its_own(
    server: Loopback, source: str, tmp_path: Path
) -> None:
    """On-policy: both sides are of the policy, and they are the best and the worst rated of its samples."""
    made = _run(server, tmp_path, ON_POLICY, source)
    pairs, rated = made.tables["pairs"], made.tables["ratings"]
    assert set(pairs.get_column("origin")) == {"best_of_n"}
    models = pairs.select(pl.col("models").struct.unnest())
    assert (models.get_column("chosen") == models.get_column("rejected")).all()
    ends = rated.group_by("prompt_id").agg(high=pl.col("rating").max(), low=pl.col("rating").min())
    joined = pairs.join(ends, on="prompt_id")
    assert joined.height == pairs.height > 5
    assert (joined.get_column("chosen_score") == joined.get_column("high")).all()
    assert (joined.get_column("rejected_score") == joined.get_column("low")).all()


def test_another_scale_asks_the_judge_alone(server: Loopback, source: str, tmp_path: Path) -> None:
    """A change of the judge's protocol leaves the replies as they are; a change of pairing asks nobody."""
    first = _run(server, tmp_path, SEVERAL, source)
    wider = replace(SEVERAL, judging=replace(SEVERAL.judging, high=9))
    second = _run(server, tmp_path, wider, source)
    third = _run(server, tmp_path, replace(wider, rated=RatedPairs("all", min_margin=1.0)), source)
    assert (first.requests, second.requests, third.requests) == (18 * 12, 18 * 8, 0)
    assert second.tables["responses"].equals(first.tables["responses"])
    assert third.tables["pairs"].height > second.tables["pairs"].height


def test_logs_in_another_order_give_the_same_pairs(
    server: Loopback, source: str, several: Made, tmp_path: Path
) -> None:
    """Permuted records: every pair, rating and reply is the same."""
    lines = Path(source).read_text().splitlines()
    moved = tmp_path / "moved.jsonl"
    moved.write_text("\n".join(lines[::-1]) + "\n")
    made = _run(server, tmp_path / "w", SEVERAL, str(moved))
    for table in ("pairs", "ratings", "responses"):
        one, other = (each.tables[table].sort("id") for each in (several, made))
        assert one.equals(other), table


def test_settings_that_give_no_pair_are_refused() -> None:
    """One reply to a prompt, one policy twice, equal samples, unknown choices: errors before anything is asked."""
    wrong: list[dict[str, Any]] = [
        {"samples": 1},
        {"policies": ("a", "a")},
        {"policies": ("a", "b"), "samples": 1, "per_prompt": 1},
        {"replies": Replying(temperature=0.0)},
        {"select": "median"},
    ]
    for settings in wrong:
        with pytest.raises(ConfigError):
            UltraFeedback(**settings)
    assert roles(replace(ON_POLICY, best_of_n=BestOfN("vote"))) == ["small", "judge"]


def test_a_tournament_compares_what_others_rate(server: Loopback, source: str, tmp_path: Path) -> None:
    """18 prompts with 4 replies: 3 matches each in both orders, a pair for each winner, Elo for both policies."""
    config = replace(SEVERAL, select="tournament")
    made = _run(server, tmp_path, config, source)
    assert made.requests == 18 * (2 * 2 + 3 * 2)
    pairs = made.tables["pairs"]
    assert set(pairs.get_column("origin")) == {"tournament"}
    assert all(chosen > rejected for chosen, rejected in _marks(pairs))
    assert pairs.height + made.tables["quarantine"].filter(stage="pair").height == 18 * 3
    assert made.tables["ratings"].is_empty()
    counts = measure("pairs", pairs).counts
    assert not any(counts[name] for name in CONTRACTS["pairs"].defects)
    ranked = json.loads(made.properties["tilth.elo"])
    assert {one["contestant"] for one in ranked} == {"small", "large"}
    assert sum(one["elo"] for one in ranked) == pytest.approx(2000)
