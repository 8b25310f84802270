"""What is published of a catalog, what forbids it, what the command tells, and where it is remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tilth.catalog import AuditReport, Catalog, Check, Release
from tilth.catalog.publishing import Choice, plan, publications
from tilth.flows.publish_cli import publish as command
from tilth.schemas import BadInput, ChecksFailed, ConfigError, NotFound

DAY = date(2026, 11, 21)
OPEN = {"tilth.licences": json.dumps({"cc-by-4.0": 2, "mit": 1})}


def report(*failed: str, severity: str = "critical") -> AuditReport:
    checks = [Check("pairs", name, "expect", "at most 0", 3, severity, False, "a reason") for name in failed]
    fine = Check("pairs", "rows", "expect", "at least 1", 1, "critical", True, "a reason")
    return AuditReport({}, (fine, *checks))


def commit(catalog: Catalog, files: dict[str, list[str]], run_id: str = "r1", **more: Any) -> None:
    """Makes a release whose audit is stored as it is, as a run does whose critical failures came to be known later."""
    audit = more.pop("audit", report())
    given: dict[str, Any] = {"properties": OPEN, **more}
    catalog.publish(Release("observed", run_id, files, date=DAY, audit=AuditReport({}, ()), **given))
    path = Path(catalog.resolve("observed.pairs").properties["tilth.audit_uri"])
    path.write_text(audit.to_json())


@pytest.mark.slow
def test_a_family_is_all_tables_but_two(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """Conversations go out only when named, quarantine never, tables without rows not at all."""
    files = stage("r1")
    commit(catalog, {**files, "rubrics": []})
    found = plan(catalog, "observed", Choice())
    assert [one.table for one in found.versions] == ["feedback", "pairs", "unpaired", "rationales"]
    assert (found.title, found.tag) == ("observed@2026.11.21.1", "observed-2026.11.21.1")
    named = plan(catalog, "observed", Choice(tables=("pairs", "conversations")))
    assert [one.table for one in named.versions] == ["conversations", "pairs"]
    with pytest.raises(BadInput, match="quarantine"):
        plan(catalog, "observed", Choice(tables=("quarantine",)))
    with pytest.raises(BadInput, match="not published"):
        plan(catalog, "observed.quarantine", Choice())
    with pytest.raises(BadInput, match="no rows"):
        plan(catalog, "observed.rubrics", Choice())


@pytest.mark.slow
def test_versions_are_found_by_label_tag_and_date(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """`family@version`, `family.table@tag` and the latest; what came before stands beside; unknown names are named."""
    commit(catalog, stage("r1", {"pairs": [{"id": "1" * 32}]}))
    commit(catalog, stage("r2", {"pairs": [{"id": "2" * 32}]}), "r2")
    catalog.tag("observed", "2026.11.21.1", "golden")
    assert plan(catalog, "observed", Choice()).label == "2026.11.21.2"
    assert plan(catalog, "observed@2026.11.21.1", Choice()).label == "2026.11.21.1"
    assert plan(catalog, "observed@golden", Choice()).label == "2026.11.21.1"
    one = plan(catalog, "observed.pairs@golden", Choice())
    assert (one.title, one.tag) == ("observed.pairs@2026.11.21.1", "observed.pairs-2026.11.21.1")
    assert [v.version for v in plan(catalog, "observed", Choice()).earlier["pairs"]] == ["2026.11.21.1"]
    for unknown in ("observe", "observed@2020.01.01.1", "observed.pairs@2020.01.01.1"):
        with pytest.raises(NotFound, match="observed"):
            plan(catalog, unknown, Choice())


@pytest.mark.slow
def test_a_red_audit_forbids(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """A critical failure in the stored audit refuses, by its name; it can be allowed; a warning does not refuse."""
    commit(catalog, stage("r1"), audit=report("prompts_in_two_splits"))
    [refused] = plan(catalog, "observed", Choice()).refusals()
    assert isinstance(refused, ChecksFailed)
    assert "pairs: prompts_in_two_splits is 3" in str(refused)
    assert "--allow-failed prompts_in_two_splits" in str(refused)
    assert plan(catalog, "observed", Choice(allow_failed=("prompts_in_two_splits",))).refusals() == []
    assert plan(catalog, "observed.unpaired", Choice()).refusals() == []
    commit(catalog, stage("r2"), "r2", audit=report("chosen_longer_share", severity="warning"))
    assert plan(catalog, "observed", Choice()).refusals() == []


@pytest.mark.slow
def test_a_version_without_an_audit_is_audited(catalog: Catalog, stage: Callable[..., Any]) -> None:
    """No stored audit is no green audit: the checks are run over the rows."""
    rows = {"pairs": [{"id": "1" * 32, "split": "train", "margin": -1.0}]}
    catalog.publish(Release("observed", "r1", stage("r1", rows), OPEN, date=DAY))
    [refused] = plan(catalog, "observed.pairs", Choice()).refusals()
    assert "pairs: prompt_empty is 1" in str(refused)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("licences", "choice", "named"),
    [
        ({"cc-by-4.0": 1, "mit": 1}, Choice(), None),
        ({"cc-by-4.0": 1, "cc-by-nd-4.0": 2}, Choice(private=True), "cc-by-nd-4.0 forbids"),
        ({"cc-by-sa-4.0": 1, "odbl": 2}, Choice(), "each ask for themselves"),
        ({"mit": 1, "undeclared": 2}, Choice(), "declare it with --licence"),
        ({"mit": 1, "undeclared": 2}, Choice(private=True), None),
        ({"mit": 1, "undeclared": 2}, Choice(licence="CC-BY-4.0"), None),
        ({"internal": 2}, Choice(), "publish with --private"),
        ({"internal": 2}, Choice(private=True), None),
        (None, Choice(), "undeclared"),
    ],
)
def test_licences_of_sources_decide(
    catalog: Catalog,
    stage: Callable[..., Any],
    licences: dict[str, int] | None,
    choice: Choice,
    named: str | None,
) -> None:
    """What a source forbids is refused; what is not declared, or internal, goes only where one's own people read."""
    properties = {"tilth.licences": json.dumps(licences)} if licences else {}
    commit(catalog, stage("r1", {"pairs": [{"id": "1" * 32}]}), properties=properties)
    refusals = plan(catalog, "observed", choice).refusals()
    assert [isinstance(error, ConfigError) for error in refusals] == ([True] if named else [])
    assert named is None or named in str(refusals[0])


def run(catalog: Catalog, *arguments: str) -> Any:
    app = typer.Typer()
    app.command()(command)
    workspace = catalog.staging("observed", "pairs", "r").partition("/catalog/")[0]
    return CliRunner().invoke(app, [*arguments, "--workspace", workspace])


@pytest.mark.slow
def test_the_command_publishes_and_remembers(
    catalog: Catalog, stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run writes and contacts nothing and tells what forbids; a publication is told, and remembered once."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    commit(catalog, stage("r1"), audit=report("prompts_in_two_splits"))
    dry = run(catalog, "observed", "--repo", "org/garden", "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert (dry.exit_code, told["status"], told["licence"]) == (0, "would be published", "cc-by-4.0")
    assert [config["config"] for config in told["configs"]] == ["feedback", "pairs", "unpaired", "rationales"]
    assert "the audit of observed@2026.11.21.1 is not green" in told["refusals"][0]
    assert 'load_dataset("org/garden", "pairs", revision="observed-2026.11.21.1")' in told["card"]
    refused = run(catalog, "observed", "--to", str(tmp_path / "out"))
    assert isinstance(refused.exception, ChecksFailed)
    assert not (tmp_path / "out").exists()

    allowed = ["--tables", "pairs,unpaired", "--allow-failed", "prompts_in_two_splits"]
    done = [
        json.loads(run(catalog, "observed", "--to", str(tmp_path / "out"), *allowed, "--json").stdout)
        for _ in "12"
    ]
    assert [one["status"] for one in done] == ["published", "already published"]
    [remembered] = publications(catalog, "observed.pairs")
    assert (remembered.target, remembered.tables) == (str(tmp_path / "out"), {"pairs": 1, "unpaired": 2})
    assert publications(catalog, "observed.feedback") == []
    catalog.rename("observed", "seen")
    assert publications(catalog, "seen.pairs") == [remembered]
    catalog.rename("seen", "observed")
    shown = run(catalog, "observed", "--to", str(tmp_path / "out"), *allowed)
    assert "already published" in shown.stdout
    assert "to undo: remove the folder" in shown.stdout
    assert run(catalog, "observed").exit_code == 2
