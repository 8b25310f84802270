"""The recipe rationales through the real door, from pairs of an `observed` release, against a scripted server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl
import pytest

from integration.reasons_world import (
    EACH,
    MISJUDGED,
    MISTAKES,
    QUICK,
    Made,
    Released,
    calls,
    habits,
    marks_agree,
    mistake_of,
    release,
    text,
)
from loopback import Loopback, serve
from loopback.sensible_rationales import claimed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("reasons"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]

KINDS: Final = ("general", "specific", "judgment", "option")
REASONS: Final = {
    "position": "names_position",
    "invent": "evidence_not_found",
    "swap": "label_not_recovered",
    "copy": "copies_reply",
    "empty": "empty",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def written(released: Released, server: Loopback) -> Made:
    return released.standard("rationales", server).made


def _by_model(made: Made) -> pl.DataFrame:
    return made.table("rationales").filter(pl.col("kind").is_in(KINDS))


def _set_aside(made: Made) -> pl.DataFrame:
    """Rationales in the quarantine: pair_id, kind, side, reason."""
    rows = (
        made.table("quarantine")
        .filter(stage="rationales")
        .select("key", "reason", "payload")
        .iter_rows(named=True)
    )
    found = [
        (row["key"].removeprefix("pairs#id="), json.loads(row["payload"]), row["reason"]) for row in rows
    ]
    return pl.DataFrame(
        [(pair, said["kind"], said["side"], reason) for pair, said, reason in found],
        schema=["pair_id", "kind", "side", "reason"],
        orient="row",
    )


def test_every_planted_mistake_is_set_aside_with_its_reason(written: Made, released: Released) -> None:
    """Of each kind each planted rationale is lost for what is wrong with it, and every other one is kept."""
    pairs = {row["id"]: row for row in released.table("pairs").iter_rows(named=True)}
    expected = [
        (pair, kind, REASONS[mistake])
        for pair, row in pairs.items()
        for kind in KINDS
        if (mistake := mistake_of(row)) is not None
    ] + [(pair, "option", REASONS["swap"]) for pair, row in pairs.items() if not marks_agree(row)]
    assert len(expected) == EACH * len(MISTAKES) * len(KINDS) + MISJUDGED
    lost = _set_aside(written)
    assert sorted(lost.select("pair_id", "kind", "reason").unique().rows()) == sorted(expected)
    kept = set(_by_model(written).select("pair_id", "kind").iter_rows())
    assert kept == {(pair, kind) for pair in pairs for kind in KINDS} - {
        (pair, kind) for pair, kind, _ in expected
    }


def test_every_answer_is_kept_or_set_aside_once(written: Made, released: Released) -> None:
    """One rationale an answer, two of an option: asked = kept + set aside, kind by kind."""
    asked = {kind: released.table("pairs").height * (2 if kind == "option" else 1) for kind in KINDS}
    kept, lost = (
        dict(rows.group_by("kind").len().iter_rows()) for rows in (_by_model(written), _set_aside(written))
    )
    assert {kind: kept[kind] + lost[kind] for kind in KINDS} == asked
    assert {
        purpose: count for purpose, count in calls(written).items() if purpose.startswith("rationales-")
    } == {f"rationales-{kind}": released.table("pairs").height for kind in KINDS}
    assert sum(written.result.dropped.values()) == _set_aside(written).height


def test_what_is_kept_speaks_for_the_label_with_words_that_stand_there(
    written: Made, released: Released
) -> None:
    """Each kept rationale was found by judges, its quotes stand in what they cite, and it praises the chosen reply."""
    pairs = {row["id"]: row for row in released.table("pairs").iter_rows(named=True)}
    rows = _by_model(written)
    assert rows["recovers_label"].all()
    assert rows["order"].list.sort().unique().to_list() == [[0, 1]]
    assert set(rows["order"].list.first()) == {0, 1}
    cited = [(row["pair_id"], quote) for row in rows.iter_rows(named=True) for quote in row["evidence"]]
    assert {quote["side"] for _, quote in cited} == {"chosen", "rejected", "prompt"}
    assert all(quote["quote"] in text(pairs[pair][quote["side"]]) for pair, quote in cited)
    compared = rows.filter(pl.col("kind") != "option").iter_rows(named=True)
    for row in compared:
        replies = [text(pairs[row["pair_id"]][side]) for side in ("chosen", "rejected")]
        assert claimed(row["text"], replies) == 0


def test_users_words_and_measures_stand_beside_what_the_model_wrote(
    written: Made, released: Released
) -> None:
    """Complaints are those of the release, word for word; ranks run from 1 among the rationales of a pair."""
    rows = written.table("rationales")
    complaints, parents = (
        each.filter(kind="user_complaint")
        .sort("id")
        .select("id", "pair_id", "text", "evidence", "feedback_ids", "split")
        for each in (rows, released.table("rationales"))
    )
    assert complaints.height == released.table("pairs").height
    assert complaints.equals(parents)
    assert rows.filter(kind="factors").height == released.table("pairs").height
    ranks = rows.drop_nulls("rank").group_by("pair_id").agg(pl.col("rank").sort())["rank"].to_list()
    assert ranks
    assert all(found == list(range(1, len(found) + 1)) for found in ranks)


def test_rationales_lead_to_the_parents_rows(written: Made, released: Released) -> None:
    """Pairs, feedback and conversations of rationales are those of the release, in their split; votes are their own."""
    rows = written.table("rationales")
    pairs = released.table("pairs").select("conversation_id", "split", pair_id="id")
    assert rows.join(pairs, on=["pair_id", "conversation_id", "split"], how="anti").is_empty()
    said, votes = (
        rows[name].explode(empty_as_null=False).drop_nulls() for name in ("feedback_ids", "judgment_ids")
    )
    assert set(said) <= set(released.table("feedback")["id"])
    judgments = written.table("judgments")
    assert 0 < votes.n_unique() <= judgments.height
    assert set(votes) <= set(judgments["id"])
    replies = dict(written.table("responses").select("id", "completion").iter_rows())
    sides = {
        text(row[side])
        for row in released.table("pairs").iter_rows(named=True)
        for side in ("chosen", "rejected")
    }
    assert {text(replies[one]) for one in judgments["response_ids"].explode()} <= sides


def test_a_changed_quote_or_a_foreign_pair_does_not_pass(written: Made, tmp_path: Path) -> None:
    """The audit, with the parent at hand, counts a quote that was changed and a pair that is nowhere."""
    rows = written.table("rationales")
    assert written.audit_in_place_of("rationales", rows, tmp_path / "as-it-is.parquet") == {}
    first = rows.with_row_index().filter(kind="specific")["index"][0]
    tampered = rows.with_row_index().with_columns(
        evidence=pl.when(pl.col("index") == first)
        .then(pl.lit([{"side": "chosen", "quote": "never said"}], dtype=rows.schema["evidence"]))
        .otherwise("evidence")
    )
    found = written.audit_in_place_of("rationales", tampered.drop("index"), tmp_path / "quote.parquet")
    assert found == {"quotes_not_in_pair": 1}
    elsewhere = rows.with_columns(
        pair_id=pl.when(pl.int_range(pl.len()) == first).then(pl.lit("0" * 32)).otherwise("pair_id")
    )
    found = written.audit_in_place_of("rationales", elsewhere, tmp_path / "pair.parquet")
    assert found["pair_ids_unresolved"] == 1


def test_a_judge_that_prefers_the_first_place_finds_nothing_and_turns_nothing(
    released: Released, server: Loopback
) -> None:
    """No written rationale survives him; all are set aside, and what needs no judge is as it was."""
    with habits(server, position_bias=1.0):
        made = released.run("rationales", server, kinds=["specific", "option"], judging={"judges": ["first"]})
    assert _by_model(made).is_empty()
    assert made.table("judgments").height > 0
    pairs = released.table("pairs").height
    assert _set_aside(made).height == pairs + 2 * pairs
    kept = Counter(made.table("rationales")["kind"])
    assert kept == {"user_complaint": pairs, "factors": pairs}


def test_failures_of_writers_and_judges_lose_rationales_and_turn_none(
    released: Released, server: Loopback
) -> None:
    """Requests fail, judges garble, tie and lean: samples = votes for + set aside in each group, and none is wrong."""
    faulty = {"error_share": 0.35, "position_bias": 0.15, "tie_share": 0.15, "garble_share": 0.15}
    drawn = {"samples": 3, "temperature": 0.7}
    with habits(server, **faulty):
        made = released.run(
            "rationales",
            server,
            {"worker": QUICK},
            kinds=["specific", "option"],
            writing=drawn,
            judging={"judges": ["shaky-rationales"]},
        )
    lost, kept = _set_aside(made), _by_model(made)
    assert {"server_error", "judges_failed", "label_not_recovered"} <= set(lost["reason"])
    assert 0 < kept.height < 3 * released.table("pairs").height
    _every_sample_is_accounted_for(kept, lost, released.table("pairs")["id"].to_list())
    counted = made.result.notes["rationales"]
    assert counted["merged"] == sum(round(one) - 1 for one in kept["vote_share"] * kept["samples"])
    assert {kind: counted[f"{kind}.asked"] for kind in ("specific", "option")} == dict.fromkeys(
        ("specific", "option"), 3 * released.table("pairs").height
    )
    honest = released.standard("rationales", server).made
    known = set(_by_model(honest).select("pair_id", "kind", "side", "text").iter_rows())
    assert set(kept.select("pair_id", "kind", "side", "text").iter_rows()) <= known


def _every_sample_is_accounted_for(kept: pl.DataFrame, lost: pl.DataFrame, pairs: list[str]) -> None:
    """Three samples of each group: a rationale that stands for its votes, and the others in the quarantine."""
    votes = {
        (pair, kind, side): round(share * samples)
        for pair, kind, side, share, samples in kept.select(
            "pair_id", "kind", "side", "vote_share", "samples"
        ).iter_rows()
    }
    assert set(kept["samples"]) == {3}
    gone = Counter(lost.select("pair_id", "kind", "side").iter_rows())
    for pair in pairs:
        assert votes.get((pair, "specific", None), 0) + gone[pair, "specific", None] == 3
        for side in ("chosen", "rejected"):
            unanswered = gone[pair, "option", None]
            assert votes.get((pair, "option", side), 0) + gone[pair, "option", side] + unanswered == 3


def test_without_a_model_there_are_the_users_words_and_measures(released: Released) -> None:
    """No engine: nobody is asked, and the rationales are complaints and measured differences, method rules."""
    assert released.preview("rationales", None)["asked"] == []
    made = released.run("rationales", None)
    assert made.result.usage == {}
    rows = made.table("rationales")
    assert set(rows["kind"]) == {"user_complaint", "factors"}
    assert set(rows["method"]) == {"rules"}
    assert {name: made.table(name).height for name in ("judgments", "responses", "quarantine")} == {
        "judgments": 0,
        "responses": 0,
        "quarantine": 0,
    }
    agreement = json.loads(made.version("rationales").properties["tilth.factors"])
    constraints = next(one for one in agreement if one["factor"] == "constraints_met")
    assert (constraints["concordant"], constraints["discordant"]) == (released.table("pairs").height, 0)


def test_a_changed_check_makes_a_new_version_and_asks_nobody(
    released: Released, written: Made, server: Loopback
) -> None:
    """Stricter checks judge the same answers: the version is new, and what models said is not asked for again."""
    made = released.run("rationales", server, kinds=list(KINDS), checks={"min_chars": 500})
    assert made.result.status == "committed"
    assert made.result.datasets[0].version != written.result.datasets[0].version
    assert calls(made) == {}
    assert _by_model(made).is_empty()
    assert set(_set_aside(made).filter(kind="general")["reason"]) == {"empty"}
