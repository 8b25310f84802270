"""`tilth doctor`. Light: everything else is loaded when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Config, Json, Workspace, print_json


def doctor(
    sources: Annotated[
        bool, typer.Option("--sources", help="Also see whether every source can be reached; may take long.")
    ] = False,
    config: Config = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Look at everything a run needs: packages, settings, schedules, server, catalog, disk; say what to do.

    Changes nothing. Exits with 1 when something has failed; warnings are no failure.

        tilth doctor
        tilth doctor --sources --json
    """
    from dataclasses import asdict

    from tilth.flows.doctor import Status, examine, print_findings

    findings = examine(config, workspace, sources=sources)
    print_json([asdict(one) for one in findings]) if as_json else print_findings(findings)
    if any(one.status is Status.failed for one in findings):
        raise typer.Exit(1)
