"""Pass-rate filters on a table made by hand, and what must hold for every table."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError
from tilth.transforms.rubrics.criteria import CRITERIA, GRADES, criteria_rows
from tilth.transforms.rubrics.passrates import (
    PassRates,
    pass_filtered,
    pass_rates,
    sample_means,
)

Made = Mapping[str, Mapping[str, str]]

# One letter a reply: T met, F not met, ? could not be told. Names with a minus are mistakes.
TABLE: Final[Made] = {
    # a 3/4, b 1/4, -m 1/4; all grades: (3 + 1 + 1) / 12 = 5/12
    "mixed": {"a": "TTTF", "b": "TFFF", "-m": "FFTF"},
    # all grades: (4 + 3) / 8 = .875
    "easy": {"a": "TTTT", "b": "TTTF"},
    # all grades: 0
    "hard": {"a": "FFFF", "b": "FFFF"},
    # all grades: 4 / 8 = .5, and what is wanted is met by all
    "bare": {"a": "TTTT", "-m": "FFFF"},
    # one reply alone
    "lone": {"a": "T"},
    # a 2 of the 2 that could be told, b 0 of 4; all grades: 2 / 6
    "gaps": {"a": "T??T", "b": "FFFF"},
    "ungraded": {"a": ""},
}


def criteria_table(made: Made) -> pl.DataFrame:
    """`CRITERIA` of a table, weight 1 or -1."""
    rows = [
        {"prompt_id": prompt, "description": name, "weight": -1.0 if name.startswith("-") else 1.0}
        for prompt, criteria in made.items()
        for name in criteria
    ]
    return criteria_rows(pl.DataFrame(rows))


def grades_table(made: Made, judge: str = "judge") -> pl.DataFrame:
    """`GRADES` of a table."""
    ids = {(prompt, name): id_ for prompt, id_, name in _named(criteria_table(made))}
    rows = [
        (prompt, ids[prompt, name], f"{prompt} reply {n}", judge, {"T": True, "F": False, "?": None}[letter])
        for prompt, criteria in made.items()
        for name, letters in criteria.items()
        for n, letter in enumerate(letters)
    ]
    return pl.DataFrame(rows, schema=GRADES, orient="row")


def _named(criteria: pl.DataFrame) -> list[tuple[str, str, str]]:
    return criteria.select("prompt_id", "id", "description").rows()


def kept_of(config: PassRates, made: Made = TABLE) -> dict[str, list[str]]:
    """What the filters keep, by prompt."""
    kept = pass_filtered(criteria_table(made), grades_table(made), config).kept
    found: dict[str, list[str]] = {}
    for prompt, _, name in _named(kept):
        found.setdefault(prompt, []).append(name)
    return found


def reasons_of(config: PassRates, made: Made = TABLE) -> dict[str, str]:
    """Why what was dropped was, by prompt and criterion; a prompt alone for the prompt itself."""
    criteria = criteria_table(made)
    names = {f"rubrics#prompt={p}&criterion={id_}": f"{p} {name}" for p, id_, name in _named(criteria)}
    dropped = pass_filtered(criteria, grades_table(made), config).dropped
    rows = dropped.select("key", "reason").rows()
    assert len(rows) == len(set(rows))
    return {names.get(key) or key.removeprefix("rubrics#prompt="): reason for key, reason in rows}


def test_rates_and_means_of_the_table() -> None:
    """To the digit, as they are worked out beside the table; what could not be told is no fail."""
    criteria, grades = criteria_table(TABLE), grades_table(TABLE)
    names = {id_: f"{prompt} {name}" for prompt, id_, name in _named(criteria)}
    rates = pass_rates(grades)
    found = {names[id_]: (rate, n) for _, id_, rate, n in rates.iter_rows()}
    assert found == {
        "mixed a": (0.75, 4),
        "mixed b": (0.25, 4),
        "mixed -m": (0.25, 4),
        "easy a": (1.0, 4),
        "easy b": (0.75, 4),
        "hard a": (0.0, 4),
        "hard b": (0.0, 4),
        "bare a": (1.0, 4),
        "bare -m": (0.0, 4),
        "lone a": (1.0, 1),
        "gaps a": (1.0, 2),
        "gaps b": (0.0, 4),
    }
    means = {prompt: (mean, n) for prompt, mean, n in sample_means(grades).iter_rows()}
    assert means == {
        "mixed": (pytest.approx(5 / 12), 4),
        "easy": (0.875, 4),
        "hard": (0.0, 4),
        "bare": (0.5, 4),
        "lone": (1.0, 1),
        "gaps": (pytest.approx(1 / 3), 4),
    }


def test_the_default_filters_on_the_table() -> None:
    """[0, .75] for prompts and below .75 for criteria, as the paper's moderate setting."""
    assert kept_of(PassRates()) == {
        "mixed": ["b", "-m"],  # a is met by 3/4, which is not below .75
        "hard": ["a", "b"],  # all fail, and low is 0
        "lone": ["a"],  # too few replies to tell
        "gaps": ["b"],
        "ungraded": ["a"],
    }
    assert reasons_of(PassRates()) == {
        "mixed a": "saturated",
        "easy a": "saturated",
        "easy b": "saturated",
        "easy": "no_criterion",
        "bare a": "saturated",
        "bare -m": "no_criterion",
        "bare": "no_criterion",
        "gaps a": "saturated",
    }


def test_details_say_which_filter_it_was() -> None:
    """The prompt's mean, or the criterion's rate, with the threshold."""
    dropped = pass_filtered(criteria_table(TABLE), grades_table(TABLE), PassRates()).dropped
    details = {key.split("&")[0][15:]: d for key, d in dropped.select("key", "detail").rows() if "&" in key}
    assert details["easy"] == "the mean 0.875 of its prompt is above 0.75"
    assert details["mixed"] == "0.75 of the replies meet it: 0.75 or more"


def test_the_lower_bound_drops_what_every_reply_fails() -> None:
    """Kept at 0 (the card's pitfall), dropped above, and not called saturated."""
    assert "hard" in kept_of(PassRates(low=0.0))
    above = PassRates(low=0.01)
    assert "hard" not in kept_of(above)
    assert reasons_of(above)["hard a"] == "not_discriminating"


def test_both_bounds_are_part_of_what_is_kept() -> None:
    """A mean of exactly `high` or `low` is kept, a rate of exactly `criterion` is dropped."""
    made = {"p": {"a": "TTTF", "b": "TFFF"}}  # mean .5
    assert kept_of(PassRates(high=0.5), made) == {"p": ["b"]}
    assert kept_of(PassRates(low=0.5), made) == {"p": ["b"]}
    assert kept_of(PassRates(high=0.49), made) == {}
    assert kept_of(PassRates(criterion=0.76), made) == {"p": ["a", "b"]}
    assert kept_of(PassRates(criterion=1.01), {"p": {"a": "TT", "-m": "FF"}}) == {"p": ["a", "-m"]}


def test_pass_rates_stand_in_the_kept_criteria() -> None:
    """Null where nothing was graded, and nothing else of the criteria is changed."""
    criteria = criteria_table(TABLE)
    kept = pass_filtered(criteria, grades_table(TABLE), PassRates()).kept
    assert kept.schema == CRITERIA
    by_prompt = dict(kept.filter(pl.col("description") != "-m").select("prompt_id", "pass_rate").rows())
    assert by_prompt["mixed"] == 0.25
    assert by_prompt["ungraded"] is None
    same = criteria.join(kept, on="id", how="semi")
    assert kept.drop("pass_rate").equals(same.drop("pass_rate"))


def test_several_judges_share_a_grade() -> None:
    """Of two judges who disagree each counts a half; `min_score` says what is a pass."""
    grades = pl.concat([grades_table({"p": {"a": "TT"}}, "x"), grades_table({"p": {"a": "TF"}}, "y")])
    assert sample_means(grades).get_column("mean").item() == 0.75
    assert pass_rates(grades, 0.5).get_column("pass_rate").item() == 1.0
    assert pass_rates(grades, 0.51).get_column("pass_rate").item() == 0.5


def test_grades_by_other_criteria_take_no_part() -> None:
    """A grade by a criterion that is not there moves no mean."""
    made = {"p": {"a": "TF", "b": "TT"}}
    criteria = criteria_table(made).filter(pl.col("description") == "a")
    assert pass_filtered(criteria, grades_table(made), PassRates(high=0.5)).kept.height == 1


CELLS = st.text(alphabet="TF?", min_size=0, max_size=5)
WORLDS = st.dictionaries(
    st.sampled_from("pqrs"),
    st.dictionaries(st.sampled_from(["a", "b", "c", "-m"]), CELLS, min_size=1),
    min_size=1,
)
SHARES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


def _ids(made: Made, config: PassRates) -> set[str]:
    return set(pass_filtered(criteria_table(made), grades_table(made), config).kept.get_column("id"))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(WORLDS, SHARES, SHARES, SHARES)
def test_looser_thresholds_keep_more(made: Made, one: float, other: float, low: float) -> None:
    """What is kept grows with `criterion` and `high`, shrinks with `low`, and is never more than there was."""
    tight, loose = sorted((one, other))
    assert _ids(made, PassRates(0, 1, tight + 0.01)) <= _ids(made, PassRates(0, 1, loose + 0.01))
    assert _ids(made, PassRates(0, tight)) <= _ids(made, PassRates(0, loose))
    assert _ids(made, PassRates(low, 1)) <= _ids(made, PassRates(0, 1))
    assert _ids(made, PassRates(0, 1, 2)) <= set(criteria_table(made).get_column("id"))


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(WORLDS, st.randoms())
def test_no_order_of_rows_and_no_repeat_changes_what_is_kept(made: Made, order: random.Random) -> None:
    """Every criterion is kept or set aside exactly once; permuted and repeated grades change nothing."""
    criteria, grades = criteria_table(made), grades_table(made)
    rows, places = list(range(grades.height)) * 2, list(range(criteria.height))
    order.shuffle(rows)
    order.shuffle(places)
    kept, dropped = pass_filtered(criteria, grades, PassRates())
    again, lost = pass_filtered(criteria[places], grades[rows], PassRates())
    assert again.sort("id").equals(kept.sort("id"))
    assert lost.equals(dropped)
    single = dropped.filter(pl.col("key").str.contains("criterion=")).get_column("key").to_list()
    assert len(single) == len(set(single))
    assert len(single) + kept.height == criteria.height
    assert kept.group_by("prompt_id").agg(pl.col("weight").max() > 0).get_column("weight").all()


def test_thresholds_that_cannot_be_meant_are_refused() -> None:
    """A low above the high, a share above 1, no rollouts."""
    for bad in ({"low": 0.8}, {"high": 1.5}, {"criterion": 0.0}, {"min_score": 0.0}, {"min_rollouts": 0}):
        with pytest.raises(ConfigError):
            PassRates(**bad)  # type: ignore[arg-type]
