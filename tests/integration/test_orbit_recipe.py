"""The recipe orbit through the real door, from pairs and from conversations, against a scripted server."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl
import pytest

from integration.reasons_world import QUICK, SEEDS, STANDARD, Made, Released, habits, release, text
from loopback import Loopback, serve
from tilth.transforms.rubrics.passrates import PassRates
from tilth.transforms.rubrics.seeds import digest_of, read_seeds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("reasons"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]

BOUNDS: Final = PassRates()


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def orbit(released: Released, server: Loopback) -> Made:
    return released.standard("orbit", server).made


def _rates(made: Made, replies: int = 1) -> dict[str, float]:
    """By criterion that was graded in so many of the policy's replies, the share of them that meet it."""
    sampled = made.table("responses").filter(role="policy").select("id")
    graded = made.table("judgments").filter(verdict="rated").explode("response_ids")
    met = graded.join(sampled, left_on="response_ids", right_on="id").with_columns(
        pl.col("scores").list.first()
    )
    rates = met.group_by("attribute").agg(pl.col("scores").mean(), pl.len()).filter(pl.col("len") >= replies)
    return dict(rates.select("attribute", "scores").iter_rows())


def test_criteria_are_kept_by_their_pass_rates(orbit: Made) -> None:
    """What too many replies meet is set aside, as are prompts that are too easy; all else that was written is kept."""
    written, rates = orbit.stage("merge_criteria", "criteria"), _rates(orbit)
    by_prompt = defaultdict[str, list[float]](list)
    for prompt, id_ in written.select("prompt_id", "id").iter_rows():
        by_prompt[prompt].append(rates[id_])
    easy = {prompt for prompt, found in by_prompt.items() if sum(found) / len(found) > BOUNDS.high + 1e-9}
    expected = {
        id_ for prompt, id_ in written.select("prompt_id", "id").iter_rows()
        if prompt not in easy and rates[id_] < BOUNDS.criterion
    }  # fmt: skip
    rubrics = orbit.table("rubrics")
    kept = {one["id"] for criteria in rubrics["criteria"] for one in criteria}
    assert kept <= expected
    assert 0 < len(kept) < written.height
    aside = orbit.table("quarantine").filter(stage="pass_rates")
    lost = dict(written.filter(~pl.col("id").is_in(list(kept))).group_by("prompt_id").len().iter_rows())
    assert aside.filter(reason="saturated").height == written.height - len(expected)
    # Of a prompt without a positive criterion the others go too, each with its row, and one is for the prompt.
    without = {prompt for prompt in by_prompt if prompt not in set(rubrics["prompt_id"])}
    assert len(expected) - len(kept) == sum(lost[one] for one in without) - sum(
        (one not in expected) for one in written.filter(pl.col("prompt_id").is_in(list(without)))["id"]
    )


def test_every_answer_of_the_writer_is_accounted_for(orbit: Made) -> None:
    """Criteria of the answers = kept or set aside on reading; what was read = merged = in a rubric or set aside."""
    answers = orbit.stage("ask-orbit", "completions")
    written = sum(len(json.loads(answer)["criteria"]) for answer in answers["text"])
    read, merged = orbit.stage("read_orbit", "criteria"), orbit.stage("merge_criteria", "criteria")
    assert read.height + orbit.table("quarantine").filter(stage="orbit").height == written
    assert read.height == merged.height + orbit.table("quarantine").filter(stage="rubrics").height
    rows = orbit.table("rubrics").explode("criteria").height
    criteria = orbit.table("quarantine").filter(pl.col("key").str.contains("&criterion="), stage="pass_rates")
    assert rows + criteria.height == merged.height


def test_rubrics_name_the_cases_that_were_shown(orbit: Made, released: Released) -> None:
    """Similar cases are those of the seeds; nothing is copied of them; ORBIT's criteria are the writer's own."""
    seeds = read_seeds(SEEDS)
    theirs = {one["criterion"] for criteria in seeds["criteria"] for one in criteria}
    rubrics = orbit.table("rubrics")
    cases = rubrics["retrieved_ids"].list.set_intersection(pl.Series([seeds["seed_id"].to_list()])).list.len()
    assert set(cases) == {3}
    assert set(rubrics["retrieved_ids"].list.len()) == {3 + 15}
    for criteria in rubrics["criteria"]:
        assert theirs.isdisjoint(one["description"] for one in criteria)
        assert {(one["source"], *one["tags"]) for one in criteria} == {("model", "orbit")}
    assert set(rubrics["pair_ids"].explode()) <= set(released.table("pairs")["id"])


def test_the_best_reply_is_set_against_the_worst(orbit: Made) -> None:
    """Scores of each pair are those that its rubric and the grades give, and the chosen reply's is the higher."""
    met = {
        (row["attribute"], row["response_ids"][0]): row["scores"][0]
        for row in orbit.table("judgments").filter(verdict="rated").iter_rows(named=True)
    }
    replies = {
        (row["prompt_id"], text(row["completion"])): row["id"]
        for row in orbit.table("responses").filter(role="policy").iter_rows(named=True)
    }
    rubrics = dict(orbit.table("rubrics").select("prompt_id", "criteria").iter_rows())
    pairs = orbit.table("pairs")
    assert pairs.height > 10
    for pair in pairs.iter_rows(named=True):
        criteria = rubrics[pair["prompt_id"]]
        possible = sum(max(one["weight"], 0.0) for one in criteria)
        for side in ("chosen", "rejected"):
            reply = replies[pair["prompt_id"], text(pair[side])]
            gained = sum(one["weight"] * met[one["id"], reply] for one in criteria)
            assert pair[f"{side}_score"] == pytest.approx(gained / possible)
        assert pair["chosen_score"] > pair["rejected_score"]


def test_conversations_need_no_pairs(released: Released, server: Loopback) -> None:
    """From observed.conversations: a prompt a conversation, whose rubric leads back to it; the audit passes."""
    options = {"dataset": "observed.conversations"}
    with habits(server, position_bias=0.3):
        made = released.run("orbit", server, options, **STANDARD["orbit"])
    for name, report in made.audits().items():
        assert report.failed_critical == (), name
    logged = {row["id"]: row for row in released.table("conversations").iter_rows(named=True)}
    rubrics = made.table("rubrics")
    assert rubrics.height > 10
    assert rubrics["pair_ids"].list.len().sum() == 0
    for row in rubrics.iter_rows(named=True):
        turns = logged[row["conversation_id"]]["messages"]
        assert row["prompt"] == turns[: len(row["prompt"])]
        assert turns[len(row["prompt"])]["role"] == "assistant"
        assert row["split"] == logged[row["conversation_id"]]["split"]
    assert set(made.table("responses")["role"]) == {"policy"}
    assert made.result.rows_in == len(logged)


def test_failures_leave_every_prompt_with_a_rubric_or_a_reason(released: Released, server: Loopback) -> None:
    """Requests fail and judges garble: each prompt has a rubric or says why not, and no failed grade is a grade."""
    shaky = {"policy": "policy-3", "writer": "writer-3", "judging": {"judges": ["shaky-orbit"]}}
    shaky |= {"seeds": SEEDS, "samples": 3}
    with habits(server, error_share=0.3, garble_share=0.1, position_bias=0.2):
        made = released.run("orbit", server, {"worker": QUICK}, **shaky)
    prompts = set(released.table("pairs")["prompt_id"])
    told = set(made.table("quarantine")["key"].str.extract("prompt=([0-9a-f]+)").drop_nulls())
    assert set(made.table("rubrics")["prompt_id"]) | told >= prompts
    assert "server_error" in set(made.table("quarantine").filter(stage="orbit")["reason"])
    replied = made.table("responses").filter(role="policy").height
    assert replied + made.table("quarantine").filter(stage="policy").height == 3 * len(prompts)
    failed = made.table("judgments").filter(verdict="failed")
    assert failed.height > 0
    assert failed["scores"].null_count() == failed.height
    graded = _rates(made, BOUNDS.min_rollouts)
    for criteria in made.table("rubrics")["criteria"]:
        assert all(graded.get(one["id"], 0.0) < BOUNDS.criterion for one in criteria)


def test_other_seeds_make_another_run(
    released: Released, orbit: Made, server: Loopback, tmp_path: Path
) -> None:
    """A run is known by what the file of seeds holds, not by its name alone; the version tells its digest."""
    file, cases = tmp_path / "seeds.jsonl", Path(SEEDS).read_text().splitlines(keepends=True)
    known: list[str] = []
    for held in (cases, cases[:6], cases):
        file.write_text("".join(held))
        known.append(released.preview("orbit", server, **{**STANDARD["orbit"], "seeds": str(file)})["run_id"])
    assert known[0] == known[2] != known[1]
    config = json.loads(orbit.version("rubrics").properties["tilth.config"])
    assert config["witnesses"]["seeds"] == digest_of(SEEDS)
