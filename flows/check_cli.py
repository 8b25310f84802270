"""`tilth check`: the command. Light: everything else is loaded when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of


def check(
    name: Annotated[str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")],
    against: Annotated[
        str | None, typer.Option("--against", help="The version to compare with; by default the one before.")
    ] = None,
    suites: Annotated[
        str | None,
        typer.Option("--suites", help="A folder of suites of your own (WORKSPACE/expectations)."),
    ] = None,
    gx: Annotated[
        str | None, typer.Option("--gx", help="Also write the suite to this file, for Great Expectations.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 on warnings, too.")] = False,
    store: Annotated[bool, typer.Option("--store/--no-store", help="Keep the result with the data.")] = True,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Run a dataset's quality checks again, and compare it with the version before.

    Prints every expectation with what was observed, and how far metrics have moved. Exits with 3 when a critical check
    fails. Checks of your own go into WORKSPACE/expectations: see docs/how-to/checks.md.

        tilth check observed.pairs
        tilth check observed.pairs --against observed.pairs@2026.11.21.1 --strict
        tilth check observed.pairs --gx pairs.suite.json --no-store --json
    """  # fmt: skip
    from tilth.flows.check import check as run_checks
    from tilth.flows.check import fails, own_suites, print_report, write_gx

    home = workspace_of(workspace)
    report = run_checks(home, name, against, suites, store=store)
    if gx:
        write_gx(gx, report["dataset"].partition(".")[2], suites or own_suites(home))
    print_json(report) if as_json else print_report(report)
    if fails(report, strict=strict):
        raise typer.Exit(3)
