"""The recipe judge_training through the real door, from pairs of an `observed` release, against a scripted server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from integration.reasons_world import QUICK, Made, Released, calls, habits, release, text
from loopback import Loopback, serve
from loopback.sensible import blocks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("reasons"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def trained(released: Released, server: Loopback) -> Made:
    return released.standard("judge_training", server).made


def _labels(released: Released) -> dict[frozenset[str], str]:
    """By the texts of its two replies, which one is the chosen."""
    rows = released.table("pairs").iter_rows(named=True)
    return {
        frozenset(text(row[side]) for side in ("chosen", "rejected")): text(row["chosen"]) for row in rows
    }


def _is_right(made: Made, released: Released) -> None:
    """Of every pair the chosen judgment prefers the reply that the label prefers, the rejected one does not."""
    labels = _labels(released)
    for pair in made.table("pairs").iter_rows(named=True):
        asked = blocks(pair["prompt"][-1]["content"])
        shown = [one.text for one in asked if one.lead.startswith("Reply ")]
        right = str(shown.index(labels[frozenset(shown)]) + 1)
        chosen, rejected = (json.loads(text(pair[side])) for side in ("chosen", "rejected"))
        assert chosen["verdict"] == right
        assert rejected["verdict"] != right
        assert chosen["evidence"] != rejected["evidence"]


def _lost(made: Made) -> Counter[str]:
    return Counter(made.table("quarantine").filter(stage="judge_training")["reason"])


def test_the_chosen_judgment_finds_the_label_and_the_rejected_does_not(
    trained: Made, released: Released
) -> None:
    """Both answer the same question, in the same order of replies, and the scores lie apart for the label."""
    pairs = trained.table("pairs")
    assert pairs.height > 10
    _is_right(trained, released)
    assert (pairs["margin"] >= 2).all()
    assert set(pairs["origin"]) == {"judge"}
    votes = {row["id"]: row for row in trained.table("judgments").iter_rows(named=True)}
    for pair in pairs.iter_rows(named=True):
        right, wrong = (votes[one] for one in pair["judgment_ids"])
        assert [right[name] for name in ("item_id", "order", "judge")] == [
            wrong[name] for name in ("item_id", "order", "judge")
        ]
        assert (right["verdict"], wrong["verdict"] == right["verdict"]) == ("win", False)


def test_every_pair_gives_one_pair_or_a_reason(trained: Made, released: Released) -> None:
    """Pairs in = pairs out + set aside; a judge who is always right teaches nothing, and the reason says so."""
    lost = _lost(trained)
    assert set(lost) <= {"saturated", "judges_prefer_rejected", "judges_inconsistent"}
    assert lost["saturated"] > 0
    assert trained.table("pairs").height + lost.total() == released.table("pairs").height
    judgments = trained.table("judgments")
    assert judgments.height == released.table("pairs").height * 2 * 5


def test_pairs_lead_to_the_parents_conversations(trained: Made, released: Released) -> None:
    """Each stands in the split of the conversation that its replies are from."""
    known = released.table("conversations").select("split", conversation_id="id")
    assert trained.table("pairs").join(known, on=["conversation_id", "split"], how="anti").is_empty()


def test_a_judge_that_prefers_the_first_place_gives_no_pair(released: Released, server: Loopback) -> None:
    """He is right in one order and wrong in the other, never both in one: nothing to set against each other."""
    with habits(server, position_bias=1.0):
        made = released.run("judge_training", server, judging={"judges": ["first"]})
    assert made.table("pairs").is_empty()
    assert _lost(made) == {"judges_inconsistent": released.table("pairs").height}


def test_failed_judgments_take_no_part(released: Released, server: Loopback) -> None:
    """Requests fail, judges garble, tie and lean: pairs are lost with a reason, none is the wrong way round."""
    with habits(server, error_share=0.35, garble_share=0.3, tie_share=0.1, position_bias=0.2):
        made = released.run(
            "judge_training",
            server,
            {"worker": QUICK},
            judging={"judges": ["shaky", "shakier"], "evidences": 3},
        )
    judgments = made.table("judgments")
    failed = judgments.filter(verdict="failed")
    assert {"malformed_output", "server_error"} <= set(failed["reason"])
    assert judgments.height == released.table("pairs").height * 2 * 3 * 2
    assert set(made.table("pairs")["judgment_ids"].explode()).isdisjoint(failed["id"])
    assert made.table("pairs").height > 0
    assert made.table("pairs").height + _lost(made).total() == released.table("pairs").height
    _is_right(made, released)


def test_the_majority_decides_where_it_is_told_to(
    released: Released, trained: Made, server: Loopback
) -> None:
    """Rule majority: nobody is asked again, and the verdict that most judgments of an item give is right."""
    settings = {"judging": {"judges": ["hasty"]}, "curation": {"rule": "majority"}}
    made = released.run("judge_training", server, **settings)
    assert (made.result.status, calls(made)) == ("committed", {})
    assert made.table("judgments").equals(trained.table("judgments"))
    votes = {row["id"]: row for row in made.table("judgments").iter_rows(named=True)}
    counts = {
        item: Counter(verdicts)
        for item, verdicts in made.table("judgments").group_by("item_id").agg("verdict").iter_rows()
    }
    pairs = made.table("pairs")
    assert pairs.height > 0
    for right, wrong in pairs["judgment_ids"]:
        said = counts[votes[right]["item_id"]]
        assert said.most_common(1)[0][0] == votes[right]["verdict"] != votes[wrong]["verdict"]
