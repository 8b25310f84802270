"""Rubrics and verdicts as others publish them: replayed to the digit, or refused by file and line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from tilth.schemas import BadInput, ConfigError, NotFound, conform
from tilth.transforms.rubrics.criteria import (
    CRITERIA,
    GRADES,
    PROMPTS,
    criteria_of,
    criteria_rows,
    rubric_rows,
)
from tilth.transforms.rubrics.files import read_rubrics, read_verdicts
from tilth.transforms.rubrics.scoring import Rule, scores

SAMPLES: Final = Path(__file__).resolve().parents[2] / "samples" / "rubrics"
SECRET: Final = "a word of a user"
ITEMS: Final = [
    {"criterion": "stops", "points": 7, "tags": ["axis:accuracy"]},
    {"criterion": "offers", "points": 5, "tags": []},
    {"criterion": "explains", "points": 10, "tags": []},
    {"criterion": "opens it", "points": -6, "tags": []},
]
MET: Final = (True, False, True, True)


def lines(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return str(path)


def healthbench(**columns: Any) -> dict[str, Any]:
    return {"prompt_id": "h1", "prompt": [], "rubrics": ITEMS, "example_tags": ["theme:x"], **columns}


def graded(items: Sequence[dict[str, Any]], met: Sequence[bool | str | None]) -> list[dict[str, Any]]:
    return [{**one, "criteria_met": said, "explanation": "…"} for one, said in zip(items, met, strict=True)]


def verdicts(called: Sequence[object], met: Sequence[object] = MET, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"prompt_id": "h1", "response_id": "r", "criterion": one, "met": said, **columns}
        for one, said in zip(called, met, strict=True)
    ]


def test_healthbench_with_verdicts_beside_it(tmp_path: Path) -> None:
    """What HealthBench's grader writes is rubric and verdict at once: 11 of 22."""
    row = {"prompt_id": "h1", "completion_id": "c1", "rubric_items": graded(ITEMS, MET)}
    for rows in ([row], [healthbench(**row)], [healthbench(), row], [row, row]):
        read = read_rubrics(lines(tmp_path, *rows))
        assert scores(read.criteria, read.grades)["score"].to_list() == [0.5]
    assert (read.criteria.schema, read.grades.schema) == (CRITERIA, GRADES)
    assert read.grades["response_id"].unique().to_list() == ["c1"]


def test_verdicts_go_by_id_place_or_text(tmp_path: Path) -> None:
    """All three name the same criterion; case and white space of a text do not matter."""
    read = read_rubrics(lines(tmp_path, healthbench()))
    assert read.example_tags.rows() == [("h1", "theme:x")]
    names: list[Sequence[object]] = [
        read.criteria["id"].to_list(),
        [0, 1, 2, 3],
        ["0", "1", "2", "3"],
        [" Stops", "OFFERS", "explains", "opens  it"],
    ]
    for called in names:
        uri = lines(tmp_path, *verdicts(called), name="verdicts.jsonl")
        found = read_verdicts(uri, read.criteria)
        assert scores(read.criteria, found)["score"].to_list() == [0.5]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_forms_of_verdict_tables(tmp_path: Path, form: str) -> None:
    """CSV, Parquet and JSONL, with words for yes and no; a blank is a verdict that nobody could give."""
    read = read_rubrics(lines(tmp_path, healthbench()))
    rows = verdicts([0, 1, 2, 3], ["yes", "No", "1", None], judge="x")
    path = tmp_path / f"verdicts.{form}"
    frame = pl.DataFrame(rows)
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[form](path)
    found = read_verdicts(str(path), read.criteria)
    assert found["met"].to_list() == [True, False, True, None]
    assert found["judge"].unique().to_list() == ["x"]


def test_graders_rows_go_by_text_where_they_are_shorter(tmp_path: Path) -> None:
    """A grader's row with some of the criteria, in any order, is joined by their texts."""
    read = read_rubrics(lines(tmp_path, healthbench()))
    row = {"prompt_id": "h1", "rubric_items": graded(ITEMS[::-1][:3], [True, True, False])}
    found = read_verdicts(lines(tmp_path, row, name="v.jsonl"), read.criteria)
    assert dict(found.select("criterion_id", "met").iter_rows()) == dict(
        zip(read.criteria["id"][1:], [False, True, True], strict=True)
    )
    assert found["response_id"].unique().to_list() == ["h1"]  # one reply a prompt


@pytest.mark.parametrize("as_text", [False, True])
def test_rubrics_as_rewards(tmp_path: Path, as_text: bool) -> None:
    """Title, description and weight, as a list or as JSON; rows go by their number; sum(w c) / sum(w)."""
    items = [
        {"title": "Essential", "description": "names it", "weight": 1.0},
        {"title": "Optional", "description": "is short", "weight": 0.3},
        {"title": "Pitfall", "description": "avoids guessing", "weight": 0.8},
    ]
    read = read_rubrics(lines(tmp_path, {"question": "q", "rubric": json.dumps(items) if as_text else items}))
    assert read.criteria["title"].to_list() == ["Essential", "Optional", "Pitfall"]
    said = [{"prompt_id": 0, "criterion": at, "met": met} for at, met in enumerate([True, False, True])]
    found = scores(
        read.criteria, read_verdicts(lines(tmp_path, *said, name="v.jsonl"), read.criteria), "weighted"
    )
    assert found["score"].to_list() == [pytest.approx(1.8 / 2.1)]


def test_rubrichub_in_parquet(tmp_path: Path) -> None:
    """`question`, `id` and `rubrics` of criterion and points."""
    path = tmp_path / "final.parquet"
    rubrics = [[{"criterion": "a", "points": 9}, {"criterion": "b", "points": 3}]]
    pl.DataFrame({"question": ["q"], "id": ["x-1"], "rubrics": rubrics}).write_parquet(path)
    read = read_rubrics(str(path))
    assert read.criteria.select("prompt_id", "description", "weight").rows() == [
        ("x-1", "a", 9.0),
        ("x-1", "b", 3.0),
    ]


def test_a_criterion_twice_counts_twice_as_published(tmp_path: Path) -> None:
    """HealthBench's code knows no duplicates: 1 + 1 of 4; by text it is not to be told which is meant."""
    items = [{"criterion": text, "points": points} for text, points in (("a", 1), ("a", 1), ("b", 2))]
    row = {"prompt_id": "h", "rubric_items": graded(items, [True, True, False])}
    read = read_rubrics(lines(tmp_path, row))
    assert scores(read.criteria, read.grades)["score"].to_list() == [0.5]
    by_text = {"prompt_id": "h", "criterion": "a", "met": True}
    with pytest.raises(BadInput, match="a text that 2 criteria have"):
        read_verdicts(lines(tmp_path, by_text, name="v.jsonl"), read.criteria)


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_our_own_tables(tmp_path: Path, form: str) -> None:
    """Rows of `rubrics` with rows of `judgments` about their criteria; a judge's samples vote, others say nothing."""
    made = criteria_rows(
        pl.DataFrame(
            {
                "prompt_id": ["f" * 32] * 2,
                "description": ["a", "b"],
                "weight": [3.0, -1.0],
                "kind": ["principle"] * 2,
                "check": ["judge"] * 2,
                "source": ["model"] * 2,
            }
        )
    )
    prompt = [{"role": "user", "content": SECRET}]
    about = pl.DataFrame([("f" * 32, prompt, [], "c" * 32, "train")], schema=PROMPTS, orient="row")
    rubrics = rubric_rows(made, about)
    ids = criteria_of(rubrics).sort("weight", descending=True)["id"].to_list()
    said = [(ids[0], 1.0), (ids[0], 0.0), (ids[0], 1.0), (ids[1], 1.0), ("other", 1.0), (None, 7.0)]
    judgments = conform(
        pl.DataFrame(
            {
                "id": [f"{at}" for at in range(len(said))],
                "item_id": [f"item {one}" for one, _ in said],
                "kind": ["pointwise"] * len(said),
                "judge": ["j"] * len(said),
                "attribute": [one for one, _ in said],
                "verdict": ["rated"] * len(said),
                "scores": [[score] for _, score in said],
                "response_ids": [["r"]] * len(said),
            }
        ),
        "judgments",
    )
    paths = [str(tmp_path / f"{name}.{form}") for name in ("rubrics", "judgments")]
    for path, frame in zip(paths, (rubrics, judgments), strict=True):
        frame.write_parquet(path) if form == "parquet" else frame.write_ndjson(path)
    read = read_rubrics(paths[0])
    assert sorted(read.criteria["id"]) == sorted(made["id"])
    found = read_verdicts(paths[1], read.criteria)
    assert scores(read.criteria, found)["score"].to_list() == [pytest.approx(2 / 3)]


@pytest.mark.parametrize("rule", ["healthbench", "weighted", "normalised", "orbit"])
def test_samples_are_scored_by_every_rule(rule: Rule) -> None:
    """The hand-written example holds HealthBench's figure, and one reply with a verdict that nobody gave."""
    read = read_rubrics(str(SAMPLES / "healthbench.jsonl"))
    found = scores(read.criteria, read_verdicts(str(SAMPLES / "verdicts.jsonl"), read.criteria), rule)
    assert found["score"].null_count() == 1
    if rule == "healthbench":
        assert found["score"].to_list()[:4] == [0.5, 12 / 22, 1.0, -0.75]


# Refusals: by file and line, without a word of a row


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("{broken", "no JSON object"),
        ({"prompt_id": "x", "text": SECRET}, "columns prompt_id, text"),
        ({"rubrics": SECRET}, "a text that is no JSON"),
        ({"rubrics": {"a": SECRET}}, "criteria as dict"),
        ({"rubrics": [{"criterion": " ", "points": 1}]}, "criterion 0 without a text"),
        ({"rubrics": [{"criterion": SECRET, "points": "many"}]}, "criterion 0 with a weight of str"),
        ({"rubrics": [{"criterion": SECRET, "points": True}]}, "criterion 0 with a weight of bool"),
        ({"rubrics": [{"criterion": SECRET}]}, "criterion 0 with a weight of NoneType"),
        ({"rubrics": [{"criterion": SECRET, "points": 1, "tags": SECRET}]}, "tags as str"),
        ({"prompt_id": "h1", "rubrics": [{"criterion": SECRET, "points": 1}]}, "another rubric of a prompt"),
        ({"rubric_items": graded([{"criterion": "a", "points": 1}], ["perhaps"])}, "met that is neither"),
    ],
)
def test_rubrics_that_cannot_be_read(tmp_path: Path, row: Any, found: str) -> None:
    """The error names file and line, what was found and what was wanted, and never a text."""
    with pytest.raises(BadInput, match=r"rows\.jsonl, line 3") as raised:
        read_rubrics(lines(tmp_path, healthbench(), "", row))
    assert found in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.wanted


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt_id": "h1", "criterion": 0}, "no met"),
        ({"prompt_id": "lost", "criterion": 0, "met": True}, "a prompt_id that the rubrics do not have"),
        ({"prompt_id": "h1", "criterion": 4, "met": True}, "no such criterion"),
        ({"prompt_id": "h1", "criterion": SECRET, "met": True}, "no such criterion"),
        (
            {"prompt_id": "h1", "rubric_items": graded([{"criterion": SECRET, "points": 1}], [True])},
            "no such criterion",
        ),
        ({"prompt_id": "h1", "criterion": 0, "met": SECRET}, "met that is neither"),
        ({"prompt_id": "h1", "criterion": 0, "met": 0.5}, "met that is neither"),
    ],
)
def test_verdicts_that_cannot_be_read(tmp_path: Path, row: Any, found: str) -> None:
    """The same of verdicts: what is not about these rubrics is refused, never dropped in silence."""
    read = read_rubrics(lines(tmp_path, healthbench()))
    with pytest.raises(BadInput, match=r"v\.jsonl, line 1") as raised:
        read_verdicts(lines(tmp_path, row, name="v.jsonl"), read.criteria)
    assert found in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_judge_that_says_both_is_refused(tmp_path: Path) -> None:
    """Two verdicts of one judge are samples or replies that nobody named; equal ones are one."""
    read = read_rubrics(lines(tmp_path, healthbench()))
    rows = verdicts([0, 0], [True, False])
    with pytest.raises(BadInput, match="1 verdicts that contradict"):
        read_verdicts(lines(tmp_path, *rows, name="v.jsonl"), read.criteria)
    again = lines(tmp_path, *verdicts([0, 0], [True, True]), name="w.jsonl")
    assert read_verdicts(again, read.criteria).height == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """A lost file and a form that is not known are said to be so."""
    with pytest.raises(NotFound, match="no such file"):
        read_rubrics(str(tmp_path / "lost.jsonl"))
    with pytest.raises(ConfigError, match="unknown form"):
        read_rubrics(str(tmp_path / "rows.xlsx"))
