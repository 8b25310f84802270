"""A tournament that is judged round by round: what it is follows from replies and judgments, in any order of rows."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopback import Habits
from loopback.sensible import quality
from scripted import answered
from tilth.schemas import conform, content_ids, empty
from tilth.transforms.judging.bracket import Bracket, bracket, match_items
from tilth.transforms.judging.items import judge_requests, judgments
from tilth.transforms.judging.protocol import Judging
from tilth.transforms.pairs.won import won_pairs

PROTOCOL = Judging(judges=("judge",)).pairwise(seed=3)


def replies(*sizes: int, marks: tuple[int, ...] = (3, 8, 5, 9, 1, 7, 2, 6, 4)) -> pl.DataFrame:
    """Prompts with so many replies each, of different quality."""
    rows = [
        {
            "prompt_id": f"{prompt:032x}",
            "prompt": [{"role": "user", "content": f"Question {prompt}?"}],
            "completion": [{"role": "assistant", "content": f"Reply {n} of {prompt} [q={marks[n]}]"}],
            "role": "policy",
            "sample_index": n,
            "model": f"policy-{n % 2}",
            "guided": False,
            "conversation_id": f"{prompt:032x}",
            "method": "model",
            "split": "train",
        }
        for prompt, size in enumerate(sizes)
        for n in range(size)
    ]
    frame = conform(pl.DataFrame(rows), "responses")
    return frame.with_columns(
        content_ids(frame, "responses", [pl.col("prompt_id"), pl.col("sample_index").cast(pl.String)])
    )


def play(
    responses: pl.DataFrame, habits: Habits, shuffle: int | None = None
) -> tuple[Bracket, pl.DataFrame, int]:
    """The bracket after its last round, all judgments, and how many rounds there were."""
    said, rounds = empty("judgments"), 0
    while True:
        frames = [responses, said]
        if shuffle is not None:
            frames = [frame.sample(fraction=1, shuffle=True, seed=shuffle + rounds) for frame in frames]
        now = bracket(frames[0], frames[1], PROTOCOL)
        items = match_items(now.now.matches, frames[0])
        if items.is_empty():
            return now, said, rounds
        asked = judge_requests(items, PROTOCOL)
        told = answered(asked.requests, habits, model="judge")
        rows = judgments(items, asked.asked, told.completions, told.failed, "judge", PROTOCOL, "judge@1")
        said, rounds = pl.concat([said, rows]), rounds + 1


def test_the_best_of_n_wins_in_n_minus_one_matches() -> None:
    """With an honest judge the champion is the best reply, whatever the bracket, and each match is judged once."""
    responses = replies(9, 4, 1)
    last, said, rounds = play(responses, Habits())
    assert said.height == 2 * (8 + 3)
    assert rounds == 4
    texts = dict(
        responses.select("id", pl.col("completion").list.first().struct.field("content")).iter_rows()
    )
    best = {
        quality(texts[id_])
        for id_ in last.now.waiting.filter(pl.col("prompt_id") != f"{2:032x}")["response_id"]
    }
    assert best == {9}


@pytest.mark.parametrize("habits", [Habits(), Habits(position_bias=0.5, tie_share=0.2, garble_share=0.2)])
def test_a_pair_is_a_match_that_was_won_in_both_orders(habits: Habits) -> None:
    """Chosen is the better reply, the judgments named are the match's own, matches without a winner are set aside."""
    responses = replies(9, 8, 7, 5, 3, 2)
    last, said, _ = play(responses, habits)
    ruled = won_pairs(last, responses)
    assert last.results.height == 8 + 7 + 6 + 4 + 2 + 1
    assert ruled.kept.height + ruled.dropped.height == last.results.height
    sides = dict(said.select("id", "response_ids").iter_rows())
    texts = dict(
        responses.select("id", pl.col("completion").list.first().struct.field("content")).iter_rows()
    )
    for pair in ruled.kept.iter_rows(named=True):
        chosen, rejected = (pair[side][0]["content"] for side in ("chosen", "rejected"))
        assert (quality(chosen) or 0) > (quality(rejected) or 0)
        assert pair["margin"] > 0
        assert len(pair["judgment_ids"]) == 2
        assert all({texts[one] for one in sides[id_]} == {chosen, rejected} for id_ in pair["judgment_ids"])
    decided = last.results["winner_id"].drop_nulls().len()
    assert ruled.kept.height == decided
    if habits != Habits():
        assert 0 < decided < last.results.height


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 99))
def test_the_order_of_rows_decides_nothing(sizes: list[int], seed: int) -> None:
    """Replies and judgments in any order play the same matches with the same winners."""
    responses = replies(*sizes)
    habits = Habits(position_bias=0.3, tie_share=0.1, garble_share=0.1)
    one, other = play(responses, habits), play(responses, habits, shuffle=seed)
    key = ["prompt_id", "round", "seat"]
    assert one[0].results.sort(key).equals(other[0].results.sort(key))
    assert won_pairs(one[0], responses).kept.equals(won_pairs(other[0], responses).kept)
