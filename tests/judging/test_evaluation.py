"""Scores on the evaluation set: each answer beside the reply of its own item, and every number by its definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripted import answered
from tilth.schemas import BadInput, TilthError, conform, empty
from tilth.schemas.ids import content_id
from tilth.transforms.inference.render import FAILED
from tilth.transforms.inference.requests import REQUESTS
from tilth.transforms.judging.aggregate import by_panel
from tilth.transforms.judging.evaluation import (
    ANSWERS,
    RESULTS,
    Scoring,
    answer_requests,
    answers_of,
    match,
    read_answers,
    score,
    settle,
)
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.judging.votes import votes_of
from tilth.transforms.responses.candidates import Replying

PROTOCOL = Judging().pairwise()
COUNT = 12
GREEDY = Replying(temperature=0.0)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def item(n: int) -> dict[str, Any]:
    return {
        "id": content_id("item", str(n)),
        "prompt_id": content_id("prompt", str(n)),
        "prompt": [turn("user", f"question {n}")],
        "checklist": [f'Is about "peas{n}".'],
        "reference": [turn("assistant", f"logged {n} [q=5]")],
        "cluster": n % 3,
        "distance": 0.1,
        "feedback_ids": [content_id("f", str(n))],
        "conversation_id": content_id("conversation", "one"),
        "method": "model",
        "split": "test",
    }


SET = conform(pl.DataFrame([item(n) for n in range(COUNT)]), "evaluation")
IDS = SET.get_column("id").to_list()


def table(texts: Mapping[int, str | None]) -> pl.DataFrame:
    rows = [{"id": IDS[n], "completion": text} for n, text in texts.items()]
    return pl.DataFrame(rows, schema={"id": pl.String, "completion": pl.String})


def quality(n: int) -> int:
    """Answers 0 to 3 are better than the logged reply, 4 to 7 as good, 8 to 11 worse."""
    return (9, 5, 1)[n // 4]


ANSWERED = table({n: f"answer {n} [q={quality(n)}]" for n in range(COUNT)})
WANTED = {IDS[n]: ("win", "tie", "loss")[n // 4] for n in range(COUNT)}


def verdicts_of(items: pl.DataFrame) -> pl.DataFrame:
    """A panel of one judge that knows the better reply by its mark."""
    if items.is_empty():
        return by_panel(votes_of(empty("judgments")), PROTOCOL.aggregation, PROTOCOL.weights)
    asked = judge_requests(items, PROTOCOL)
    told = answered(asked.requests)
    rows = judgments(items, asked.asked, told.completions, told.failed, "judge", PROTOCOL, "m")
    return by_panel(votes_of(rows), PROTOCOL.aggregation, PROTOCOL.weights)


def results_of(
    answers: pl.DataFrame, evaluation: pl.DataFrame = SET, against: pl.DataFrame | None = None
) -> pl.DataFrame:
    matched = match(evaluation, answers, against)
    return settle(matched.matches, verdicts_of(matched.items))


def said(results: pl.DataFrame) -> dict[str, str]:
    return dict(results.select("id", "verdict").iter_rows())


def test_each_answer_is_judged_beside_its_own_reference() -> None:
    """A judge that knows the better reply gives every item the verdict that was planted."""
    results = results_of(read_answers(ANSWERED, SET))
    assert results.schema == RESULTS
    assert said(results) == WANTED


@pytest.mark.slow
@given(st.randoms())
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_decides_nothing(chance: Any) -> None:
    """Permuted answers, items and judgments give the same results, row for row."""
    order = list(range(COUNT))
    chance.shuffle(order)
    one = results_of(read_answers(ANSWERED, SET))
    other = results_of(read_answers(ANSWERED[order], SET[order[::-1]]), SET[order])
    assert one.equals(other)
    assert score(one) == score(other)


def test_sides_are_never_swapped() -> None:
    """With both sides changed for each other, every win is a loss and every loss a win; ties stay."""
    answers = read_answers(ANSWERED, SET)
    references = read_answers(SET.select("id", completion="reference"), SET)
    turned = {"win": "loss", "loss": "win", "tie": "tie"}
    assert said(results_of(references, against=answers)) == {id_: turned[one] for id_, one in WANTED.items()}


def test_equal_texts_tie_without_a_judge() -> None:
    """An answer that is the reference is a tie; nobody is asked, and it is counted."""
    same = read_answers(SET.select("id", completion="reference"), SET)
    matched = match(SET, same, None)
    assert matched.items.is_empty()
    results = settle(matched.matches, verdicts_of(matched.items))
    assert set(said(results).values()) == {"tie"}
    found = score(results)
    assert (found["ties"], found["identical"], found["win_rate"]) == (COUNT, COUNT, 0.5)


def test_items_with_one_conversation_keep_their_own_answers() -> None:
    """Equal prompts, conversations and answers of two items are not mixed up: each has its own verdict."""
    twins = SET.with_columns(prompt_id=pl.lit("a" * 32), prompt=pl.col("prompt").first())
    texts = table({n: f"same answer [q={quality(n)}]" for n in range(COUNT)})
    results = results_of(read_answers(texts, twins), twins)
    assert results.height == COUNT
    assert said(results) == WANTED


def test_the_checklist_is_shown_or_not() -> None:
    """Judges see the item's checklist, and nothing of it without."""
    answers = read_answers(ANSWERED, SET)
    with_, without = (match(SET, answers, None, checklist=shown).items for shown in (True, False))
    assert sorted(with_.get_column("checklist").list.first()) == sorted(
        SET.get_column("checklist").list.first()
    )
    assert without.get_column("checklist").list.len().to_list() == [0] * COUNT
    assert not set(with_.get_column("item_id")) & set(without.get_column("item_id"))


# Answers


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table(dict.fromkeys(range(COUNT - 2), "x")), "2 of 12"),
        (table({n: " " if n else "x" for n in range(COUNT)}), "11 of 12"),
        (pl.concat([ANSWERED, ANSWERED[:2]]), "0 of 14 unknown, 2 repeated"),
        (ANSWERED.with_columns(id=pl.lit("f" * 32)), "12 of 12 unknown"),
        (ANSWERED.rename({"completion": "reply"}), "columns id, reply"),
        (ANSWERED.with_columns(completion=pl.lit(1)), "Int32"),
    ],
)
def test_answers_that_do_not_fit_the_set_are_refused(rows: pl.DataFrame, message: str) -> None:
    """Missing, blank, unknown and repeated answers, and columns of another kind, are errors that count."""
    with pytest.raises(BadInput, match=message):
        read_answers(rows, SET)


def test_missing_answers_are_left_out_on_request_and_counted() -> None:
    """With `allow_missing` the others are scored; what is missing is in no rate, and of no other item."""
    answers = read_answers(ANSWERED[2:], SET, allow_missing=True)
    results = results_of(answers)
    assert said(results) == {**WANTED, IDS[0]: "missing", IDS[1]: "missing"}
    found = score(results)
    assert (found["missing"], found["wins"], found["win_rate"]) == (2, 2, 4 / 10)


def test_answers_may_be_messages_or_called_text() -> None:
    """Text and messages of the assistant are the same answer."""
    messages = ANSWERED.with_columns(
        pl.concat_list(pl.struct(role=pl.lit("assistant"), content="completion")).alias("completion")
    )
    plain = read_answers(ANSWERED, SET)
    assert plain.schema == ANSWERS
    assert read_answers(messages, SET).equals(plain)
    assert read_answers(ANSWERED.rename({"completion": "text"}), SET).equals(plain)


def test_a_model_is_asked_the_logged_conversation_alone() -> None:
    """Requests hold the prompt and no checklist; ids and seeds come from the items."""
    asked = answer_requests(SET, "answers", GREEDY)
    assert asked.requests.schema == REQUESTS
    assert asked.requests.get_column("messages").to_list() == SET.get_column("prompt").to_list()
    assert asked.requests.get_column("seed").null_count() == COUNT
    warm = answer_requests(SET, "answers", Replying(), seed=1)
    shuffled = answer_requests(SET.reverse(), "answers", Replying(), seed=1)
    assert warm.requests.sort("id").equals(shuffled.requests.sort("id"))
    assert warm.requests.get_column("seed").n_unique() == COUNT
    other = answer_requests(SET, "against", GREEDY).requests
    assert not set(other.get_column("id")) & set(asked.requests.get_column("id"))


def test_answers_of_a_model_are_joined_by_id() -> None:
    """Whatever the order, each item has its own answer, or the reason why it has none."""
    asked = answer_requests(SET, "answers", GREEDY)
    told = answered(asked.requests)
    lost = told.completions.get_column("id").sort()[:3]
    kept = told.completions.filter(~pl.col("id").is_in(lost.implode()))
    failed = pl.DataFrame([(id_, "timed_out", "") for id_ in lost], schema=FAILED, orient="row")
    one, other = (answers_of(asked.asked, part, failed) for part in (kept, kept.reverse()))
    assert one.equals(other)
    texts = dict(told.completions.select("id", "text").iter_rows())
    for (id_, reply, reason), request in zip(one.iter_rows(), asked.asked.get_column("id"), strict=True):
        assert IDS.index(id_) == asked.asked.get_column("item").to_list().index(id_)
        if request in lost:
            assert (reply, reason) == (None, "timed_out")
        else:
            assert (reply, reason) == ([turn("assistant", texts[request])], None)
    with pytest.raises(TilthError):
        answers_of(asked.asked, kept, failed[:1])


# Scores


def results_with(counts: Mapping[str, int], chars: tuple[int, int] = (10, 10)) -> pl.DataFrame:
    words = [word for word, count in counts.items() for _ in range(count)]
    rows = [
        {
            "id": f"{n:032x}",
            "cluster": n % 2,
            "verdict": word,
            "identical": False,
            "chars": chars[0],
            "chars_against": chars[1],
        }
        for n, word in enumerate(words)
    ]
    return pl.DataFrame([{**dict.fromkeys(RESULTS), **row} for row in rows], schema=RESULTS)


def test_rates_are_what_they_are_called() -> None:
    """(wins + ties/2) of what was decided; the stricter one counts inconsistent items as half."""
    found = score(results_with({"win": 5, "loss": 2, "tie": 1, "inconsistent": 8, "failed": 3, "missing": 1}))
    assert found["win_rate"] == 5.5 / 8
    assert found["win_rate_strict"] == 9.5 / 16
    counts = {
        name: found[name] for name in ("items", "wins", "losses", "ties", "inconsistent", "failed", "missing")
    }
    assert list(counts.values()) == [20, 5, 2, 1, 8, 3, 1]
    low, high = found["win_rate_interval"]
    assert low < found["win_rate"] < high
    assert sum(one["items"] for one in found["clusters"]) == 20


@pytest.mark.slow
def test_what_is_not_known_is_null() -> None:
    """Without a decided item there is no win rate, without a judged one no length; neither is 0."""
    found = score(results_with({"inconsistent": 2}))
    assert (found["win_rate"], found["win_rate_interval"], found["win_rate_strict"]) == (None, None, 0.5)
    lost = score(results_with({"failed": 2, "missing": 1}))
    assert (lost["win_rate"], lost["win_rate_strict"], lost["length"]["mean_chars"]) == (None, None, None)
    assert score(results_with({}))["clusters"] == []


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says() -> None:
    """For 100 items and a true rate of 0.7, about 95 of 100 intervals hold it, and are as wide as they must be."""
    import numpy as np

    rng, hits = np.random.default_rng(7), 0
    for wins in rng.binomial(100, 0.7, 400):
        low, high = score(results_with({"win": wins, "loss": 100 - wins}), Scoring(resamples=500))[
            "win_rate_interval"
        ]
        hits += low <= 0.7 <= high
    assert 0.91 < hits / 400 < 0.98
    low, high = score(results_with({"win": 70, "loss": 30}))["win_rate_interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(0.7 * 0.3 / 100), abs=0.01)
    one = results_with({"win": 7, "loss": 3})
    assert score(one, Scoring(seed=1)) == score(one, Scoring(seed=1))


def test_length_is_reported_beside_the_score() -> None:
    """Mean lengths, what a judge that prefers the longer one would say, and how often that agrees."""
    longer = results_with({"win": 3, "loss": 1}, chars=(20, 10))
    found = score(longer)["length"]
    assert found == {
        "mean_chars": 20.0,
        "mean_chars_against": 10.0,
        "longer_wins": 1.0,
        "agrees_with_longer": 0.75,
    }
    equal = score(results_with({"win": 3}))["length"]
    assert (equal["longer_wins"], equal["agrees_with_longer"]) == (0.5, 0.0)


def test_an_item_that_judges_said_nothing_of_has_failed() -> None:
    """A verdict that is not there is a failure, and not a tie."""
    matched = match(SET, read_answers(ANSWERED, SET), None)
    verdicts = verdicts_of(matched.items)
    results = settle(matched.matches, verdicts[1:])
    assert results.filter(pl.col("verdict") == "failed").height == 1
    assert math.isclose(sum(score(results)[name] for name in ("wins", "losses", "ties", "failed")), COUNT)
