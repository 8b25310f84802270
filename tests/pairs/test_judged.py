"""Pairs that judges decided: a win becomes a pair, and nothing else ever does."""

from __future__ import annotations

from typing import Any, Final, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import Reason, conform
from tilth.schemas.contracts import measure
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.protocol import Aggregation
from tilth.transforms.judging.votes import VERDICTS, votes_of
from tilth.transforms.pairs.candidates import Ruled
from tilth.transforms.pairs.judged import judged_pairs
from tilth.transforms.responses.comparisons import COMPARISONS

Says = Literal["better", "worse", "same", "first", "nothing"]
SAYS: Final[tuple[Says, ...]] = ("better", "worse", "same", "first", "nothing")
SCORES: Final[dict[str, tuple[int, int]]] = {"better": (8, 3), "worse": (3, 8), "same": (5, 5)}
PANEL: Final = {"one": 1.0, "two": 1.0, "three": 1.0}
JUDGMENT: Final = {
    "kind": "pairwise",
    "model": "m@1",
    "prompt_version": "p@1",
    "protocol": "0" * 32,
    "method": "model",
}


def id_of(name: str) -> str:
    """An id of 32 characters that begins with a name; hexadecimal where the name is."""
    return name.ljust(32, "0")


def comparison(name: str, **fields: Any) -> dict[str, Any]:
    """A comparison of one item; the sides of items are different."""
    known = {
        "item_id": id_of(name),
        "conversation_id": id_of(f"c{name}"),
        "target_index": 1,
        "prompt": [{"role": "user", "content": f"Why {name}?"}],
        "chosen": [{"role": "assistant", "content": f"Good for {name}."}],
        "rejected": [{"role": "assistant", "content": f"Bad for {name}."}],
        "models": {"chosen": "m", "rejected": "n"},
        "origin": "expert",
        "user_preferences": ["Be good."],
        "feedback_ids": [id_of("f")],
        "flags": [],
        "calls_tools": False,
        "source": "log",
        "split": "train",
    }
    return {**known, **fields}


def comparisons(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=COMPARISONS)


def judgment(name: str, judge: str, first: int, scores: tuple[int, int] | None) -> dict[str, Any]:
    """What a judge says with this side first; the scores are of the two sides, null where it failed."""
    verdict = "failed"
    if scores is not None:
        verdict = "win" if scores[0] > scores[1] else "loss" if scores[0] < scores[1] else "tie"
    return {
        **JUDGMENT,
        "id": id_of(f"{name}{judge}{first}"),
        "item_id": id_of(name),
        "judge": judge,
        "order": [first, 1 - first],
        "sample_index": 0,
        "verdict": verdict,
        "scores": None if scores is None else [float(score) for score in scores],
        "reason": Reason.TIMED_OUT.value if scores is None else None,
        "response_ids": [id_of("a"), id_of("b")],
        "split": "train",
    }


def opinion(name: str, judge: str, says: Says) -> list[dict[str, Any]]:
    """Both orders of one judge that says this of the side that is meant to be better."""
    if says == "nothing":
        return [judgment(name, judge, first, None) for first in (0, 1)]
    if says == "first":
        return [judgment(name, judge, 0, (8, 3)), judgment(name, judge, 1, (3, 8))]
    return [judgment(name, judge, first, SCORES[says]) for first in (0, 1)]


def judgments(*rows: dict[str, Any]) -> pl.DataFrame:
    return (
        conform(pl.DataFrame(list(rows), strict=False), "judgments")
        if rows
        else conform(pl.DataFrame(), "judgments")
    )


def panel(opinions: dict[str, list[Says]]) -> pl.DataFrame:
    """By item, what each judge says."""
    return judgments(
        *(
            row
            for name, said in opinions.items()
            for judge, says in zip(PANEL, said, strict=True)
            for row in opinion(name, judge, says)
        )
    )


def ruled(rows: pl.DataFrame, said: pl.DataFrame) -> Ruled:
    return judged_pairs(rows, by_panel(votes_of(said), Aggregation(), PANEL), said)


def kept(made: Ruled) -> set[str]:
    """Which items became pairs, by what is asked."""
    return {prompt[0]["content"].split()[1][:-1] for prompt in made.kept["prompt"]}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (["better", "better", "better"], None),
        (["better", "better", "worse"], None),
        (["better", "better", "nothing"], None),
        (["better", "nothing", "nothing"], Reason.JUDGES_FAILED),
        (["nothing", "nothing", "nothing"], Reason.JUDGES_FAILED),
        (["worse", "worse", "worse"], Reason.JUDGES_PREFER_REJECTED),
        (["worse", "worse", "better"], Reason.JUDGES_PREFER_REJECTED),
        (["same", "same", "nothing"], Reason.JUDGES_TIED),
        (["same", "same", "better"], Reason.JUDGES_INCONSISTENT),  # a tie with a margin is none
        (["first", "first", "first"], Reason.JUDGES_INCONSISTENT),
        (["first", "first", "better"], Reason.JUDGES_INCONSISTENT),
        (["better", "worse", "same"], Reason.JUDGES_INCONSISTENT),
    ],
)
def test_only_a_win_becomes_a_pair(said: list[Says], reason: Reason | None) -> None:
    """Each other verdict is set aside for its own reason; none of them turns the pair round."""
    made = ruled(comparisons(comparison("a")), panel({"a": said}))
    assert made.kept.height + made.dropped.height == 1
    assert made.dropped["reason"].to_list() == ([] if reason is None else [reason.value])
    if reason is None:
        pair = made.kept.row(0, named=True)
        assert pair["chosen"][0]["content"] == "Good for a."
        assert pair["verdict"] == "win"
        assert pair["margin"] == pair["chosen_score"] - pair["rejected_score"] > 0
        assert len(pair["judgment_ids"]) == 6


def test_a_comparison_that_nobody_judged_is_failed() -> None:
    """No verdict is no win."""
    made = ruled(comparisons(comparison("a"), comparison("b")), panel({"a": ["better"] * 3}))
    assert kept(made) == {"a"}
    assert made.dropped["reason"].to_list() == [Reason.JUDGES_FAILED.value]


@pytest.mark.parametrize("verdict", ["undecided", "WIN", "", None])
def test_a_verdict_that_nobody_knows_is_failed(verdict: str | None) -> None:
    """It is not taken for a win because it is none of the others."""
    verdicts = pl.DataFrame(
        [{"item_id": id_of("a"), "verdict": verdict, "score_a": 9.0, "score_b": 1.0}], schema=VERDICTS
    )
    made = judged_pairs(comparisons(comparison("a")), verdicts, panel({"a": ["better"] * 3}))
    assert made.kept.is_empty()
    assert made.dropped["reason"].to_list() == [Reason.JUDGES_FAILED.value]


@pytest.mark.parametrize(
    ("a", "b"), [(None, None), (3.0, 3.0), (1.0, 9.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_a_win_without_a_margin_is_no_pair(a: float | None, b: float | None) -> None:
    """Whatever the verdict says, equal scores, none, or the wrong way round never ship."""
    verdicts = pl.DataFrame(
        [{"item_id": id_of("a"), "verdict": "win", "score_a": a, "score_b": b}], schema=VERDICTS
    )
    made = judged_pairs(comparisons(comparison("a")), verdicts, panel({"a": ["better"] * 3}))
    assert made.kept.is_empty()
    assert made.dropped["reason"].to_list() == [Reason.TIE.value]


opinions = st.dictionaries(
    st.sampled_from(list("abcdef")),
    st.lists(st.sampled_from(SAYS), min_size=3, max_size=3),
    min_size=1,
)


@pytest.mark.slow
@given(said=opinions, seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_order_of_rows_and_fate_of_others_change_no_label(said: dict[str, list[Says]], seed: int) -> None:
    """Permuted comparisons and judgments give the same pairs; an item alone has the label that it has among others."""
    rows, told = comparisons(*(comparison(name) for name in said)), panel(said)
    made = ruled(rows, told)
    mixed = ruled(
        rows.sample(fraction=1.0, shuffle=True, seed=seed),
        told.sample(fraction=1.0, shuffle=True, seed=seed + 1),
    )
    assert made.kept.equals(mixed.kept)
    assert made.dropped.equals(mixed.dropped)
    assert made.kept.height + made.dropped.height == len(said)
    assert kept(made) == {name for name, views in said.items() if views.count("better") > 1}
    for name, views in said.items():
        alone = ruled(comparisons(comparison(name)), panel({name: views}))
        assert kept(alone) == kept(made) & {name}
    counts = measure("pairs", made.kept).counts
    ids_are_made_up = {"conversation_id_malformed"}
    facts = {"chosen_longer", "recovered", "held_out"}
    assert not {name for name, count in counts.items() if count} - ids_are_made_up - facts


@pytest.mark.slow
@given(said=opinions, failing=st.sampled_from(list(PANEL)))
@settings(max_examples=30, deadline=None)
def test_a_judge_that_fails_turns_no_label_round(said: dict[str, list[Says]], failing: str) -> None:
    """Without one judge a pair may be lost; none appears that there was not with the whole panel."""
    rows = comparisons(*(comparison(name) for name in said))
    at = list(PANEL).index(failing)
    without: dict[str, list[Says]] = {name: list(views) for name, views in said.items()}
    for views in without.values():
        views[at] = "nothing"
    assert kept(ruled(rows, panel(without))) <= kept(ruled(rows, panel(said)))


def test_duplicate_prompts_keep_their_own_labels() -> None:
    """Two conversations with one prompt, one won and one lost: one pair, of the conversation where it was won."""
    asked = [{"role": "user", "content": "Why a?"}]
    rows = comparisons(comparison("a"), comparison("b", prompt=asked))
    made = ruled(rows, panel({"a": ["worse"] * 3, "b": ["better"] * 3}))
    assert made.kept["conversation_id"].to_list() == [id_of("cb")]
    assert made.kept["chosen"][0][0]["content"] == "Good for b."


def test_equal_rows_are_one_pair() -> None:
    """A comparison that stands there twice, or two samples with the same texts, make one pair of a conversation."""
    same = {name: comparison("a")[name] for name in ("prompt", "chosen", "rejected", "conversation_id")}
    again = comparison("b", **same)
    said = panel({"a": ["better"] * 3, "b": ["better"] * 3})
    assert ruled(comparisons(comparison("a"), comparison("a"), again), said).kept.height == 1


@pytest.mark.parametrize("twin", ["Good for a.", "good FOR a.", " Good\nfor a. "])
def test_equal_sides_never_ship(twin: str) -> None:
    """Also when they differ in case and white space alone, and the panel sees a winner."""
    rejected = [{"role": "assistant", "content": twin}]
    made = ruled(comparisons(comparison("a", rejected=rejected)), panel({"a": ["better"] * 3}))
    assert made.kept.is_empty()
    assert made.dropped["reason"].to_list() == [Reason.IDENTICAL_SIDES.value]


@pytest.mark.parametrize("flag", ["hate", "unchecked"])
def test_what_is_flagged_never_ships(flag: str) -> None:
    """Harmful, or not looked at by the moderator that was asked to."""
    made = ruled(comparisons(comparison("a", flags=[flag])), panel({"a": ["better"] * 3}))
    assert made.kept.is_empty()
    assert made.dropped.select("reason", "detail").row(0) == (Reason.MODERATED.value, f"flagged: {flag}")


def test_nothing_compared_is_no_pair() -> None:
    """Empty frames go through."""
    made = ruled(comparisons(), judgments())
    assert (made.kept.height, made.dropped.height) == (0, 0)
