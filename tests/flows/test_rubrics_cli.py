"""`tilth rubrics` as a user meets it: sample files, tables for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from tilth.flows.rubrics_cli import RuleName, rubrics_app
from tilth.schemas import BadInput, ConfigError
from tilth.transforms.rubrics.scoring import RULES

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "rubrics"
FILES = ("--rubrics", str(SAMPLES / "healthbench.jsonl"), "--verdicts", str(SAMPLES / "verdicts.jsonl"))


def call(*words: str, text: str | None = None) -> Result:
    """What a command does; errors that Tilth raises on purpose come through."""
    result = CliRunner().invoke(rubrics_app, list(words), input=text)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def as_json(*words: str) -> Any:
    return json.loads(call(*words, "--json").stdout)


def test_scores_of_the_samples() -> None:
    """The mean of 0.5, 12/22, 1, -0.75 and 1, with its error; a reply that lacks a verdict is counted."""
    found = as_json("score", *FILES, "--tags")
    assert found["overall"]["mean"] == pytest.approx((0.5 + 12 / 22 + 1 - 0.75 + 1) / 5)
    assert (found["overall"]["n"], found["overall"]["unscored"]) == (5, 1)
    assert found["without_score"] == {"judges_failed": 1}
    assert found["replies"][0]["score"] == 0.5
    tags = {(row["of"], row["tag"]): row["n"] for row in found["tags"]}
    assert tags["rubric", "level:critical"] == 3
    assert tags["example", "theme:safety"] == 2
    assert found == as_json("score", *FILES, "--tags")


def test_rules_and_partial_scores() -> None:
    """Every rule can be named; with --partial every reply has a score; a sum of points is not clipped."""
    assert {one.value for one in RuleName} == set(RULES)
    found = as_json("score", *FILES, "--rule", "orbit", "--partial")
    assert found["overall"]["mean"] == pytest.approx((11 + 12 + 12 - 9 + 15 + 2) / 6)
    assert found["overall"]["unscored"] == 0


def test_scores_are_written(tmp_path: Path) -> None:
    """-o holds a row for each reply; a form that cannot be written is refused before anything is read."""
    path = tmp_path / "scores.parquet"
    call("score", *FILES, "-o", str(path))
    assert pl.read_parquet(path).height == 6
    with pytest.raises(ConfigError, match="unknown form"):
        call("score", "--rubrics", "lost.jsonl", "-o", "scores.xlsx")


def test_people_see_replies_tags_and_the_whole() -> None:
    """The tables name what was scored and how."""
    shown = call("score", *FILES, "--tags").stdout
    for part in ("kettle", "axis:accuracy", "overall 0.4591", "rule healthbench", "judges_failed"):
        assert part in shown


def test_rubrics_without_verdicts_are_refused() -> None:
    """The error says what to name."""
    with pytest.raises(BadInput, match="--verdicts"):
        call("score", *FILES[:2])


def test_the_library_is_listed() -> None:
    """Every verifier with the form of its value."""
    rows = as_json("verifiers")
    assert {"verifier", "value", "doc", "arguments"} <= set(rows[0])
    assert "max_words" in {row["verifier"] for row in rows}
    assert "max_words" in call("verifiers").stdout


def test_a_program_checks_a_text(tmp_path: Path) -> None:
    """By name and value or by its JSON, on a file or standard input; the exit code is the verdict."""
    assert call("check", "--program", "max_words=3", "-", text="one two three").exit_code == 0
    assert call("check", "--program", "max_words=2", "-", text="one two three").exit_code == 1
    path = tmp_path / "reply.txt"
    path.write_text("one two three")
    program = '{"verifier":"max_words","arguments":{"limit":2}}'
    assert json.loads(call("check", "--program", program, str(path), "--json").stdout) == {"met": False}
    with pytest.raises(BadInput, match="tilth rubrics verifiers"):
        call("check", "--program", "max_words=many", str(path))


@pytest.mark.parametrize("command", ["score", "verifiers", "check"])
def test_help_shows_a_call(command: str) -> None:
    """Each command's help ends in a line to copy."""
    assert f"tilth rubrics {command}" in call(command, "--help").stdout
