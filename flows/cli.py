"""The command line. Every command imports what it needs when it runs, so that `tilth --help` is instant."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any  # Any: rows and results on their way to JSON

import typer

app = typer.Typer(
    name="tilth",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn conversation logs into alignment datasets that can be trusted.\n\n"
    "Start with [bold]tilth demo[/bold]; then [bold]tilth run observed --source my-logs.jsonl[/bold].\n\n"
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 data quality checks failed.",
)
sources_app = typer.Typer(no_args_is_help=True, help="Look at conversation logs before using them.")
catalog_app = typer.Typer(no_args_is_help=True, help="See and query the datasets that runs have committed.")
app.add_typer(sources_app, name="sources")
app.add_typer(catalog_app, name="catalog")

Workspace = Annotated[
    str | None, typer.Option("--workspace", "-w", help="Where runs and the catalog live (./tilth-workspace).")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Config = Annotated[
    str | None, typer.Option("--config", help="A settings file (tilth.yaml, if there is one).")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, as key=value: --set observed.pairs.min_rank_gap=2."),
]


class Recipe(StrEnum):
    """What `tilth run` can make."""

    observed = "observed"


@app.command()
def run(
    recipe: Annotated[
        Recipe, typer.Argument(help="`observed`: feedback, pairs, labels and rationales, no model.")
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", "-s", help="A file, glob, folder or any fsspec URI; may be given many times."
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--format", help="The shape of the sources; detected when not given.")
    ] = None,
    column_map: Annotated[
        str | None, typer.Option("--map", help="A YAML column map, for a shape that Tilth does not know.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
    workspace: Workspace = None,
    runner: Annotated[
        str | None, typer.Option("--runner", help="local, processes, dask, or the name of a Beam runner.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a recipe over conversation logs and commit what it makes to the catalog.

    The same command again does no work and makes no new version. A run that was killed goes on where it stopped.

        tilth run observed --source logs/*.jsonl
        tilth run observed --source hf://datasets/allenai/WildChat-1M --format wildchat
        tilth run observed --source calls.json --map calls.yaml --json
    """
    from tilth.flows.launch import launch

    options: dict[str, Any] = {"sources": source, "format": shape, "map": column_map, "workspace": workspace}
    if runner:
        options["runner"] = {"name": runner}
    result = launch(recipe.value, config, options, sets or [], quiet=as_json)
    if as_json:
        _print_json(result)
    else:
        from tilth.flows.show import print_result

        print_result(result, workspace)


@app.command()
def demo(workspace: Workspace = None, as_json: Json = False) -> None:
    """Run the main job on the sample logs that ship with Tilth, then look at what it made.

    Needs no key, no GPU, no model and no network.
    """
    from tilth.flows.demo import run_demo

    run_demo(workspace, as_json, _print_json)


@sources_app.command()
def inspect(
    uris: Annotated[list[str], typer.Argument(help="Files, globs, folders or any fsspec URI.")],
    shape: Annotated[str | None, typer.Option("--format", help="Read it as this shape.")] = None,
    column_map: Annotated[
        str | None, typer.Option("--map", help="Read it through this YAML column map.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what shape a source has, how sure that is, show three rows, and what would be set aside and why."""
    from tilth.flows.show import inspections, print_inspections

    found = inspections(uris, shape, column_map)
    if as_json:
        _print_json(found)
    else:
        print_inspections(found)


@catalog_app.command("ls")
def list_datasets(workspace: Workspace = None, as_json: Json = False) -> None:
    """List the datasets of the workspace with their latest version and rows."""
    from tilth.flows.show import dataset_rows, print_rows

    rows = dataset_rows(_workspace(workspace))
    _print_json(rows) if as_json else print_rows(
        rows, "no datasets yet: tilth demo makes some", hide=["snapshot_id"]
    )


@catalog_app.command()
def show(
    name: Annotated[str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show a dataset: columns, versions, what it was made from, what its checks said."""
    from tilth.flows.show import describe, print_description

    description = describe(_workspace(workspace), name)
    _print_json(description) if as_json else print_description(description)


@catalog_app.command()
def head(
    name: Annotated[str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")],
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows.")] = 5,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show the first rows of a dataset."""
    from tilth.flows.show import first_rows, print_records

    records = first_rows(_workspace(workspace), name, rows)
    _print_json(records) if as_json else print_records(records)


@catalog_app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over datasets: select count(*) from observed.pairs")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Ask the catalog in SQL (DuckDB's); read-only, and nothing but the catalog can be read.

        tilth catalog query "select origin, count(*) from observed.pairs group by 1"
        tilth catalog query 'select count(*) from "observed.pairs@2026.11.21.1"'
    """  # fmt: skip
    from tilth.flows.show import print_rows, query_rows

    rows = query_rows(_workspace(workspace), sql)
    _print_json(rows) if as_json else print_rows(rows, "no rows")


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Run a dataset's quality checks again and print every expectation with what was observed.

    Exits with 3 when a critical expectation fails.
    """
    from tilth.flows.show import print_report, recheck

    report = recheck(_workspace(workspace), name)
    _print_json(report) if as_json else print_report(report)
    if report["failed_critical"]:
        raise typer.Exit(3)


def _workspace(given: str | None) -> str:
    from tilth.flows.settings import load

    return load(options={"workspace": given}).workspace


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def _version(asked: bool) -> None:
    if asked:
        import tilth

        typer.echo(tilth.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Takes the options that stand before a command."""


def main() -> None:
    """The program `tilth`: errors of Tilth's own are printed without a traceback, with their exit code."""
    try:
        app()
    except Exception as error:
        from tilth.schemas import TilthError  # here, because it loads polars

        if not isinstance(error, TilthError):
            raise
        if "--json" in sys.argv:
            _print_json({"error": type(error).__name__, "message": str(error)})
        typer.secho(f"error: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
