"""The recipe rubrics through the real door, from pairs of an `observed` release, against a scripted server."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from integration.reasons_world import (
    MISTAKES,
    QUICK,
    Made,
    Released,
    calls,
    habits,
    mistake_of,
    release,
    text,
)
from loopback import Loopback, serve
from loopback.sensible_rubrics import meets
from tilth.transforms.rubrics.verifiers import passes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("reasons"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]

WRITTEN: Final = ("contrast", "model")
_USER: Final = re.compile(r"for user (\d+)")


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def ruled(released: Released, server: Loopback) -> Made:
    return released.standard("rubrics", server).made


def _criteria(rubrics: pl.DataFrame) -> pl.DataFrame:
    """A row for each criterion, with the prompt_id and split of its rubric."""
    return rubrics.select("prompt_id", "split", "criteria").explode("criteria").unnest("criteria")


def _reasons(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("reason").len().iter_rows()) if rows.height else {}


def _recounted(made: Made) -> dict[tuple[str, str], float]:
    """The score of each reply by what the tables say alone: weights met over the positive weights (HealthBench)."""
    met = {
        (row["attribute"], row["response_ids"][0]): row["scores"][0]
        for row in made.table("judgments").iter_rows(named=True)
        if row["verdict"] == "rated"
    }
    rubrics = {row["prompt_id"]: row["criteria"] for row in made.table("rubrics").iter_rows(named=True)}
    found: dict[tuple[str, str], float] = {}
    for reply in made.table("responses").iter_rows(named=True):
        criteria = rubrics.get(reply["prompt_id"], [])
        if criteria and all((one["id"], reply["id"]) in met for one in criteria):
            gained = sum(one["weight"] * met[one["id"], reply["id"]] for one in criteria)
            possible = sum(max(one["weight"], 0.0) for one in criteria)
            found[reply["prompt_id"], text(reply["completion"])] = gained / possible
    return found


def _truly(criterion: Mapping[str, Any], reply: str) -> bool:
    """Whether a reply meets a criterion: as the program says, or as the script knows."""
    if criterion["program"] is not None:
        return passes(criterion["program"], reply)
    return meets(reply, criterion["description"])


def test_no_criterion_is_lost(ruled: Made) -> None:
    """From answer to rubric: what models wrote and rules found is in a rubric, merged, or set aside with its reason."""
    read = [ruled.stage(f"read_criteria-read-{source}", "criteria") for source in WRITTEN]
    for source, kept in zip(WRITTEN, read, strict=True):
        answers = ruled.stage(f"ask-criteria-{source}", "completions")
        written = sum(len(json.loads(answer)["criteria"]) for answer in answers["text"])
        aside = _reasons(ruled.stage(f"read_criteria-read-{source}", "quarantine"))
        assert kept.height + sum(aside.get(one, 0) for one in _LOST_WHOLE) == written
        assert answers.height == calls(ruled)[f"criteria-{source}"]
    by_rule, merged = ruled.stage("rule_criteria", "criteria"), ruled.stage("merge_criteria", "criteria")
    double = ruled.stage("merge_criteria", "quarantine")
    assert set(double["reason"]) == {"duplicate"}
    assert by_rule.height + sum(kept.height for kept in read) == merged.height + double.height
    settled = _reasons(ruled.stage("settle_rubrics", "quarantine"))
    assert set(settled) == {"saturated", "not_discriminating"}
    assert _criteria(ruled.table("rubrics")).height + sum(settled.values()) == merged.height
    known = _reasons(ruled.table("quarantine").filter(stage="rubrics"))
    assert sum(known.values()) == sum(
        ruled.stage(stage, "quarantine").height for stage in ("merge_criteria", "settle_rubrics", *_READ)
    )


_LOST_WHOLE: Final = ("names_position", "contradictory", "duplicate", "empty")
_READ: Final = tuple(f"read_criteria-read-{source}" for source in WRITTEN)


def test_what_a_writer_does_wrong_is_set_aside(ruled: Made, released: Released) -> None:
    """Each mistake at the prompts where it was made, and only there; a program that does not fit costs no criterion."""
    made = {row["prompt_id"]: mistake_of(row) for row in released.table("pairs").iter_rows(named=True)}
    lost = ruled.stage("read_criteria-read-contrast", "quarantine").select("key", "reason").iter_rows()
    found = {(made[re.split("[=&]", key)[1]], reason) for key, reason in lost}
    assert found == {
        ("position", "names_position"),
        ("invent", "unknown_program"),
        ("swap", "contradictory"),
        ("copy", "duplicate"),
        ("empty", "no_criterion"),
    }
    assert set(made.values()) == {None, *MISTAKES}
    descriptions = set(ruled.stage("read_criteria-read-contrast", "criteria")["description"])
    assert "Is of a decent length." in descriptions
    assert descriptions.isdisjoint({"Is as clear as the first reply.", "Avoids jargon."})


def test_the_chosen_reply_has_the_higher_score_under_the_rubric(ruled: Made) -> None:
    """Each pair is the best against the worst reply of the policy; both scores are those of the tables, recounted."""
    pairs, scores = ruled.table("pairs"), _recounted(ruled)
    assert pairs.height > 10
    by_prompt = defaultdict[str, list[float]](list)
    sampled = ruled.table("responses").filter(role="policy")
    for prompt, reply in sampled.select("prompt_id", "completion").iter_rows():
        by_prompt[prompt].append(scores[prompt, text(reply)])
    for pair in pairs.iter_rows(named=True):
        chosen, rejected = (scores[pair["prompt_id"], text(pair[side])] for side in ("chosen", "rejected"))
        assert chosen > rejected
        assert (pair["chosen_score"], pair["rejected_score"]) == pytest.approx((chosen, rejected))
        every = by_prompt[pair["prompt_id"]]
        assert (chosen, rejected) == pytest.approx((max(every), min(every)))
    assert set(pairs["origin"]) == {"rubric"}
    tied = {prompt for prompt, found in by_prompt.items() if max(found) - min(found) < 1e-9}
    assert set(by_prompt) == set(pairs["prompt_id"]) | tied
    assert ruled.result.dropped["tie"] == len(tied)


def test_measures_are_those_of_the_grades(ruled: Made) -> None:
    """Pass rates, discrimination and separation, recounted from grades; a limit of words is met by the chosen alone."""
    judgments, rubrics = ruled.table("judgments"), ruled.table("rubrics")
    graded = judgments.filter(verdict="rated").select(met=pl.col("scores").list.first(), id="attribute")
    rates = dict(graded.group_by("id").agg(pl.col("met").mean()).iter_rows())
    rows = _criteria(rubrics)
    assert all(rates[id_] == pytest.approx(rate) for id_, rate in rows.select("id", "pass_rate").iter_rows())
    limits = rows.filter(source="prompt")
    assert set(limits["program"]) == {'{"arguments":{"limit":20},"verifier":"max_words"}'}
    assert set(limits["discrimination"]) == {1.0}
    programs = judgments.filter(judge="program")
    assert set(programs["model"]) == {"tilth verifiers"}
    assert set(programs["attribute"]) <= set(
        ruled.stage("merge_criteria", "criteria").filter(check="program")["id"]
    )
    scores = _recounted(ruled)
    replies = dict(ruled.table("responses").select("id", "completion").iter_rows())
    separation = dict(rubrics.select("prompt_id", "separation").iter_rows())
    for pair in ruled.stage("sides", "sides").iter_rows(named=True):
        prompt = pair["prompt_id"]
        chosen, rejected = (
            scores[prompt, text(replies[pair[f"{side}_id"]])] for side in ("chosen", "rejected")
        )
        assert separation[prompt] == (chosen > rejected) + 0.5 * (chosen == rejected)


def test_a_complaint_stays_in_its_split(ruled: Made, released: Released) -> None:
    """Neither the words nor the feedback of a user reach a rubric of another split, though prompts there are alike."""
    conversations = {
        row["source_id"].removeprefix("own-"): row["split"]
        for row in released.table("conversations").iter_rows(named=True)
    }
    feedback = {row["id"]: row for row in released.table("feedback").iter_rows(named=True)}
    about = {
        row["prompt_id"]: row["conversation_id"] for row in released.table("pairs").iter_rows(named=True)
    }
    complaints = _criteria(ruled.table("rubrics")).filter(source="complaint")
    assert set(complaints["split"]) == {"train", "validation", "test"}
    lent = 0
    for row in complaints.iter_rows(named=True):
        assert {conversations[user] for user in _USER.findall(row["description"])} == {row["split"]}
        said = [feedback[one] for one in row["feedback_ids"]]
        assert {one["split"] for one in said} == {row["split"]}
        lent += any(one["conversation_id"] != about[row["prompt_id"]] for one in said)
    assert lent > 10
    for row in ruled.table("rubrics").iter_rows(named=True):
        words = json.dumps(row["criteria"], ensure_ascii=False)
        assert {conversations[user] for user in _USER.findall(words)} <= {row["split"]}


def test_rubrics_lead_to_the_parents_rows(ruled: Made, released: Released, tmp_path: Path) -> None:
    """Pairs and feedback are those of the release; feedback of another split, or of nobody, does not pass the audit."""
    rubrics = ruled.table("rubrics")
    assert sorted(rubrics["pair_ids"].explode()) == sorted(released.table("pairs")["id"])
    assert ruled.audit_in_place_of("rubrics", rubrics, tmp_path / "as-it-is.parquet") == {}
    foreign = released.table("feedback").filter(split="test")["id"][0]
    first = (pl.int_range(pl.len()).over("split") == 0) & (pl.col("split") == "train")

    def lends(feedback: str) -> pl.DataFrame:
        """One rubric for training that names other feedback."""
        item = pl.element()
        swapped = item.struct.with_fields(feedback_ids=pl.lit([feedback], pl.List(pl.String)))
        rows = rubrics.with_columns(
            criteria=pl.when(first).then(pl.col("criteria").list.eval(swapped)).otherwise("criteria"),
            feedback_ids=pl.when(first)
            .then(pl.lit([feedback], pl.List(pl.String)))
            .otherwise("feedback_ids"),
        )
        return rows.select(rubrics.columns)

    found = ruled.audit_in_place_of("rubrics", lends(foreign), tmp_path / "split.parquet")
    assert found["feedback_of_another_split"] == 1
    found = ruled.audit_in_place_of("rubrics", lends("0" * 32), tmp_path / "nobody.parquet")
    assert found["feedback_ids_unresolved"] == 1


def test_failures_of_writers_policy_and_judges_turn_no_grade_and_no_pair(
    released: Released, server: Loopback
) -> None:
    """Requests fail and judges garble: every request is answered or set aside, what is graded is graded right."""
    with habits(server, error_share=0.35, garble_share=0.1):
        made = released.run(
            "rubrics",
            server,
            {"worker": QUICK, "keep_stages": True},
            policy="policy-4",
            writer="writer-4",
            judging={"judges": ["shaky-rubrics"]},
        )
    prompts = released.table("pairs").height
    wrote = made.stage("ask-criteria-contrast", "completions").height
    silent = made.stage("read_criteria-read-contrast", "quarantine").filter(reason="server_error").height
    assert wrote + silent == prompts
    assert 0 < silent < prompts
    replied = made.table("responses").filter(role="policy").height
    assert replied + made.table("quarantine").filter(stage="policy").height == 4 * prompts
    judgments = made.table("judgments")
    failed = judgments.filter(verdict="failed")
    assert failed.height > 0
    assert failed["reason"].null_count() == 0
    assert made.result.notes["grades"] == {
        "by_program": judgments.filter(judge="program").height,
        "for_judges": judgments.filter(judge="shaky-rubrics").height,
    }
    _is_right(made)


def _is_right(made: Made) -> None:
    """Every grade and every pair of a run is what the script and the programs know to be true."""
    criteria = {row["id"]: row for row in made.stage("merge_criteria", "criteria").iter_rows(named=True)}
    replies = {row["id"]: row for row in made.table("responses").iter_rows(named=True)}
    for grade in made.table("judgments").filter(verdict="rated").iter_rows(named=True):
        reply = replies[grade["response_ids"][0]]
        true = _truly(criteria[grade["attribute"]], text(reply["completion"]))
        assert grade["scores"] == [float(true)]
    rubrics = {row["prompt_id"]: row["criteria"] for row in made.table("rubrics").iter_rows(named=True)}
    pairs = made.table("pairs")
    assert pairs.height > 0
    for pair in pairs.iter_rows(named=True):
        weighed = [
            sum(one["weight"] * _truly(one, text(pair[side])) for one in rubrics[pair["prompt_id"]])
            for side in ("chosen", "rejected")
        ]
        assert weighed[0] > weighed[1]


def test_without_a_model_programs_grade_and_rules_write(released: Released) -> None:
    """No engine: nobody is asked; hard rules are graded by programs, complaints stand with no grade, method rules."""
    made = released.run("rubrics", None)
    assert made.result.usage == {}
    assert made.result.notes["grades"]["by_program"] == made.table("judgments").height
    rubrics = made.table("rubrics")
    assert rubrics.height == released.table("pairs").height
    assert set(rubrics["method"]) == {"rules"}
    assert rubrics["model"].null_count() == rubrics.height
    assert set(made.table("judgments")["judge"]) == {"program"}
    assert set(made.table("judgments")["method"]) == {"rules"}
    assert made.table("pairs").is_empty()
    rows = _criteria(rubrics)
    checked = dict(rows.group_by("source").agg(pl.col("check").unique().sort()).iter_rows())
    assert checked == {"prompt": ["program"], "complaint": ["judge"]}
    assert rows.filter(check="judge")["pass_rate"].null_count() == rows.filter(check="judge").height
    assert set(rows.filter(check="program")["pass_rate"]) == {0.5}
    assert set(rubrics["separation"]) == {1.0}
