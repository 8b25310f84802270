"""Quality of rubrics: figures worked out by hand, and filters that drop only what was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import ConfigError
from tilth.schemas.contracts import measure
from tilth.schemas.ids import content_id
from tilth.transforms.rubrics.criteria import GRADES, PROMPTS, SIDES, criteria_of, criteria_rows, rubric_rows
from tilth.transforms.rubrics.quality import FEEDBACK, Filtered, Filters, filtered, measured, statistics

PROMPT: Final = content_id("prompt")
NO_FEEDBACK: Final = pl.DataFrame(schema=FEEDBACK)
Met = Mapping[str, Sequence[bool | None]]


def rubric(weights: Mapping[str, float], prompt: str = PROMPT, **columns: Any) -> pl.DataFrame:
    """A rubric of one prompt: texts and weights; `columns` of criteria that are not the usual."""
    rows = [
        {
            "prompt_id": prompt,
            "description": text,
            "weight": weight,
            "kind": "principle",
            "check": "judge",
            "source": "model",
            "model": "m",
            **columns,
        }
        for text, weight in weights.items()
    ]
    prompts = {
        "prompt_id": [prompt],
        "prompt": [[{"role": "user", "content": "q"}]],
        "pair_ids": [[content_id("pair")]],
        "conversation_id": [content_id("conversation")],
        "split": ["train"],
    }
    return rubric_rows(criteria_rows(pl.DataFrame(rows)), pl.DataFrame(prompts, schema=PROMPTS))


def grades(rubrics: pl.DataFrame, met: Met, judge: str = "j") -> pl.DataFrame:
    """Grades by reply, criteria in the order of their texts."""
    ordered = criteria_of(rubrics).sort("description")
    return pl.concat(
        ordered.select(
            "prompt_id", criterion_id="id", response_id=pl.lit(reply), judge=pl.lit(judge)
        ).with_columns(met=pl.Series(said, dtype=pl.Boolean))
        for reply, said in met.items()
    ).select(GRADES.names())


def pairs(*sides: tuple[str, str], prompt: str = PROMPT) -> pl.DataFrame:
    rows = [(f"{chosen}>{rejected}", prompt, chosen, rejected) for chosen, rejected in sides]
    return pl.DataFrame(rows, schema=SIDES, orient="row")


def numbers(rubrics: pl.DataFrame, *names: str) -> list[float | None]:
    return [rubrics[name].item() for name in names]


THREE: Final = {"a": 2.0, "b": 1.0, "c": -1.0}


def test_separation_and_discrimination_by_hand() -> None:
    """Of three pairs one is ordered right, one is a tie, one is wrong: a half; criteria say how they did."""
    rows = rubric(THREE)
    met = {"good": [True, False, False], "same": [True, False, False], "bad": [False, True, True]}
    found = measured(
        rows, grades(rows, met), pairs(("good", "bad"), ("good", "same"), ("bad", "same")), NO_FEEDBACK
    )
    assert numbers(found, "separation") == [0.5]
    told = {row["description"]: row for row in criteria_of(found).to_dicts()}
    assert [told[name]["pass_rate"] for name in "abc"] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert [told[name]["discrimination"] for name in "abc"] == [0.0, 0.0, 0.0]
    one = measured(rows, grades(rows, met), pairs(("good", "bad")), NO_FEEDBACK)
    assert numbers(one, "separation") == [1.0]
    assert [row["discrimination"] for row in criteria_of(one).sort("description").to_dicts()] == [
        1.0,
        -1.0,
        -1.0,
    ]
    assert one["id"].to_list() == rows["id"].to_list()


def test_a_failed_grade_speaks_for_neither_reply() -> None:
    """Replies compare by what was graded for both: a judge that fails on the chosen reply does not make it lose."""
    rows = rubric(THREE)
    met = {"good": [None, True, False], "bad": [True, False, False]}
    found = measured(rows, grades(rows, met), pairs(("good", "bad")), NO_FEEDBACK)
    assert numbers(found, "separation") == [1.0]


def test_what_cannot_be_known_is_null() -> None:
    """Without grades, feedback or a second judge; the texts and weights alone have figures."""
    rows = rubric(THREE)
    none = measured(rows, pl.DataFrame(schema=GRADES), pairs(("good", "bad")), NO_FEEDBACK)
    assert numbers(none, "separation", "agreement", "coverage") == [None, None, None]
    share = [2 / 4, 1 / 4, 1 / 4]
    entropy = -sum(one * math.log(one) for one in share) / math.log(3)
    assert numbers(none, "balance") == [pytest.approx(entropy)]
    alone = measured(rubric({"a": 5.0}), pl.DataFrame(schema=GRADES), pairs(), NO_FEEDBACK)
    assert numbers(alone, "balance", "redundancy") == [1.0, 0.0]
    assert all(value == 0 for name, value in measure("rubrics", none).counts.items() if "outside" in name)


def test_redundancy_by_hand() -> None:
    """Without stop words: river names/names lake share 1 of 3 words and no pair: 1/6; the third is like neither."""
    rows = rubric({"Names the river": 1.0, "names a lake": 1.0, "Polite": 1.0})
    found = measured(rows, pl.DataFrame(schema=GRADES), pairs(), NO_FEEDBACK)
    assert numbers(found, "redundancy") == [pytest.approx((1 / 6 + 1 / 6 + 0) / 3)]


def test_agreement_of_judges_without_programs() -> None:
    """Judges who say the same of all have 1; a program is no rater; one answer throughout says nothing."""
    rows = rubric(THREE)
    met = {"good": [True, False, True], "bad": [False, True, True]}
    one, other = (grades(rows, met, judge) for judge in ("x", "y"))
    turned = grades(rows, {"good": [False, True, False], "bad": [True, False, False]}, "y")
    program = grades(rows, met, "program")

    def alpha(*said: pl.DataFrame) -> float | None:
        return measured(rows, pl.concat(said), pairs(), NO_FEEDBACK)["agreement"].item()

    assert alpha(one, other) == 1.0
    assert (alpha(one, turned) or 0) < 0
    assert alpha(one, program) is None
    assert alpha(*(grades(rows, {"good": [True] * 3}, judge) for judge in "xy")) is None


def test_coverage_is_of_the_feedback_about_the_prompt() -> None:
    """Two of its three complaints stand behind a criterion; what came from other prompts neither helps nor harms."""
    rows = rubric({"a": 1.0}, feedback_ids=["f1", "f2", "elsewhere"])
    mined = pl.DataFrame(
        [(PROMPT, "f1"), (PROMPT, "f2"), (PROMPT, "f3"), ("other", "f9")], schema=FEEDBACK, orient="row"
    )
    found = measured(rows, pl.DataFrame(schema=GRADES), pairs(), mined)
    assert numbers(found, "coverage") == [pytest.approx(2 / 3)]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([True, False, None]), min_size=3, max_size=3), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_order_and_copies_of_rows_change_no_figure(said: list[list[bool | None]], draw: Random) -> None:
    """Grades and pairs permuted and there twice measure the same."""
    rows = rubric(THREE)
    given_grades = grades(rows, {f"r{at}": one for at, one in enumerate(said)})
    sides = pairs(*((f"r{at}", f"r{at + 1}") for at in range(len(said) - 1)))
    expected = measured(rows, given_grades, sides, NO_FEEDBACK)
    mixed = [
        pl.concat([frame, frame.head(1)])[draw.sample(range(frame.height + 1), frame.height + 1)]
        for frame in (given_grades, sides)
    ]
    assert measured(rows, mixed[0], mixed[1], NO_FEEDBACK).equals(expected)


# Filters


def sieve(rows: pl.DataFrame, met: Met, config: Filters | None = None, **sides: str) -> Filtered:
    chosen, rejected = sides.get("chosen", "good"), sides.get("rejected", "bad")
    return filtered(rows, grades(rows, met), pairs((chosen, rejected)), NO_FEEDBACK, config)


def test_criteria_that_tell_nothing_go_and_say_why() -> None:
    """Met by all, met by none, met rather by the rejected reply; a mistake that the rejected reply makes tells."""
    rows = rubric({"all": 1.0, "mistake": -1.0, "none": 1.0, "tells": 1.0, "wrong": 1.0})
    met = {"good": [True, False, False, True, False], "bad": [True, True, False, False, True]}
    found = sieve(rows, met)
    assert sorted(criteria_of(found.kept)["description"]) == ["mistake", "tells"]
    why = {json.loads(row["payload"])["description"]: row["reason"] for row in found.dropped.to_dicts()}
    assert why == {"all": "saturated", "none": "saturated", "wrong": "not_discriminating"}
    assert all(key.startswith(f"rubrics#prompt={PROMPT}&criterion=") for key in found.dropped["key"])
    assert numbers(found.kept, "separation") == [1.0]
    expected = rubric({"mistake": -1.0, "tells": 1.0})
    assert found.kept["id"].to_list() == expected["id"].to_list()


def test_too_few_replies_saturate_nothing() -> None:
    """One graded reply, or none, is no everybody."""
    rows = rubric({"a": 1.0})
    assert sieve(rows, {"good": [True]}).kept.height == 1
    assert sieve(rows, {"good": [True], "bad": [None]}).kept.height == 1
    assert sieve(rows, {"good": [True], "bad": [True]}).kept.height == 0


def test_hard_rules_of_the_prompt_may_stay() -> None:
    """With `keep_hard_rules`, what the request itself demands stays though all replies do it."""
    met = {"good": [True], "bad": [True]}
    stated, guessed = (rubric({"a": 1.0}, source=source) for source in ("prompt", "model"))
    spare = Filters(keep_hard_rules=True)
    assert [sieve(rows, met, spare).kept.height for rows in (stated, guessed)] == [1, 0]
    assert sieve(stated, met).kept.height == 0


def test_a_rubric_without_a_wanted_thing_is_none() -> None:
    """Where only mistakes are left, the whole rubric is set aside, with what was left of it."""
    rows = rubric({"all": 1.0, "mistake": -1.0})
    found = sieve(rows, {"good": [True, False], "bad": [True, True]})
    assert found.kept.is_empty()
    whole = found.dropped.filter(pl.col("reason") == "no_criterion").to_dicts()
    assert [row["key"] for row in whole] == [f"rubrics#prompt={PROMPT}"]
    assert [one["description"] for one in json.loads(whole[0]["payload"])["criteria"]] == ["mistake"]


def test_separation_decides_about_the_whole() -> None:
    """A rubric that orders its pairs wrongly goes; ties are a half and stay; an unknown separation drops nothing."""
    rows = rubric({"heavy": 3.0, "light": 1.0})
    lenient = Filters(min_discrimination=-1.0)
    met = {"good": [False, True], "bad": [True, False]}
    found = sieve(rows, met, lenient)
    assert (found.kept.height, found.dropped["reason"].to_list()) == (0, ["low_separation"])
    assert sieve(rows, met, Filters(min_discrimination=-1.0, min_separation=0.0)).kept.height == 1
    assert sieve(rows, met, lenient, chosen="good", rejected="lost").kept.height == 1


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=2),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_higher_threshold_never_keeps_more(said: list[tuple[bool, bool]], one: float, other: float) -> None:
    """Raising tau only removes rubrics (OpenRubrics' property)."""
    rows = rubric({"a": 2.0, "b": 1.0})
    met: Met = {"good": said[0], "bad": said[1]}
    low, high = (
        sieve(rows, met, Filters(min_discrimination=-1.0, min_separation=tau)).kept["id"].to_list()
        for tau in sorted((one, other))
    )
    assert set(high) <= set(low)


@pytest.mark.parametrize(
    "config", [{"min_replies": 1}, {"min_separation": 1.5}, {"min_discrimination": -2.0}]
)
def test_thresholds_are_checked(config: dict[str, Any]) -> None:
    """One reply is never everybody, and shares are shares."""
    with pytest.raises(ConfigError):
        Filters(**config)


# Statistics


def test_statistics_by_hand() -> None:
    """Two rubrics: one criterion is repeated in both, so two of three criteria are a template."""
    one = rubric({"Names the river": 1.0, "polite": 1.0}, content_id("one"))
    other = rubric({"names river": 1.0}, content_id("other"))
    found = statistics(pl.concat([one, other]))
    assert (found["rubrics"], found["criteria"], found["drawn"]) == (2, 3, 2)
    assert found["templatedness"] == {
        "mean": 0.6667,
        "above_0.5": 0.6667,
        "above_0.7": 0.6667,
        "above_0.85": 0.6667,
    }
    assert found["words"] == {"mean": 2.0, "std": 0.8165}
    assert found["type_token_ratio"] == 0.6667  # names, the, river, polite of six
    assert found["within"] == 0.0
    assert statistics(one)["templatedness"]["mean"] is None
