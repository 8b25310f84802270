"""Drift between versions, suites of a user, and results that are kept with the data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilth.catalog import Catalog, Release, Version, audit
from tilth.catalog.checks import check_version, checks_of, store_check
from tilth.catalog.drift import drift, psi
from tilth.catalog.judge import as_gx, judge
from tilth.flows.check import fails
from tilth.schemas import BadInput, ConfigError
from tilth.schemas.expectations import DriftRule, load_suite

COUNTS = st.lists(st.integers(0, 50), min_size=3, max_size=3)
DAY = date(2026, 11, 21)


def rule(metric: str, **bound: Any) -> DriftRule:
    return DriftRule(metric=metric, severity="warning", why="there is a reason for it", **bound)


def success(one: DriftRule, now: dict[str, Any], before: dict[str, Any]) -> bool | None:
    return drift("pairs", now, before, [one])[0].success


@pytest.mark.parametrize(
    ("one", "now", "before", "holds"),
    [
        (rule("rows", max_loss=0.5), {"rows": 50}, {"rows": 100}, True),
        (rule("rows", max_loss=0.5), {"rows": 49}, {"rows": 100}, False),
        (rule("rows", max_loss=0.5), {"rows": 900}, {"rows": 100}, True),
        (rule("turns_mean", max_relative=0.5), {"turns_mean": 5.9}, {"turns_mean": 4.0}, True),
        (rule("turns_mean", max_relative=0.5), {"turns_mean": 6.1}, {"turns_mean": 4.0}, False),
        (rule("turns_mean", max_relative=0.5), {"turns_mean": 6.1}, {"turns_mean": 0.0}, None),
        (
            rule("x_share", max_absolute=0.1),
            {"x_share": 0.7, "rows": 9999},
            {"x_share": 0.5, "rows": 9999},
            False,
        ),
        (rule("x_share", max_absolute=0.1), {"x_share": 0.7, "rows": 20}, {"x_share": 0.5, "rows": 20}, True),
        (rule("x_share", max_absolute=0.1), {"x_share": 0.7}, {}, None),
        (rule("h", max_psi=0.25), {"h=a": 900, "h=b": 100}, {"h=a": 500, "h=b": 500}, False),
        (rule("h", max_psi=0.25), {"h=a": 550, "h=b": 450}, {"h=a": 500, "h=b": 500}, True),
        (rule("h", max_psi=0.25), {"h=a": 9, "h=b": 1}, {"h=a": 5, "h=b": 5}, True),
        (rule("h", max_psi=0.25), {"h=a": 9}, {}, None),
    ],
)
def test_rules_hold_or_not(
    one: DriftRule, now: dict[str, Any], before: dict[str, Any], holds: bool | None
) -> None:
    """Each kind of bound at and beyond its border; few rows are allowed what chance gives; what is missing is open."""
    assert success(one, now, before) is holds


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS)
def test_the_index_is_symmetric_and_zero_for_equals(now: list[int], before: list[int]) -> None:
    """What does not move is 0, it never falls below, and turning time round changes nothing."""
    one, other = psi(now, before)[0], psi(before, now)[0]
    assert one == other
    assert (one is None) == (not sum(now) or not sum(before))
    assert one is None or one >= 0
    assert psi(now, now)[0] in (None, 0)


def test_chance_alone_seldom_passes_for_drift() -> None:
    """Of samples from one distribution about one in a hundred is beyond what chance is allowed."""
    import numpy as np

    drawn = np.random.default_rng(7).multinomial(200, [0.5, 0.3, 0.15, 0.05], size=(400, 2))
    beyond = sum((found or 0) > chance for found, chance in (psi(list(a), list(b)) for a, b in drawn))
    assert beyond <= 12


def test_a_rule_has_one_bound() -> None:
    """None, or two, is an error."""
    for bounds in ({}, {"max_absolute": 0.1, "max_psi": 0.1}):
        with pytest.raises(ValueError, match="exactly one"):
            rule("rows", **bounds)


def suite_in(folder: Path, text: str, table: str = "pairs") -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{table}.yaml").write_text(text, encoding="utf-8")
    return str(folder)


ENTRY = "why: because this team says so"


def test_an_own_entry_replaces_ours(tmp_path: Path) -> None:
    """A warning may be loosened and a critical bound tightened; all else stays as it was."""
    own = suite_in(
        tmp_path,
        f"expectations:\n  - {{metric: alike_share, kwargs: {{max_value: 0.5}}, severity: info, {ENTRY}}}\n"
        f"drift:\n  - {{metric: rows, max_relative: 0.1, severity: critical, {ENTRY}}}\n",
    )
    ours, joined = load_suite("pairs"), load_suite("pairs", own)
    (alike,) = [claim for claim in joined.expectations if claim.metric == "alike_share"]
    assert (alike.severity, alike.kwargs) == ("info", {"max_value": 0.5})
    assert len(joined.expectations) == len(ours.expectations)
    assert [(one.kind, one.severity) for one in joined.drift if one.metric == "rows"] == [
        ("relative", "critical")
    ]
    assert load_suite("feedback", own) == load_suite("feedback")
    assert load_suite("pairs", str(tmp_path / "nowhere")) == ours


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "expectations:\n  - {metric: alike_shar, kwargs: {max_value: 1}, severity: info, WHY}",
            "alike_share",
        ),
        (
            "expectations:\n  - {metric: id_malformed, kwargs: {max_value: 9}, severity: critical, WHY}",
            "less room",
        ),
        (
            "expectations:\n  - {metric: id_malformed, kwargs: {max_value: 0}, severity: warning, WHY}",
            "critical",
        ),
        ("expectations:\n  - {metric: id_malformed, kwargs: {}, severity: critical, WHY}", "id_malformed"),
        (
            "expectations:\n  - {metric: alike_share, kwargs: {max_value: 1}, severity: grave, WHY}",
            "severity",
        ),
        (
            "expectations:\n"
            + "  - {metric: alike_share, kwargs: {max_value: 1}, severity: info, WHY}\n" * 2,
            "two",
        ),
        ("drift:\n  - {metric: margin, max_psi: 1, severity: info, WHY}", "no such metric"),
        ("metrics: {rows: select 1}", "metrics.rows"),
        ("table: feedback", "feedback"),
        ("expectations: [", "no YAML"),
        ("- 1", "the file"),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """The error names the file and the entry, and says what is wrong; no critical check can be made weaker."""
    own = suite_in(tmp_path, text.replace("WHY", ENTRY))
    with pytest.raises(ConfigError, match=told) as caught:
        load_suite("pairs", own)
    assert "pairs.yaml" in str(caught.value)


def test_a_suite_of_no_table_is_refused(tmp_path: Path) -> None:
    """A file with a misspelt name would never be read."""
    with pytest.raises(ConfigError, match="perhaps pairs"):
        load_suite("feedback", suite_in(tmp_path, "", table="pair"))


OWN = (
    "metrics:\n  long_prompts: select count(*) from rows where len(prompt) > 5\n"
    "  margin_mean: select avg(margin) from rows\n"
    f"expectations:\n  - {{metric: margin_mean, kwargs: {{min_value: 9}}, severity: critical, {ENTRY}}}\n"
    f"drift:\n  - {{metric: margin_mean, max_absolute: 0.1, severity: warning, {ENTRY}}}\n"
)


def test_own_metrics_are_asked_in_sql(tmp_path: Path, stage: Callable[..., Any]) -> None:
    """A number of one's own is measured over the parts, judged with the others, and blocks when it says so."""
    report = audit(stage("r1"), tables=("pairs",), suites=suite_in(tmp_path / "own", OWN))
    assert (report.metrics["pairs"]["margin_mean"], report.metrics["pairs"]["long_prompts"]) == (1.8, 0)
    assert [check.column for check in report.failed_critical] == ["margin_mean"]


@pytest.mark.parametrize(
    "sql",
    [
        "select id from rows",
        "select count(*), 1 from rows",
        "select 1 where false",
        "select count(*) from read_csv('/etc/passwd')",
        "drop view rows",
        "select cast(id as int) from rows",
    ],
)
def test_own_metrics_stay_in_their_box(tmp_path: Path, stage: Callable[..., Any], sql: str) -> None:
    """Anything but one number from the rows is an error that names file and entry and holds no value of a row."""
    own = suite_in(tmp_path / "own", f'metrics: {{mine: "{sql}"}}')
    with pytest.raises(ConfigError, match=r"pairs\.yaml, entry metrics\.mine") as caught:
        audit(stage("r1"), tables=("pairs",), suites=own)
    assert "1111" not in str(caught.value)


@pytest.mark.slow
def test_a_suite_is_one_of_great_expectations(stage: Callable[..., Any]) -> None:
    """The JSON is loaded by Great Expectations itself, which judges a row of metrics as we do."""
    assert judge([(load_suite("pairs").expectations[1], 1)]) == [False]  # also imports it, with its warnings
    import great_expectations as gx
    import pandas as pd

    report = audit(stage("r1"), tables=("pairs",))
    suite = gx.ExpectationSuite(**json.loads(json.dumps(as_gx(load_suite("pairs")))))
    assert len(suite.expectations) == len(report.checks)
    context = gx.get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("stage").add_dataframe_asset("metrics")
    row = {
        name: [math.nan if value is None else float(value)] for name, value in report.metrics["pairs"].items()
    }
    missing = {check.column: [math.nan] for check in report.checks if check.observed is None}
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
        {"dataframe": pd.DataFrame(row | missing)}
    )
    configs = [one.expectation_config for one in batch.validate(suite).results if not one.success]
    assert {one.kwargs["column"] for one in configs if one} == {one.column for one in report.failed}


@pytest.fixture
def two_versions(catalog: Catalog, stage: Callable[..., Any], rows: Callable[[], Any]) -> Catalog:
    """Two versions: in the first six labels, in the second two."""
    many = rows()
    first = many["unpaired"][0]
    many["unpaired"] = [{**first, "id": f"{n:032x}", "prompt_id": f"{n:032x}"} for n in range(6)]
    for run, made in (("r1", many), ("r2", rows())):
        files = stage(run, {name: made[name] for name in ("conversations", "feedback", "pairs", "unpaired")})
        report = audit(files, tables=("unpaired",))
        catalog.publish(Release("observed", run, files, audit=report, date=DAY))
    return catalog


@pytest.mark.slow
def test_a_version_is_compared_with_the_one_before(two_versions: Catalog) -> None:
    """Lost rows are told; the first version has none before it; another one can be named, of the same table."""
    report = check_version(two_versions, "observed.unpaired")
    assert report["against"] == "observed.unpaired@2026.11.21.1"
    moved = {one["metric"]: one for one in report["drift"]}
    assert (moved["rows"]["before"], moved["rows"]["now"], moved["rows"]["success"]) == (6, 2, False)
    assert moved["labelled_true_share"]["success"] is True
    alone = check_version(two_versions, "observed.unpaired@2026.11.21.1")
    assert (alone["against"], alone["drift"]) == (None, [])
    again = check_version(two_versions, "observed.unpaired", "observed.unpaired@2026.11.21.2")
    assert all(one["success"] is not False for one in again["drift"])
    with pytest.raises(BadInput, match="unpaired"):
        check_version(two_versions, "observed.unpaired", "observed.pairs")


@pytest.mark.slow
def test_metrics_that_no_audit_has_are_measured_anew(
    two_versions: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule about a new metric applies to an older version; a lost audit is measured again, with the same outcome."""
    own = suite_in(
        tmp_path / "own",
        "metrics: {weight_mean: select avg(weight) from rows}\n"
        f"drift:\n  - {{metric: weight_mean, max_absolute: 0.1, severity: warning, {ENTRY}}}\n",
        "unpaired",
    )
    report = check_version(two_versions, "observed.unpaired", suites=own)
    (mean,) = [one for one in report["drift"] if one["metric"] == "weight_mean"]
    assert (mean["before"], mean["now"], mean["success"]) == (pytest.approx(0.9), pytest.approx(0.9), True)
    monkeypatch.setattr(Version, "metrics", _no_audit)
    assert check_version(two_versions, "observed.unpaired", suites=own)["drift"] == report["drift"]


def _no_audit(version: object) -> dict[str, float]:
    return {}


@pytest.mark.slow
def test_results_are_kept_with_the_data(two_versions: Catalog) -> None:
    """What was stored comes back, newest first, for a dataset or one version of it, and holds no text of a row."""
    assert checks_of(two_versions, "observed.unpaired") == []
    labels = ["observed.unpaired@2026.11.21.1", "observed.unpaired", "observed.pairs"]
    reports = [check_version(two_versions, name) for name in labels]
    uris = [store_check(two_versions, report) for report in reports]
    assert "/observed/checks/unpaired@2026.11.21.2/" in uris[1]
    assert checks_of(two_versions, "observed.unpaired") == [reports[1], reports[0]]
    assert checks_of(two_versions, "observed.unpaired@2026.11.21.1") == [reports[0]]
    assert "roof" not in json.dumps(reports)


@pytest.mark.parametrize(
    ("severity", "strict", "failing"),
    [("critical", False, True), ("warning", False, False), ("warning", True, True), ("info", True, False)],
)
def test_what_fails_a_check(severity: str, strict: bool, failing: bool) -> None:
    """Critical failures do, of drift too; warnings where they are asked to; notes never, and no open check."""
    one, opened = {"success": False, "severity": severity}, {"success": None, "severity": "critical"}
    assert fails({"checks": [opened], "drift": [one]}, strict=strict) is failing
    assert fails({"checks": [one, opened], "drift": []}, strict=strict) is failing
