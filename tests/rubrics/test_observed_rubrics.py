"""Rubrics without a model: hard rules of the request, complaints of the user, graded by programs alone."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.schemas import TABLES, polars_schema
from tilth.schemas.contracts import measure
from tilth.schemas.ids import content_id
from tilth.transforms.parts import read_part, write_part
from tilth.transforms.rubrics.observed import ObservedRubrics, observed_rubrics
from tilth.transforms.stage import Output, Task

BULLETS = "- first\n- second\n- third"
ASKED = "Name reasons to plant trees in 3 bullet points."
SHORT, LONG = "Trees give shade.", "Trees give shade and much else besides."
Row = dict[str, Any]


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def pair(prompt: str, chosen: str, rejected: str, split: str = "train") -> Row:
    id = content_id("pair", prompt, chosen, rejected)
    return {
        "id": id, "prompt_id": content_id("p", prompt), "prompt": said("user", prompt),
        "chosen": said("assistant", chosen), "rejected": said("assistant", rejected), "split": split,
        "conversation_id": content_id("c", id), "feedback_ids": [], "method": "rules",
    }  # fmt: skip


def complaint(about: Row, text: str, name: str = "") -> Row:
    said_in = content_id("c", about["id"], name)
    return {
        "id": content_id("r", about["id"], text, name), "pair_id": about["id"], "kind": "user_complaint", "text": text,
        "feedback_ids": [content_id("f", about["id"], text, name)], "conversation_id": said_in,
        "split": about["split"], "method": "rules",
    }  # fmt: skip


def frames(pairs: list[Row], rationales: list[Row]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return (
        pl.DataFrame(pairs, schema=polars_schema("pairs")),
        pl.DataFrame(rationales, schema=polars_schema("rationales")),
    )


def rubrics(pairs: list[Row], *rationales: Row) -> list[Row]:
    return observed_rubrics(*frames(pairs, list(rationales))).rubrics.to_dicts()


def test_a_constraint_of_the_request_is_a_hard_rule_that_programs_grade() -> None:
    """The chosen reply meets it and the rejected does not: that is what the numbers say."""
    (row,) = rubrics([pair(ASKED, BULLETS, SHORT)])
    (rule,) = row["criteria"]
    assert (rule["kind"], rule["check"], rule["source"]) == ("hard_rule", "program", "prompt")
    assert (rule["pass_rate"], rule["discrimination"], row["separation"]) == (0.5, 1.0, 1.0)
    assert (row["method"], row["model"], row["prompt_version"]) == ("rules", None, None)
    assert row["pair_ids"] == [pair(ASKED, BULLETS, SHORT)["id"]]


def test_a_complaint_is_a_principle_in_the_user_s_words() -> None:
    """Verbatim, with its feedback; no program grades it, so that its numbers are unknown."""
    one = pair("Which tree?", "Oak.", "Elm.")
    heard = complaint(one, "Elms die of disease here.")
    (row,) = rubrics([one], heard)
    (principle,) = row["criteria"]
    assert principle["description"] == "Gives no reason to say: “Elms die of disease here.”"
    assert (principle["kind"], principle["check"], principle["source"]) == ("principle", "judge", "complaint")
    assert principle["feedback_ids"] == row["feedback_ids"] == heard["feedback_ids"]
    assert (principle["pass_rate"], principle["discrimination"], row["separation"]) == (None, None, None)
    assert row["coverage"] == 1.0


def test_equal_complaints_are_one_and_weigh_more() -> None:
    """Said in two conversations, whatever the case and marks, it weighs more than once, with the feedback of both."""
    one, other = pair("Which tree?", "Oak.", "Elm."), pair("Which tree?", "Oak.", "Ash.")
    heard = [
        complaint(one, "Too short!"),
        complaint(other, "too short"),
        complaint(one, "No Latin name given."),
    ]
    (row,) = rubrics([one, other], *heard)
    twice, once = row["criteria"]
    assert (len(twice["feedback_ids"]), len(once["feedback_ids"])) == (2, 1)
    assert (twice["weight"], once["weight"]) == (pytest.approx(0.84), pytest.approx(0.6))
    assert row["coverage"] == 1.0


def test_prompts_without_a_criterion_have_no_rubric() -> None:
    """They are counted; what is too long, or says nothing, makes no criterion."""
    silent, odd = pair("Which tree?", "Oak.", "Elm."), pair("Which bird?", "A tit.", "A wren.")
    heard = [complaint(odd, "???"), complaint(odd, "word " * 200)]
    made = observed_rubrics(*frames([silent, odd, pair(ASKED, BULLETS, SHORT)], heard))
    assert (made.rubrics.height, made.without) == (1, 2)
    nothing = observed_rubrics(*frames([], []))
    assert (nothing.rubrics.height, nothing.without) == (0, 0)


def test_other_rationales_and_other_pairs_take_no_part() -> None:
    """Measured factors are no complaints, and a complaint about a pair that is not here belongs elsewhere."""
    one, other = pair("Which tree?", "Oak.", "Elm."), pair("Which bird?", "A tit.", "A wren.")
    measured = complaint(one, "1 word against 1") | {"kind": "factors"}
    assert rubrics([one], measured, complaint(other, "That is a tit.")) == []


def test_rubrics_keep_their_contract() -> None:
    """As rows of the table they have no defect."""
    one = pair(ASKED, BULLETS, SHORT)
    rows = [one, pair(ASKED, BULLETS, LONG), pair("Which tree?", "Oak.", "Elm.")]
    made = observed_rubrics(
        *frames(rows, [complaint(one, "That is one point."), complaint(rows[2], "No, oaks!")])
    )
    counted = measure("rubrics", made.rubrics)
    flags = {name for name, rows in counted.counts.items() if rows}
    assert (counted.rows, flags) == (2, {"with_program", "with_feedback", "separates"})


PROMPTS = (ASKED, "Which tree?", "Answer as JSON: which tree?")
REPLIES = (BULLETS, SHORT, LONG, '{"tree": "oak"}')
WORDS = ("Too short!", "too short", "That is wrong.", "You did not give three points.")
WORLD = st.lists(
    st.builds(pair, st.sampled_from(PROMPTS), st.sampled_from(REPLIES), st.sampled_from(REPLIES)),
    max_size=6,
    unique_by=lambda row: row["id"],
)


@pytest.mark.slow
@given(WORLD, st.lists(st.tuples(st.integers(0, 5), st.sampled_from(WORDS)), max_size=8), st.randoms())
@settings(deadline=None, max_examples=15)
def test_rows_decide_nothing(pairs: list[Row], told: list[tuple[int, str]], random: Random) -> None:
    """Shuffled pairs and rationales give the same rubrics, and every prompt has one or is counted."""
    heard = [complaint(pairs[at], text, str(n)) for n, (at, text) in enumerate(told) if at < len(pairs)]
    made = observed_rubrics(*frames(pairs, heard))
    again = observed_rubrics(*frames(random.sample(pairs, len(pairs)), random.sample(heard, len(heard))))
    assert made.rubrics.equals(again.rubrics)
    assert made.dropped.equals(again.dropped)
    assert made.rubrics.height + made.without == len({row["prompt_id"] for row in pairs})
    feedback = {one for row in made.rubrics["feedback_ids"] for one in row}
    assert feedback == {one for row in heard for one in row["feedback_ids"]}


def test_the_step_writes_the_table(tmp_path: Path) -> None:
    """Parts in, a part of `rubrics` out, and counts of prompts with and without."""
    one, silent = pair(ASKED, BULLETS, SHORT), pair("Which tree?", "Oak.", "Elm.")
    given = dict(zip(("pairs", "rationales"), frames([one, silent], [complaint(one, "One!")]), strict=True))
    inputs = {name: (write_part(rows, f"{tmp_path}/{name}.parquet", name),) for name, rows in given.items()}
    out = Output("0", {}, str(tmp_path))
    ObservedRubrics().run(Task("0", inputs), out)
    (shard,) = out.outputs["rubrics"]
    assert read_part(shard).columns == TABLES["rubrics"].names
    assert (out.counts["rubrics.prompts"], out.counts["rubrics.without_criteria"]) == (2, 1)
