"""Tournaments: M - 1 matches, lots that are never a preference, and ratings that find known strengths again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import BadInput, ConfigError
from tilth.transforms.judging.tournament import (
    PLAYED,
    EloFit,
    Round,
    better_and_worse,
    champions,
    contests,
    elo,
    first_round,
    next_round,
    played,
)

Judge = Callable[[str, str, str], str]


def _entries(sizes: Mapping[str, int]) -> pl.DataFrame:
    rows = [(prompt, f"{prompt}/m{n:02}") for prompt, size in sizes.items() for n in range(size)]
    return pl.DataFrame(rows, schema={"prompt_id": pl.String, "response_id": pl.String}, orient="row")


def _verdicts(this: Round, judge: Judge) -> pl.DataFrame:
    rows = this.matches.select("match_id", "prompt_id", "first_id", "second_id").iter_rows()
    said = [(id_, judge(prompt, first, second)) for id_, prompt, first, second in rows]
    return pl.DataFrame(said, schema={"match_id": pl.String, "verdict": pl.String}, orient="row")


def _run(entries: pl.DataFrame, judge: Judge, seed: int = 0) -> tuple[Round, pl.DataFrame]:
    """The last round, which has no matches, and all results."""
    this, results = first_round(entries, seed), [pl.DataFrame(schema=PLAYED)]
    while this.matches.height:
        results.append(played(this, _verdicts(this, judge)))
        this = next_round(this, results[-1])
    return this, pl.concat(results)


def _smaller_wins(prompt: str, first: str, second: str) -> str:
    return "win" if first < second else "loss"


@pytest.mark.slow
@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 17), min_size=1), st.integers(0, 9))
def test_each_prompt_plays_one_match_less_than_it_has_replies(sizes: dict[str, int], seed: int) -> None:
    """M - 1 matches in at most ceil(log2 M) rounds, no match twice, and the best wins whatever the bracket."""
    last, results = _run(_entries(sizes), _smaller_wins, seed)
    counts = dict(results.group_by("prompt_id").len().iter_rows())
    assert counts == {prompt: size - 1 for prompt, size in sizes.items() if size > 1}
    assert last.number - 1 == max(math.ceil(math.log2(size)) for size in sizes.values())
    assert results.get_column("match_id").n_unique() == results.height
    best = champions(last, results)
    assert dict(best.select("prompt_id", "response_id").iter_rows()) == {
        prompt: f"{prompt}/m00" for prompt in sizes
    }
    assert not best.get_column("by_lot").any()


def test_nobody_waits_twice_in_a_row() -> None:
    """With an odd number one waits, and it plays in the next round."""
    this = first_round(_entries({"p": 11}), 0)
    while this.matches.height:
        after = next_round(this, played(this, _verdicts(this, _smaller_wins)))
        again = this.waiting.join(after.waiting, on="response_id", how="semi")
        assert again.is_empty() or after.matches.is_empty()
        this = after


def test_brackets_follow_from_ids_and_seed() -> None:
    """The order of entries and entries given twice change no bracket; another seed does."""
    entries = _entries({"p": 8, "q": 7})
    shuffled = pl.concat([entries, entries]).sample(fraction=1, shuffle=True, seed=3)
    assert (
        first_round(shuffled, 1)
        .matches.sort("match_id")
        .equals(first_round(entries, 1).matches.sort("match_id"))
    )
    assert not first_round(entries, 2).matches.equals(first_round(entries, 1).matches)


@pytest.mark.parametrize("verdict", ["tie", "inconsistent", "failed", None])
def test_a_match_without_a_winner_is_settled_by_lot_and_is_no_preference(verdict: str | None) -> None:
    """One of the two plays on, but there is no winner, no pair and no game to rate."""
    this = first_round(_entries({f"p{n}": 2 for n in range(200)}), 0)
    said = _verdicts(this, lambda *_: verdict or "tie")
    found = played(this, said if verdict else said.clear())
    assert found.get_column("winner_id").null_count() == 200
    assert better_and_worse(found).is_empty()
    ids = found.select("first_id", "second_id", "advanced_id").rows()
    assert all(advanced in (first, second) for first, second, advanced in ids)
    assert 70 < sum(first == advanced for first, _, advanced in ids) < 130
    assert champions(next_round(this, found), found).get_column("by_lot").all()


@pytest.mark.slow
@settings(deadline=None)
@given(st.randoms(), st.sampled_from([0.0, 0.3]))
def test_swapped_sides_and_shuffled_rows_change_no_result(order: random.Random, unsure: float) -> None:
    """A match shown the other way round, with the opposite verdict, has the same winner and the same lot."""
    this = first_round(_entries({f"p{n}": 5 for n in range(6)}), 4)

    def judge(prompt: str, first: str, second: str) -> str:
        drawn = random.Random("".join(sorted([prompt, first, second]))).random()
        return "tie" if drawn < unsure else _smaller_wins(prompt, first, second)

    rows = list(range(this.matches.height))
    order.shuffle(rows)
    turned = this.matches[rows].with_columns(first_id="second_id", second_id="first_id")
    other = this._replace(matches=turned)
    columns = ["match_id", "winner_id", "advanced_id"]
    one, two = (
        played(each, _verdicts(each, judge)).select(columns).sort("match_id") for each in (this, other)
    )
    assert one.equals(two)


def test_verdicts_that_mean_nothing_are_refused() -> None:
    """An unknown verdict, and two verdicts of one match, are errors and no guess."""
    this = first_round(_entries({"p": 2}), 0)
    for said in (["A"], ["win", "loss"]):
        ids = [this.matches.get_column("match_id").item()] * len(said)
        with pytest.raises(BadInput):
            played(this, pl.DataFrame({"match_id": ids, "verdict": said}))


def test_a_winner_is_chosen_over_its_loser() -> None:
    """Each decided match is a pair of its two sides."""
    _, results = _run(_entries({"p": 4}), _smaller_wins)
    pairs = better_and_worse(results)
    assert pairs.height == 3
    assert all(chosen < rejected for chosen, rejected in pairs.select("chosen_id", "rejected_id").iter_rows())


# Ratings


def _games(*counts: tuple[str, str, int]) -> pl.DataFrame:
    rows = [(f"p{n}", winner, loser) for winner, loser, count in counts for n in range(count)]
    return pl.DataFrame(rows, schema=["prompt_id", "winner", "loser"], orient="row")


def test_three_wins_to_one_are_191_points() -> None:
    """400 log10(3) = 190.8 with a wide prior; the mean is 1000."""
    found = elo(_games(("a", "b", 300), ("b", "a", 100)), EloFit(prior=1e5, resamples=1))
    assert found.get_column("contestant").to_list() == ["a", "b"]
    gap = found.get_column("elo")[0] - found.get_column("elo")[1]
    assert gap == pytest.approx(400 * math.log10(3), abs=0.05)
    assert found.get_column("elo").mean() == pytest.approx(1000)
    assert found.select("matches", "wins").rows() == [(400, 300), (400, 100)]


def test_one_who_never_lost_has_a_finite_rating() -> None:
    """The prior keeps it, and a narrower one keeps it nearer."""
    wide, narrow = (
        elo(_games(("a", "b", 5)), EloFit(prior=p, resamples=1)).get_column("elo")[0] for p in (400, 100)
    )
    assert 1000 < narrow < wide < 1800


def _strengths(count: int, step: float) -> dict[str, float]:
    return {f"m{n:02}": 1000 + step * ((count - 1) / 2 - n) for n in range(count)}


def _noisy(strengths: Mapping[str, float], seed: int) -> Judge:
    """A judge that prefers by Bradley-Terry, the same for both orders of a match."""

    def judge(prompt: str, first: str, second: str) -> str:
        low, high = sorted((first, second))
        chance = 1 / (1 + 10 ** ((strengths[high[-3:]] - strengths[low[-3:]]) / 400))
        low_wins = random.Random(f"{seed}/{prompt}/{low}/{high}").random() < chance
        return "win" if low_wins == (first == low) else "loss"

    return judge


def _contestants(entries: pl.DataFrame) -> pl.DataFrame:
    return entries.select("response_id", contestant=pl.col("response_id").str.slice(-3))


@pytest.mark.slow
def test_tournaments_find_known_strengths_again() -> None:
    """Over 300 prompts the ranking is the known one, and the intervals hold most of the true ratings."""
    truth = _strengths(8, 80)
    entries = _entries({f"p{n}": 8 for n in range(300)})
    _, results = _run(entries, _noisy(truth, 0))
    found = elo(contests(results, _contestants(entries)), EloFit(resamples=100))
    assert found.get_column("contestant").to_list() == sorted(truth)
    held = found.with_columns(true=pl.col("contestant").replace_strict(truth, return_dtype=pl.Float64))
    inside = held.select(pl.col("true").is_between("low", "high").sum()).item()
    assert inside >= 6
    assert found.get_column("matches").sum() == 2 * 7 * 300


def test_ratings_do_not_hang_on_the_order_of_games() -> None:
    """Shuffled games give the same ratings and the same intervals."""
    games = _games(("a", "b", 20), ("b", "a", 10), ("b", "c", 12), ("c", "a", 5))
    one, two = (
        elo(each, EloFit(resamples=20)) for each in (games, games.sample(fraction=1, shuffle=True, seed=1))
    )
    assert one.equals(two)


def test_a_reply_of_the_same_model_is_no_opponent() -> None:
    """Two samples of one model play for the champion, not for a rating."""
    this = first_round(_entries({"p": 2}), 0)
    results = played(this, _verdicts(this, _smaller_wins))
    same = _contestants(_entries({"p": 2})).with_columns(contestant=pl.lit("m"))
    games = contests(results, same)
    assert games.is_empty()
    with pytest.raises(BadInput, match="rate"):
        elo(games, EloFit())


def _rank_correlation(found: pl.DataFrame, truth: Mapping[str, float]) -> float:
    true = found.get_column("contestant").replace_strict(truth, return_dtype=pl.Float64)
    return float(np.corrcoef(found.get_column("elo").rank().to_numpy(), true.rank().to_numpy())[0, 1])


def _anchored(prompts: int, truth: Mapping[str, float], judge: Judge) -> pl.DataFrame:
    """Every model against one anchor of middling strength on every prompt: M - 1 matches, as in a tournament."""
    anchor = sorted(truth)[len(truth) // 2]
    games: list[tuple[str, str, str]] = []
    for n in range(prompts):
        for model in truth:
            if model != anchor:
                won = judge(f"p{n}", f"/{model}", f"/{anchor}") == "win"
                games.append((f"p{n}", *((model, anchor) if won else (anchor, model))))
    return pl.DataFrame(games, schema=["prompt_id", "winner", "loser"], orient="row")


@pytest.mark.slow
def test_tournaments_rank_better_than_an_anchor() -> None:
    """At as many matches, the mean rank correlation with known strengths is higher (the paper's direction)."""
    truth = _strengths(16, 50)
    fit = EloFit(resamples=1)
    entries = _entries({f"p{n}": 16 for n in range(60)})
    tournament, anchored = [], []
    for trial in range(20):
        judge = _noisy(truth, trial)
        _, results = _run(entries, judge, trial)
        tournament.append(_rank_correlation(elo(contests(results, _contestants(entries)), fit), truth))
        anchored.append(_rank_correlation(elo(_anchored(60, truth, judge), fit), truth))
    assert sum(tournament) / 20 > sum(anchored) / 20


def test_settings_of_a_fit_that_cannot_be_meant_are_refused() -> None:
    """No prior of 0, no bootstrap of nothing, no interval of everything."""
    for wrong in ({"prior": 0.0}, {"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ConfigError):
            EloFit(**wrong)  # type: ignore[arg-type]
