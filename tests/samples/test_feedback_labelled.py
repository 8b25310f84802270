"""The labelled feedback sample keeps the promises that FEEDBACK_LABELLING.md makes about it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SAT = {
    "gratitude",
    "learning",
    "compliance",
    "praise",
    "personal_details",
    "humor",
    "acknowledgement",
    "positive_closure",
    "getting_there",
}
DSAT = {
    "negative_feedback",
    "revision",
    "factual_error",
    "unrealistic_expectation",
    "no_engagement",
    "ignored",
    "lower_quality",
    "insufficient_detail",
    "style",
}
KEYS = {"id", "domain", "messages", "polarity", "labels", "hard_negative", "fold"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Every line of the sample, parsed."""
    text = (SAMPLES / "feedback_labelled.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def final_turn(row: dict[str, Any]) -> str:
    """The judged user turn, with case, spacing and digits made alike."""
    return re.sub(r"\d", "0", " ".join(row["messages"][-1]["content"].casefold().split()))


def test_every_row_has_the_documented_keys_and_values(rows: list[dict[str, Any]]) -> None:
    """A reader can rely on the keys, the folds and the polarities of every row."""
    assert all(set(row) == KEYS for row in rows)
    assert {row["fold"] for row in rows} == {"dev", "held_out"}
    assert {row["polarity"] for row in rows} == {"positive", "negative", "none"}
    assert all(isinstance(row["hard_negative"], bool) for row in rows)


def test_ids_and_final_turns_are_unique(rows: list[dict[str, Any]]) -> None:
    """No judged turn is counted twice, not even with only its numbers changed."""
    assert len({row["id"] for row in rows}) == len(rows)
    repeated = [text for text, n in Counter(map(final_turn, rows)).items() if n > 1]
    assert repeated == []


def test_messages_alternate_from_user_to_user(rows: list[dict[str, Any]]) -> None:
    """Every judged turn answers an assistant turn, and no message is empty."""
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        wanted = ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert len(roles) >= 3, row["id"]
        assert roles == wanted, row["id"]
        assert all(message["content"].strip() for message in row["messages"]), row["id"]


def test_labels_agree_with_polarity(rows: list[dict[str, Any]]) -> None:
    """A positive row has satisfaction labels only, a negative row has dissatisfaction, a none row nothing."""
    for row in rows:
        labels = set(row["labels"])
        assert labels <= SAT | DSAT, row["id"]
        assert len(labels) == len(row["labels"]), row["id"]
        consistent = {
            "positive": bool(labels) and labels <= SAT,
            "negative": bool(labels & DSAT),
            "none": not labels,
        }
        assert consistent[row["polarity"]], row["id"]


def test_hard_negatives_are_unlabelled_and_about_half(rows: list[dict[str, Any]]) -> None:
    """The sample is large enough, and about half of it tempts a keyword list to be wrong."""
    hard = [row for row in rows if row["hard_negative"]]
    assert len(rows) >= 520
    assert len(hard) >= 260
    assert 0.4 <= len(hard) / len(rows) <= 0.6
    assert all(row["polarity"] == "none" for row in hard)


def test_a_third_of_each_stratum_is_held_out(rows: list[dict[str, Any]]) -> None:
    """Held-out figures speak of the same mix as the development figures."""
    strata = {(row["polarity"], row["hard_negative"]) for row in rows}
    for stratum in strata:
        folds = [row["fold"] for row in rows if (row["polarity"], row["hard_negative"]) == stratum]
        assert abs(folds.count("held_out") / len(folds) - 1 / 3) <= 0.05, stratum


def test_every_label_and_twelve_domains_are_covered(rows: list[dict[str, Any]]) -> None:
    """Each of the 18 labels occurs at least ten times, and each of twelve or more domains as well."""
    labels = Counter(label for row in rows for label in row["labels"])
    assert all(labels[label] >= 10 for label in SAT | DSAT), labels
    domains = Counter(row["domain"] for row in rows)
    assert sum(n >= 10 for n in domains.values()) >= 12


def test_the_counts_in_the_labelling_page_are_those_of_the_file(rows: list[dict[str, Any]]) -> None:
    """The table of counts per label and fold cannot drift from the data."""
    page = (SAMPLES / "FEEDBACK_LABELLING.md").read_text(encoding="utf-8")
    for label in sorted(SAT | DSAT):
        folds = Counter(row["fold"] for row in rows if label in row["labels"])
        assert re.search(rf"^\| `{label}` \|.*\| {folds['dev']} \| {folds['held_out']} \|$", page, re.M), (
            label
        )
