"""Pairs over judgments: the chosen one is right, the rejected one wrong, both answer one question, none is invented."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError, Reason, conform, empty
from tilth.schemas.contracts import CONTRACTS, measure
from tilth.schemas.ids import content_id
from tilth.transforms.inference.requests import COMPLETIONS, Questions
from tilth.transforms.judging.curation import LABELS, Curation, judge_training_pairs
from tilth.transforms.judging.curation_steps import JudgeTraining, LabelItems, labelled_items
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Judging, Protocol
from tilth.transforms.pairs.candidates import Ruled
from tilth.transforms.parts import read_part, write_part
from tilth.transforms.stage import Output, Task

NOTHING: Final = pl.DataFrame(schema={"id": pl.String, "reason": pl.String})
CORRECT: Final = Curation()
Answer = tuple[int, int] | None
"""Scores of chosen and rejected reply; null for a judge that fails."""


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def labelled_pairs(count: int) -> pl.DataFrame:
    """Pairs whose better reply is known."""
    rows = [
        {
            "id": content_id("pair", str(n)),
            "prompt_id": content_id("prompt", str(n)),
            "prompt": said("user", f"Question {n}?"),
            "chosen": said("assistant", f"Right {n}."),
            "rejected": said("assistant", f"Wrong {n}."),
            "conversation_id": content_id("conversation", str(n)),
            "split": "train",
        }
        for n in range(count)
    ]
    return conform(pl.DataFrame(rows), "pairs")


def protocol(samples: int, *judges: str) -> Protocol:
    return Judging(judges=judges or ("judge",), evidences=samples, temperature=1.0).pairwise(seed=3)


class World:
    """Items, what was asked about them, and what judges said, in the order of items, orders and samples."""

    def __init__(self, answers: Sequence[Answer], samples: int, *judges: str, evidence: str = "") -> None:
        self.protocol = protocol(samples, *judges)
        of_item = 2 * samples * len(self.protocol.judges)
        self.items = labelled_items(labelled_pairs(len(answers) // of_item))
        self.questions: Questions = judge_requests(self.items, self.protocol)
        self.labels = self.items.select("item_id", label=pl.lit("win"))
        drawn = iter(answers)
        self.judgments = pl.concat(
            self._judged(judge.name, drawn, evidence) for judge in self.protocol.judges
        )

    def _judged(self, judge: str, answers: Iterator[Answer], evidence: str) -> pl.DataFrame:
        rows, failed = list[tuple[Any, ...]](), list[tuple[str, str]]()
        for id_, order, sample in self.questions.asked.select("id", "order", "sample_index").iter_rows():
            scores = next(answers)
            if scores is None:
                failed.append((id_, Reason.MALFORMED_OUTPUT.value))
                continue
            one, two = (scores[place] for place in order)
            verdict = "1" if one > two else "2" if one < two else "tie"
            why = evidence or f"{judge} {sample} says {scores}, é"
            text = {"evidence": why, "score_1": one, "score_2": two, "verdict": verdict}
            rows.append((id_, orjson.dumps(text).decode(), "stop", None, 1, 1, f"{judge}@1"))
        answered = pl.DataFrame(rows, schema=COMPLETIONS, orient="row")
        lost = pl.DataFrame(failed, schema=NOTHING.schema, orient="row")
        return judgments(self.items, self.questions.asked, answered, lost, judge, self.protocol, f"{judge}@1")

    def ruled(self, config: Curation = CORRECT, shuffle: int | None = None) -> Ruled:
        def permuted(frame: pl.DataFrame) -> pl.DataFrame:
            return frame if shuffle is None else frame.sample(fraction=1.0, shuffle=True, seed=shuffle)

        frames = (self.items, self.questions.requests, self.questions.asked, self.judgments, self.labels)
        items, requests, asked, judged, labels = map(permuted, frames)
        return judge_training_pairs(items, requests, asked, judged, labels, self.protocol, config)


def flaws(pairs: pl.DataFrame) -> dict[str, int]:
    counts = measure("pairs", pairs).counts
    return {name: counts[name] for name in CONTRACTS["pairs"].defects if counts[name]}


def reasons(ruled: Ruled) -> list[str]:
    return ruled.dropped.get_column("reason").to_list()


def content(messages: list[dict[str, str]]) -> dict[str, Any]:
    return orjson.loads(messages[0]["content"])


# One item, by hand


def test_right_over_wrong_by_the_widest_margin() -> None:
    """Of one item's judgments in both orders, the pair with the largest margin within one order is made, whole."""
    # Shown as they are: margins 3 (right), 1 (right), -2 (wrong). Turned round: 5 (right), 6 (right), 0 (a tie: wrong).
    world = World([(8, 5), (7, 6), (4, 6), (9, 4), (9, 3), (5, 5)], 3)
    (row,) = world.ruled().kept.to_dicts()
    assert (row["chosen_score"], row["rejected_score"], row["margin"]) == (6, 0, 6)
    # Within the turned order: 6 against 0 is wider than 3 against -2.
    assert content(row["chosen"]) == {
        "evidence": "judge 1 says (9, 3), é",
        "score_1": 3,
        "score_2": 9,
        "verdict": "2",
    }
    assert content(row["rejected"])["verdict"] == "tie"
    turned = [
        id_ for id_, order in world.questions.asked.select("id", "order").iter_rows() if order == [1, 0]
    ]
    prompts = world.questions.requests.filter(pl.col("id").is_in(turned)).get_column("messages").to_list()
    assert row["prompt"] == prompts[0]
    assert row["prompt"][-1]["role"] == "user"
    by_id = {one["id"]: one for one in world.judgments.to_dicts()}
    assert [by_id[id_]["scores"] for id_ in row["judgment_ids"]] == [[9, 3], [5, 5]]
    assert (row["origin"], row["method"], row["verdict"]) == ("judge", "model", "win")
    assert row["models"] == {"chosen": "judge@1", "rejected": "judge@1"}
    assert (row["conversation_id"], row["split"]) == (content_id("conversation", "0"), "train")
    assert flaws(world.ruled().kept) == {}


def test_an_answer_is_what_the_judge_said() -> None:
    """The chosen text, read as an answer to the request that it was given to, is the judgment that it came from."""
    world = World([(8, 5), (2, 6), (9, 4), (3, 8)], 2)
    (row,) = world.ruled().kept.to_dicts()
    for side, id_ in zip(("chosen", "rejected"), row["judgment_ids"], strict=True):
        told = world.judgments.filter(pl.col("id") == id_)
        of = world.questions.asked.join(told.select("order", "sample_index"), on=["order", "sample_index"])
        text = row[side][0]["content"]
        assert list(orjson.loads(text)) == ["evidence", "score_1", "score_2", "verdict"]
        answered = pl.DataFrame(
            [(of["id"][0], text, "stop", None, 1, 1, "m")], schema=COMPLETIONS, orient="row"
        )
        again = judgments(world.items, of, answered, NOTHING, "judge", world.protocol, "judge@1")
        assert again.equals(told)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([None, None, None, None], Reason.JUDGES_FAILED),
        ([(8, 5), (8, 4), (9, 5), (7, 2)], Reason.SATURATED),
        ([(5, 8), (5, 5), (5, 9), (2, 7)], Reason.JUDGES_PREFER_REJECTED),
        ([(8, 2), (9, 2), (2, 8), (1, 7)], Reason.JUDGES_INCONSISTENT),
        ([(6, 5), (5, 5), (6, 5), (5, 5)], Reason.TIE),
        ([None, (8, 2), (2, 8), None], Reason.JUDGES_INCONSISTENT),
    ],
)
def test_an_item_without_a_pair_says_why(answers: list[Answer], reason: Reason) -> None:
    """Failures, agreement, orders that differ and narrow margins each have their reason, in one row per item."""
    ruled = World(answers, 2).ruled()
    assert ruled.kept.is_empty()
    assert reasons(ruled) == [reason.value]
    assert (
        measure("quarantine", ruled.dropped.with_columns(id=pl.lit("0" * 32))).counts["reason_unknown"] == 0
    )


def test_copied_evidence_teaches_nothing() -> None:
    """Judgments that differ in their scores alone are never set against each other."""
    ruled = World([(8, 2), (2, 8), (8, 2), (2, 8)], 2, evidence="Both are fine.").ruled()
    assert reasons(ruled) == [Reason.IDENTICAL_SIDES.value]


def test_a_label_is_needed() -> None:
    """An item without a label, with a tie for one, or with two of them gives no pair under `correct`."""
    world = World([(8, 2), (2, 8), (8, 2), (2, 8)], 2)
    item = world.items["item_id"][0]
    for told in ([], [(item, "tie")], [(item, "win"), (item, "loss")]):
        world.labels = pl.DataFrame(told, schema=LABELS, orient="row")
        assert reasons(world.ruled()) == [Reason.TIE.value]
    world.labels = pl.DataFrame([(item, "loss")], schema=LABELS, orient="row")
    (row,) = world.ruled().kept.to_dicts()
    assert (row["chosen_score"], row["rejected_score"], row["verdict"]) == (6, -6, "loss")


def test_the_majority_stands_in_for_a_label() -> None:
    """The most frequent verdict over orders and samples is right, whatever the label; a tie, also of votes, is none."""
    by_majority = Curation(rule="majority")
    against = World([(2, 8), (3, 8), (8, 2), (1, 9)], 2).ruled(by_majority)
    (row,) = against.kept.to_dicts()
    assert (row["verdict"], row["chosen_score"], row["rejected_score"]) == ("loss", 8, -6)
    world = World([(2, 8), (8, 2), (8, 2), (2, 8)], 2)
    world.judgments = pl.concat([world.judgments, world.judgments[:1]])
    even = world.ruled(by_majority)
    ties = World([(5, 5), (5, 5), (8, 2), (5, 5)], 2).ruled(by_majority)
    assert reasons(even) == reasons(ties) == [Reason.TIE.value]


def test_a_judge_that_goes_by_place_teaches_nothing() -> None:
    """Always preferring what is shown first is right in one order and wrong in the other: no pair by either rule."""
    world = World([(8, 2), (9, 3), (2, 8), (3, 9)], 2)
    assert reasons(world.ruled()) == [Reason.JUDGES_INCONSISTENT.value]
    assert reasons(world.ruled(Curation(rule="majority"))) == [Reason.TIE.value]


def test_judges_of_a_panel_are_not_set_against_each_other() -> None:
    """One judge right and another wrong is no pair: neither would learn from an answer of its own."""
    ruled = World([(8, 2), (8, 2), (2, 8), (2, 8)], 1, "one", "other").ruled()
    assert reasons(ruled) == [Reason.JUDGES_INCONSISTENT.value]


def test_no_judgment_stands_in_two_pairs() -> None:
    """`per_item` takes the widest pairs first, and each judgment once."""
    world = World([(9, 2), (8, 2), (2, 8), (3, 5), (9, 2), (9, 1), (9, 1), (9, 1)], 4)
    rows = world.ruled(Curation(per_item=5)).kept
    assert sorted(rows["margin"].to_list()) == [8, 13]
    assert rows["judgment_ids"].explode().n_unique() == 4


def test_other_protocols_count_nowhere() -> None:
    """Judgments that were made under another protocol are no answers to these requests."""
    world = World([(8, 2), (2, 8), (8, 2), (2, 8)], 2)
    world.judgments = world.judgments.with_columns(protocol=pl.lit("0" * 32))
    assert reasons(world.ruled()) == [Reason.JUDGES_FAILED.value]


@pytest.mark.parametrize("setting", [{"rule": "best"}, {"min_margin": 0.0}, {"per_item": 0}])
def test_settings_that_cannot_be_meant(setting: dict[str, Any]) -> None:
    """A rule that is none, no margin and no pairs are refused."""
    with pytest.raises(ConfigError):
        Curation(**setting)


# Many items

scores = st.one_of(st.none(), st.tuples(st.integers(1, 10), st.integers(1, 10)))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    samples, judges = draw(st.integers(1, 3)), ("one", "other")[: draw(st.integers(1, 2))]
    count = draw(st.integers(1, 4)) * 2 * samples * len(judges)
    return World(draw(st.lists(scores, min_size=count, max_size=count)), samples, *judges)


configs = st.builds(
    Curation, st.sampled_from(["correct", "majority"]), st.sampled_from([0.5, 2.0, 5.0]), st.integers(1, 2)
)


@pytest.mark.slow
@given(worlds(), configs, st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_every_pair_is_right_over_wrong(world: World, config: Curation, shuffle: int) -> None:
    """Every item is a pair or a reason; sides answer one prompt, the chosen one rightly; no order of rows decides."""
    ruled = world.ruled(config)
    again = world.ruled(config, shuffle)
    assert again.kept.equals(ruled.kept)
    assert again.dropped.equals(ruled.dropped)
    assert flaws(ruled.kept) == {}
    by_id = {row["id"]: row for row in world.judgments.to_dicts()}
    seen = set[str]()
    for row in ruled.kept.iter_rows(named=True):
        chosen, rejected = (by_id[id_] for id_ in row["judgment_ids"])
        label = "win" if config.rule == "correct" else row["verdict"]
        assert chosen["verdict"] == label != rejected["verdict"]
        assert [chosen[k] for k in ("item_id", "order", "judge")] == [
            rejected[k] for k in ("item_id", "order", "judge")
        ]
        assert row["margin"] >= config.min_margin
        sign = 1 if label == "win" else -1
        assert row["chosen_score"] == sign * (chosen["scores"][0] - chosen["scores"][1])
        seen.add(chosen["item_id"])
    lost = [key.removeprefix("items#id=") for key in ruled.dropped["key"]]
    assert sorted([*seen, *lost]) == sorted(world.items["item_id"])


@pytest.mark.slow
@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_neither_failures_nor_repetition_turn_a_label(world: World, draws: random.Random) -> None:
    """With judgments lost, what is left is still right over wrong; rows that stand there twice change nothing."""
    whole = world.ruled()
    given = world.judgments
    world.judgments = pl.concat([given, given])
    assert world.ruled().kept.equals(whole.kept)
    failed = pl.Series([draws.random() < 0.4 for _ in range(given.height)], dtype=pl.Boolean)
    lost = pl.when(failed).then(pl.lit("failed")).otherwise("verdict")
    world.judgments = given.with_columns(verdict=lost, scores=pl.when(~failed).then("scores"))
    by_id = {row["id"]: row["verdict"] for row in world.judgments.to_dicts()}
    for ids in world.ruled().kept["judgment_ids"]:
        assert by_id[ids[0]] == "win"
        assert by_id[ids[1]] in ("loss", "tie")


# Steps


def test_items_have_the_chosen_reply_first() -> None:
    """Every pair is one item without wishes, whose first reply is the chosen one, in any order of rows."""
    pairs = labelled_pairs(5)
    listed = labelled_items(pairs)
    assert listed.height == 5
    assert labelled_items(pairs.reverse()).equals(listed)
    replies = [[reply[0]["content"][:5] for reply in both] for both in listed["replies"]]
    assert replies == [["Right", "Wrong"]] * 5
    assert listed["checklist"].list.len().sum() == 0
    assert labelled_items(empty("pairs")).is_empty()


def test_the_steps_hand_on_what_the_rules_say(tmp_path: Path) -> None:
    """Labelled items, then pairs in buckets and what was set aside: nothing more than the rules, and rows counted."""
    world = World([(8, 5), (2, 6), (9, 4), (3, 8), None, None, None, None], 2)
    parts = {
        "pairs": write_part(labelled_pairs(2), f"{tmp_path}/pairs.parquet", "pairs"),
        "items": write_part(world.items, f"{tmp_path}/items.parquet"),
        "requests": write_part(world.questions.requests, f"{tmp_path}/requests.parquet"),
        "asked": write_part(world.questions.asked, f"{tmp_path}/asked.parquet"),
        "judgments": write_part(world.judgments, f"{tmp_path}/judgments.parquet", "judgments"),
    }
    task = Task("0", {name: (part,) for name, part in parts.items()}, {"source": "observed.pairs"})
    labelled, trained = Output("a", {}, str(tmp_path)), Output("b", {}, str(tmp_path))
    LabelItems().run(task, labelled)
    JudgeTraining(world.protocol).run(task, trained)
    assert read_part(labelled.outputs["items"][0]).equals(world.items)
    assert labelled.counts == {"rows_in@observed.pairs": 2}
    ruled = world.ruled()
    assert ruled.kept.height == 1
    assert read_part(trained.outputs["candidate_pairs"][0]).drop("bucket").equals(ruled.kept)
    assert read_part(trained.outputs["quarantine"][0])["reason"].to_list() == [Reason.JUDGES_FAILED.value]
