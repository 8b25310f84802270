"""The evaluation of the rules on labelled turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilth.transforms.feedback import evaluate

TURNS = [
    ("thats wrong", "negative", ["factual_error"]),
    ("not what i asked for", "negative", ["negative_feedback"]),
    ("thanks, that worked", "positive", ["gratitude"]),
    ("and in Spain?", "none", []),
] * 3


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A file of labelled turns, a third of them held out."""
    rows = [
        {
            "id": str(at),
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "It is 4."},
                {"role": "user", "content": turn},
            ],
            "polarity": polarity,
            "labels": labels,
            "fold": "held_out" if at >= 8 else "dev",
        }
        for at, (turn, polarity, labels) in enumerate(TURNS)
    ]
    path = tmp_path / "labelled.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.slow
def test_figures_are_printed_with_intervals(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each class has precision, recall, F1 and AUC within their intervals, the same in every run."""
    outputs = []
    for _ in range(2):
        assert evaluate.main([str(labelled), "--fold", "all", "--json"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    figures = {(row["label"], row["method"]): row for row in json.loads(outputs[0])}
    rules = figures["negative", "rules"]
    assert rules["support"] == 6
    assert rules["f1"] == [1.0, 1.0, 1.0]
    assert rules["auc"][0] == 1.0
    assert figures["negative", "keywords"]["recall"][0] == 1.0
    assert all(low <= value <= high for value, low, high in (row["recall"] for row in figures.values()))


@pytest.mark.slow
def test_only_the_asked_fold_is_read(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out turns stay out unless asked for."""
    assert evaluate.read_labelled(labelled, "dev").height == 8
    assert evaluate.read_labelled(labelled, "held_out").height == 4
    assert evaluate.main([str(labelled), "--fold", "dev"]) == 0
    assert "negative" in capsys.readouterr().out


def test_the_keyword_list_has_twenty_two_patterns() -> None:
    """The baseline is of the size of the one that the project is measured against."""
    assert len(evaluate.NEGATIVE_KEYWORDS) + len(evaluate.POSITIVE_KEYWORDS) == 22
