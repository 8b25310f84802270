"""The audit measures parts, judges the numbers, names what failed, and lets no user text out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from importlib import import_module
from typing import Any

import pytest

from tilth.catalog import AuditReport, Catalog, Release, audit, audit_version
from tilth.catalog.judge import judge
from tilth.schemas import TABLES, ChecksFailed, TilthError
from tilth.schemas.expectations import Expectation

Change = Callable[[dict[str, list[dict[str, Any]]]], None]
SECRET = "xyzzy-plugh-7391"


def columns(report: AuditReport) -> set[tuple[str, str]]:
    return {(check.table, check.column) for check in report.failed_critical}


@pytest.mark.slow
def test_a_coherent_release_passes(stage: Callable[..., Any]) -> None:
    """A release in which everything fits has no failure and leaves no check open: what names no judgment needs none."""
    report = audit(stage("r1"))
    assert columns(report) == set()
    assert not [check.column for check in report.checks if check.success is None]
    assert report.metrics["feedback"]["evidence_compared"] == 2
    report.refuse()


def broken(table: str, row: int = 0, **change: Any) -> Change:
    def apply(rows: dict[str, list[dict[str, Any]]]) -> None:
        rows[table][row] = {**rows[table][row], **change}

    return apply


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (broken("pairs", margin=-1.8), ("pairs", "margin_not_positive")),
        (broken("unpaired", 1, id="2" * 32), ("unpaired", "duplicate_ids")),
        (broken("unpaired", 1, prompt_id="a" * 32, split="test"), ("unpaired", "prompts_in_two_splits")),
        (broken("rationales", pair_id="8" * 32), ("rationales", "pair_ids_unresolved")),
        (broken("pairs", feedback_ids=["f" * 32, "8" * 32]), ("pairs", "feedback_ids_unresolved")),
        (broken("feedback", conversation_id="8" * 32), ("feedback", "conversation_ids_unresolved")),
        (broken("feedback", message_index=4), ("feedback", "evidence_not_in_message")),
        (broken("feedback", target_index=0), ("feedback", "target_not_assistant")),
        (broken("feedback", 1, message_index=99), ("feedback", "not_said_by_user")),
        (broken("quarantine", reason="because"), ("quarantine", "reason_unknown")),
    ],
)
def test_a_critical_failure_is_named(
    change: Change, failure: tuple[str, str], rows: Callable[[], Any], stage: Callable[..., Any]
) -> None:
    """What is wrong in one row of one part stands in the report with table, metric and number, and blocks."""
    changed = rows()
    change(changed)
    report = audit(stage("r1", changed), tables=failure[:1])
    assert failure in columns(report)
    (check,) = [c for c in report.failed_critical if (c.table, c.column) == failure]
    assert (check.observed, check.wanted, check.severity) == (1, "at most 0", "critical")
    with pytest.raises(ChecksFailed, match=failure[1]):
        report.refuse()


@pytest.mark.slow
def test_people_stay_in_one_split(rows: Callable[[], Any], stage: Callable[..., Any]) -> None:
    """One user with conversations in train and in test is found, and so is one record."""
    changed = rows()
    changed["conversations"].append({**changed["conversations"][0], "id": "d" * 32, "split": "test"})
    found = columns(audit(stage("r1", changed), tables=("conversations",)))
    assert {("conversations", "users_in_two_splits"), ("conversations", "records_in_two_splits")} <= found


@pytest.mark.slow
def test_a_warning_does_not_block(rows: Callable[[], Any], stage: Callable[..., Any]) -> None:
    """Neighbours with one prompt are reported and the release may go on."""
    changed = rows()
    broken("unpaired", 1, prompt_id="a" * 32)(changed)
    report = audit(stage("r1", changed), tables=("unpaired",))
    assert "prompts_side_by_side" in {check.column for check in report.failed}
    report.refuse()


def planted(value: Any) -> Any:
    """The same value with the secret in every text of it."""
    match value:
        case str():
            return value + SECRET
        case list():
            return [planted(item) for item in value]
        case dict():
            return {name: planted(item) for name, item in value.items()}
        case _:
            return value


@pytest.mark.slow
def test_no_text_of_a_row_reaches_the_report(rows: Callable[[], Any], stage: Callable[..., Any]) -> None:
    """With a secret in every text column of every table, almost all checks fail and none repeats it."""
    texts = {t: [n for n in s.names if str(s.field(n).type) == "string"] for t, s in TABLES.items()}
    changed = {
        table: [{**dict.fromkeys(texts[table], ""), **row} for row in some] for table, some in rows().items()
    }
    report = audit(stage("r1", planted(changed)))
    assert len(report.failed_critical) > 30
    shown = [report.to_json(), json.dumps(report.rows()), json.dumps([report.summary(t) for t in TABLES])]
    with pytest.raises(ChecksFailed) as caught:
        report.refuse()
    assert not any(SECRET in text for text in (*shown, str(caught.value)))


@pytest.mark.slow
def test_checks_without_their_other_table_are_skipped_aloud(stage: Callable[..., Any]) -> None:
    """A check that needs a table that is not at hand is in the report, neither passed nor failed."""
    files = stage("r1")
    report = audit({"rationales": files["rationales"]})
    skipped = {check.column for check in report.checks if check.success is None}
    assert {"pair_ids_unresolved", "feedback_ids_unresolved", "conversation_ids_unresolved"} <= skipped
    assert report.summary("rationales")["skipped"] == len(skipped)


def test_only_the_asked_tables_are_judged(stage: Callable[..., Any]) -> None:
    """Other tables serve for comparison alone."""
    report = audit(stage("r1"), tables=("feedback",))
    assert {check.table for check in report.checks} == {"feedback"}
    assert report.metrics["feedback"]["evidence_compared"] == 2


@pytest.mark.slow
def test_empty_tables_pass(stage: Callable[..., Any]) -> None:
    """No rows break no rule; that there are none is a warning."""
    report = audit({table: [] for table in TABLES})
    assert report.failed_critical == ()
    assert ("conversations", "rows") in {(check.table, check.column) for check in report.failed}


def test_a_report_survives_json(stage: Callable[..., Any]) -> None:
    """The report is JSON and comes back equal."""
    report = audit(stage("r1"), tables=("pairs",))
    again = AuditReport.from_dict(json.loads(report.to_json()))
    assert (again.checks, again.to_dict()) == (report.checks, report.to_dict())


@pytest.mark.slow
def test_failures_come_first(rows: Callable[[], Any], stage: Callable[..., Any]) -> None:
    """On a screen the worst stands on top."""
    changed = rows()
    broken("quarantine", reason="because")(changed)
    shown = audit(stage("r1", changed), tables=("quarantine",)).rows()
    assert (shown[0]["column"], shown[0]["severity"]) == ("reason_unknown", "critical")


@pytest.mark.slow
def test_a_committed_version_is_audited_again(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """`tilth check` judges one dataset with the tables of its own release at hand, not with later ones."""
    catalog.publish(Release("observed", "r1", stage("r1"), date=date(2026, 11, 21)))
    catalog.publish(Release("observed", "r2", {"pairs": [], "feedback": []}, date=date(2026, 11, 21)))
    report = audit_version(catalog, "observed.pairs@2026.11.21.1")
    assert {check.table for check in report.checks} == {"pairs"}
    assert report.metrics["pairs"]["feedback_ids_unresolved"] == 0
    assert report.metrics["pairs"]["rows"] == 1


def test_a_part_of_another_table_is_refused(stage: Callable[..., Any]) -> None:
    """The audit names a part that does not fit instead of failing inside a measurement."""
    files = stage("r1")
    with pytest.raises(TilthError, match=r"00000\.parquet"):
        audit({"pairs": files["unpaired"]})


def test_large_feedback_is_compared_in_part(
    rows: Callable[[], Any], stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the limit, the signals of the conversations with the smallest ids are compared."""
    made = rows()
    for digit in "0123456789abde":
        made["conversations"].append({**made["conversations"][0], "id": digit * 32})
        made["feedback"].append(
            {**made["feedback"][1], "id": digit + "0" * 31, "conversation_id": digit * 32}
        )
    monkeypatch.setattr(import_module("tilth.catalog.audit"), "COMPARED_SIGNALS", 8)
    files = stage("r1", made)
    report = audit({name: files[name] for name in ("conversations", "feedback")}, tables=("feedback",))
    assert report.metrics["feedback"]["evidence_compared"] == 8
    assert report.metrics["feedback"]["evidence_not_in_message"] == 0


def claim(**kwargs: float) -> Expectation:
    kind = "expect_column_values_to_be_between"
    return Expectation(
        metric="m", type=kind, kwargs=dict(kwargs), severity="info", why="there is a reason for it"
    )


def test_verdicts_come_in_the_order_of_claims() -> None:
    """Each number is judged by its own expectation, bounds included; no number is no verdict."""
    claims = [
        (claim(max_value=0), 1),
        (claim(max_value=1), 1),
        (claim(min_value=2), None),
        (claim(min_value=2), 1),
    ]
    assert judge(claims) == [False, True, None, False]
    assert judge([(claim(max_value=0), None)]) == [None]


def test_a_claim_that_cannot_be_judged_is_an_error() -> None:
    """When Great Expectations fails to evaluate, the audit fails; it never counts as passed."""
    kind = "expect_column_values_to_be_between"
    with pytest.raises(TilthError, match=kind):
        judge([(claim(min_value=2, max_value=1), 1)])
