"""Verdict tables in the forms in which they are published: read as they are meant, or refused with a count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import polars as pl
import pytest

from tilth.schemas import BadInput, ConfigError, conform
from tilth.transforms.judging.read_votes import LabelTable, VoteTable, read_gold, read_votes
from tilth.transforms.judging.votes import FACTS, VOTES

WRITE: Final[dict[str, Callable[[pl.DataFrame, Path], object]]] = {
    "csv": pl.DataFrame.write_csv,
    "jsonl": pl.DataFrame.write_ndjson,
    "parquet": pl.DataFrame.write_parquet,
}


def table(folder: Path, rows: dict[str, Any], form: str = "parquet", name: str = "judge-x") -> str:
    """A table of these columns, as a file."""
    path = folder / f"{name}.{form}"
    WRITE[form](pl.DataFrame(rows, strict=False), path)
    return str(path)


def voted(uri: str, columns: dict[str, str] | None = None, of: Any = "canonical") -> VoteTable:
    read = read_votes(uri, columns, of)
    assert isinstance(read, VoteTable)
    assert (read.votes.schema, read.facts.schema) == (VOTES, FACTS)
    return read


LONG: Final = {
    "item_id": ["x", "x", "y", "y"],
    "judge": ["j"] * 4,
    "order": ["ab", "BA", "0", "b"],
    "verdict": ["A", "win", " Tie ", None],
    "gold": ["a", None, "C", "tie"],
    "answer_a": ["four", "four", "", ""],
    "answer_b": ["seven77"] * 4,
}


@pytest.mark.parametrize("form", WRITE)
def test_long_tables(tmp_path: Path, form: str) -> None:
    """One vote a row, in any form: words in any case, blanks are failed votes, of texts only lengths are kept."""
    read = voted(table(tmp_path, LONG, form))
    assert read.votes.select("item_id", "first", "sample_index", "verdict").rows() == [
        ("x", 0, 0, "win"),
        ("x", 1, 0, "win"),
        ("y", 0, 0, "tie"),
        ("y", 1, 0, "failed"),
    ]
    assert read.facts.rows() == [("x", "win", 4, 7), ("y", "tie", 0, 7)]


def test_whose_verdict_is_said_and_never_guessed(tmp_path: Path) -> None:
    """The same words mean reply a, or the reply shown first, as `verdict_of` says."""
    rows = {"item_id": ["x", "x"], "order": ["a", "b"], "verdict": ["1", "1"]}
    canonical, shown = (voted(table(tmp_path, rows), of=of) for of in ("canonical", "shown"))
    assert canonical.votes["verdict"].to_list() == ["win", "win"]
    assert shown.votes["verdict"].to_list() == ["win", "loss"]
    assert canonical.votes["judge"].to_list() == ["judge-x"] * 2
    with pytest.raises(ConfigError, match="canonical or shown"):
        voted(table(tmp_path, rows), of="whatever")


def test_scores_of_replies_as_shown(tmp_path: Path) -> None:
    """score_1 and score_2 go to the reply that stood there; without a verdict they make it; blank ones are failed."""
    rows = {"item_id": ["x"] * 3, "order": ["ab", "ba", "ba"], "sample_index": [0, 0, 1]}
    read = voted(table(tmp_path, {**rows, "score_1": [8, 3, None], "score_2": [3, 8, None]}))
    assert read.votes.select("verdict", "score_a", "score_b").rows() == [
        ("win", 8, 3),
        ("win", 8, 3),
        ("failed", None, None),
    ]


def test_scores_against_the_verdict_are_refused(tmp_path: Path) -> None:
    """Verdicts about what is shown, read as about reply a: the scores tell, and the error says what to try."""
    rows = {
        "item_id": ["x", "x"],
        "order": ["ab", "ba"],
        "verdict": ["1", "2"],
        "score_a": [8, 8],
        "score_b": [3, 3],
    }
    with pytest.raises(BadInput, match="1 with a verdict that its scores contradict") as error:
        voted(table(tmp_path, rows))
    assert "--verdict-of shown" in str(error.value)
    assert voted(table(tmp_path, rows), of="shown").votes["verdict"].to_list() == ["win", "win"]


@pytest.mark.parametrize(
    ("column", "cells", "words"),
    [
        ("verdict", ["A", "the first one is better", "b", "b"], "column verdict.*\n.*1 other cells"),
        ("order", ["ab", "ba", None, "ba"], "column order.*\n.*1 other cells"),
        ("order", ["ab", "ba", "true", "true"], "column order.*\n.*2 other cells"),
        ("gold", ["a", "b", None, None], "column gold\n.*1 items with several values"),
        ("sample_index", ["0", "0", "0", "1.5"], "column sample_index.*\n.*1 other cells"),
        ("score_a", ["9", "much", None, None], "column score_a.*\n.*1 other cells"),
    ],
)
def test_odd_cells_are_counted_not_quoted(tmp_path: Path, column: str, cells: list[Any], words: str) -> None:
    """What cannot be read is an error that names the column and how many; never what stands there."""
    with pytest.raises(BadInput, match=words) as error:
        voted(table(tmp_path, {**LONG, column: cells}))
    assert not any(str(cell) in str(error.value) for cell in cells if cell and " " in str(cell))


def test_repeated_votes_need_a_number(tmp_path: Path) -> None:
    """Two votes of one judge on one item in one order are refused: which belongs to which is not guessed."""
    rows = {"item_id": ["x", "x"], "order": ["ab", "ab"], "verdict": ["a", "a"]}
    with pytest.raises(BadInput, match="1 that stand there twice") as error:
        voted(table(tmp_path, rows))
    assert "sample_index" in str(error.value)


def test_other_names_are_mapped(tmp_path: Path) -> None:
    """A map names the table's own columns, even where known names stand for something else."""
    rows = {"qid": [1, 1], "order": ["x", "y"], "position": ["ab", "ba"], "winner": ["a", "b"]}
    read = voted(table(tmp_path, rows), {"item_id": "qid", "order": "position", "verdict": "winner"})
    assert read.votes.select("item_id", "first", "verdict").rows() == [("1", 0, "win"), ("1", 1, "loss")]
    with pytest.raises(ConfigError, match="no_such"):
        voted(table(tmp_path, rows), {"no_such": "qid"})
    with pytest.raises(ConfigError, match="no_column"):
        voted(table(tmp_path, rows), {"item_id": "no_column"})
    with pytest.raises(BadInput, match="no column order"):
        voted(table(tmp_path, {"item_id": ["x"], "verdict": ["a"]}))


def test_both_orders_in_one_row(tmp_path: Path) -> None:
    """Scores of chosen and reject with chosen shown first (A) and second (B): -1 is invalid, chosen is gold."""
    rows = {
        "chosen": ["a longer one", "b"],
        "reject": ["short", "bb"],
        "chosen_score_A": [1, -1],
        "reject_score_A": [0, -1],
        "chosen_score_B": [0, None],
        "reject_score_B": [1, 1],
    }
    read = voted(table(tmp_path, rows))
    assert read.votes.select("item_id", "first", "verdict", "score_a").rows() == [
        ("row 1", 0, "win", 1),
        ("row 1", 1, "loss", 0),
        ("row 2", 0, "failed", None),
        ("row 2", 1, "failed", None),
    ]
    assert read.facts.rows() == [("row 1", "win", 12, 5), ("row 2", "win", 1, 2)]
    with pytest.raises(BadInput, match="chosen_score_A"):
        voted(table(tmp_path, {**rows, "chosen_score_A": [1, -2]}))


def test_one_column_per_judge(tmp_path: Path) -> None:
    """Yes-or-no labels: judges and people are told by their cells and names, groups by `model`; blanks are missing."""
    rows = {
        "model": ["m", "m", "n"],
        "response": ["a", "b", "c"],
        "GPT-4": ["True", "", "False"],
        "Contains": ["True", "False", "False"],
        "Human-Eval": ["True", "maybe", "False"],
        "Human-Eval_Confidence": ["True", "True", "False"],
    }
    read = read_votes(table(tmp_path, rows, "csv"))
    assert isinstance(read, LabelTable)
    assert read.judges.to_dict(as_series=False) == {
        "GPT-4": [True, None, False],
        "Contains": [True, False, False],
    }
    assert read.people.to_list() == [True, None, False]
    assert read.groups is not None
    assert read.groups.to_list() == ["m", "m", "n"]
    named = read_votes(table(tmp_path, rows), {"judges": "Contains", "human": "GPT-4"})
    assert isinstance(named, LabelTable)
    assert (named.judges.columns, named.people.to_list()) == (["Contains"], [True, None, False])
    with pytest.raises(BadInput, match=r"GPT-4.*\n.*1 other"):
        read_votes(table(tmp_path, {**rows, "GPT-4": ["True", "False", "Yes, it is"]}))
    with pytest.raises(BadInput, match="human=COLUMN"):
        read_votes(table(tmp_path, {"text": ["a"]}))


def test_tilths_own_judgments(tmp_path: Path) -> None:
    """The table `judgments`, exported, is read as it is."""
    row = {"id": "0", "item_id": "x", "kind": "pairwise", "judge": "j", "sample_index": 0, "verdict": "loss"}
    rows = pl.DataFrame([{**row, "order": [1, 0], "scores": [2.0, 5.0], "response_ids": ["r", "s"]}])
    for form, write in WRITE.items():
        if form != "csv":
            write(conform(rows, "judgments"), tmp_path / f"own.{form}")
            read = voted(str(tmp_path / f"own.{form}"))
            assert read.votes.rows() == [("x", "j", 1, 0, "loss", 2.0, 5.0)]


def test_gold_of_its_own(tmp_path: Path) -> None:
    """A gold file has item_id and gold, each item once; blanks are left out, contradictions refused."""
    uri = table(tmp_path, {"item_id": ["x", "y", "z"], "gold": ["A", None, "tie"]}, "csv")
    assert read_gold(uri).rows() == [("x", "win"), ("z", "tie")]
    with pytest.raises(BadInput, match="1 items with several"):
        read_gold(table(tmp_path, {"item_id": ["x", "x"], "gold": ["a", "b"]}, "csv"))
    with pytest.raises(BadInput, match="no column gold"):
        read_gold(table(tmp_path, {"item_id": ["x"]}))
