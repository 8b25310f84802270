"""`tilth report`. Light: `tilth --help` loads it."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of


def report(
    name: Annotated[str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="An .html file; named after the dataset by default."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", min=0, max=200, help="Show so many rows with their text; none by default."),
    ] = 0,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Write what is known of a dataset as one HTML file: no network, no script, nothing beside it.

    Counts, distributions, labels, judges, checks, drift, lineage. Text of conversations is in it only with --samples.

        tilth report observed.pairs
        tilth report observed.pairs@2026.11.21.1 -o pairs.html --samples 10
    """  # fmt: skip
    from tilth.flows.report import report as write

    told = write(workspace_of(workspace), name, output, samples)
    if as_json:
        print_json(told)
    else:
        typer.echo(f"{told['dataset']}@{told['version']}: {told['rows']:,} rows, report in {told['output']}")
