"""`tilth check`: a version's checks run again, compared with an earlier version, printed and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # Any: JSON values

from rich.console import Console
from rich.markup import escape

from tilth.flows.show import print_rows

Row = Mapping[str, Any]
_FAILED = {"critical": "FAILED", "warning": "warning", "info": "note"}


def check(
    workspace: str, name: str, against: str | None = None, suites: str | None = None, *, store: bool = True
) -> dict[str, Any]:
    """The report of `tilth.catalog.checks.check_version`, stored unless `store` is false.

    `suites` is a folder of a user's own; by default `expectations` of the workspace.
    """
    from tilth.catalog import open_catalog
    from tilth.catalog.checks import check_version, store_check

    with open_catalog(workspace, create=False) as catalog:
        report = check_version(catalog, name, against, suites or own_suites(workspace))
        if store:
            store_check(catalog, report)
    return report


def own_suites(workspace: str) -> str:
    """Where a workspace has suites of its own."""
    return f"{workspace.rstrip('/')}/expectations"


def write_gx(path: str, table: str, suites: str) -> None:
    """Writes the suite of a table as a JSON file that Great Expectations loads."""
    from tilth.catalog.judge import as_gx
    from tilth.schemas.expectations import load_suite

    text = json.dumps(as_gx(load_suite(table, suites)), indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def fails(report: Row, *, strict: bool) -> bool:
    """Whether a critical check failed, or, with `strict`, a warning."""
    grave = ("critical", "warning") if strict else ("critical",)
    return any(
        one["success"] is False and one["severity"] in grave for one in [*report["checks"], *report["drift"]]
    )


def print_report(report: Row) -> None:
    """Prints every expectation with what was observed, failures first, then drift, and the reasons of what failed."""
    console = Console(highlight=False)
    checks = [
        {
            "": _verdict(one),
            "check": one["column"],
            "observed": one["observed"],
            "wanted": one["wanted"],
            "severity": one["severity"],
        }
        for one in report["checks"]
    ]
    print_rows(checks, "no expectations", f"{report['dataset']}@{report['version']}")
    if report["against"]:
        print_rows([_moved(one) for one in report["drift"]], "no drift rules", f"against {report['against']}")
    for name, one in [(c["column"], c) for c in report["checks"]] + [
        (d["metric"], d) for d in report["drift"]
    ]:
        if one["success"] is False:
            console.print(f"{name} ({one['severity']}): {escape(one['why'])}")
    if fails(report, strict=False):
        console.print("[red]failed[/red]: a critical check failed")
    else:
        console.print("[green]passed[/green]: no critical check failed")


def _verdict(one: Row) -> str:
    return {True: "ok", False: _FAILED[one["severity"]], None: "skipped"}[one["success"]]


def _moved(one: Row) -> dict[str, Any]:
    return {
        "": _verdict(one),
        "drift": one["metric"],
        "before": one["before"],
        "now": one["now"],
        "change": one["change"],
        "allowed": f"{one['allowed']:.4g} ({one['kind']})",
        "severity": one["severity"],
    }
