"""The suites: every table has one, every metric in it exists, and no contract is left without a claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tilth.schemas import TABLES
from tilth.schemas.across import ACROSS, COMPARED, metric_names
from tilth.schemas.contracts import CONTRACTS, DIALOGUE_STATES, NEGATIVE_LABELS, POSITIVE_LABELS
from tilth.schemas.expectations import Expectation, Suite, load_suite

REASON = "because there is a reason"


@pytest.mark.parametrize("table", TABLES)
def test_every_metric_that_is_claimed_about_exists(table: str) -> None:
    """A misspelt metric would never be judged."""
    suite = load_suite(table)
    assert suite.table == table
    assert {claim.metric for claim in suite.expectations} <= metric_names(table)


@pytest.mark.parametrize("table", TABLES)
def test_every_contract_has_a_claim(table: str) -> None:
    """What is measured as a defect is judged."""
    metrics = {claim.metric for claim in load_suite(table).expectations}
    claimed = metrics | {metric.removesuffix("_share") for metric in metrics}
    compared = set(COMPARED[1:]) if table == "feedback" else set()
    assert {*CONTRACTS[table].defects, *(check.metric for check in ACROSS[table]), *compared} <= claimed


@pytest.mark.parametrize("table", TABLES)
def test_claims_are_made_once(table: str) -> None:
    """Two claims about one metric would contradict each other sooner or later."""
    metrics = [claim.metric for claim in load_suite(table).expectations]
    assert len(metrics) == len(set(metrics))


@pytest.mark.parametrize(
    ("table", "metric"),
    [
        ("pairs", "chosen_equals_rejected"),
        ("pairs", "margin_not_positive"),
        ("conversations", "users_in_two_splits"),
        ("pairs", "prompts_in_two_splits"),
        ("feedback", "evidence_not_in_message"),
        ("unpaired", "label_null"),
        ("pairs", "judgment_ids_empty"),
        ("judgments", "scores_of_a_failure"),
        ("judgments", "verdict_against_scores"),
        ("ratings", "attribute_not_finite"),
        ("evaluation", "prompts_in_training_pairs"),
        ("rationales", "label_not_recovered"),
        ("rationales", "quotes_not_in_pair"),
        ("rubrics", "feedback_of_another_split"),
        ("rubrics", "duplicate_prompts"),
    ],
)
def test_what_must_never_happen_blocks(table: str, metric: str) -> None:
    """Wrong labels and leaks between splits stop a commit at the first row."""
    (claim,) = [claim for claim in load_suite(table).expectations if claim.metric == metric]
    assert (claim.severity, claim.kwargs) == ("critical", {"max_value": 0})


def test_unknown_keys_and_reasonless_claims_are_refused() -> None:
    """A typo in a suite is an error, and so is a claim without a reason."""
    good = {
        "metric": "rows",
        "type": "expect_column_x",
        "kwargs": {},
        "severity": "info",
        "why": "because there is a reason",
    }
    assert Suite.model_validate(
        {"table": "pairs", "expectations": [{**good, "why": "because there is a reason"}]}
    )
    for bad in ({**good, "sevrity": "info"}, {**good, "why": ""}, {**good, "severity": "fatal"}):
        with pytest.raises(ValidationError):
            Expectation.model_validate(bad)


@pytest.mark.parametrize(
    ("kwargs", "wanted"),
    [
        ({"max_value": 0}, "at most 0"),
        ({"min_value": 1}, "at least 1"),
        ({"min_value": 0.1, "max_value": 0.9}, "from 0.1 to 0.9"),
        ({"value_set": [1.0]}, "value_set=[1.0]"),
    ],
)
def test_bounds_are_said_in_words(kwargs: dict[str, Any], wanted: str) -> None:
    """What was wanted is readable in reports and errors."""
    claim = Expectation(metric="m", type="expect_column_x", kwargs=kwargs, severity="info", why=REASON)
    assert claim.wanted == wanted


def test_the_labels_are_those_of_the_taxonomy() -> None:
    """The contract knows exactly the labels and states that mining gives."""
    taxonomy = pytest.importorskip("tilth.transforms.feedback.taxonomy")
    named = (*POSITIVE_LABELS, *NEGATIVE_LABELS)
    assert set(named) == set(taxonomy.POLARITY)
    assert all(taxonomy.POLARITY[label] == "positive" for label in POSITIVE_LABELS)
    assert set(DIALOGUE_STATES) == set(taxonomy.DIALOGUE_STATES)


@pytest.mark.parametrize("table", TABLES)
def test_every_check_is_documented(table: str) -> None:
    """docs/reference/checks.md says of each table what is wanted, how grave it is and why, and nothing else."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "checks.md").read_text(encoding="utf-8")
    section = page.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
    suite = load_suite(table)
    claims = [f"| `{one.metric}` | {one.wanted} | {one.severity} | {one.why} |" for one in suite.expectations]
    rules = [
        f"| `{one.metric}` | {one.kind} {one.allowed:g} | {one.severity} | {one.why} |" for one in suite.drift
    ]
    assert [line for line in section.splitlines() if line.startswith("| `")] == [*claims, *rules]
