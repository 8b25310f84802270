"""`tilth catalog`: the commands that look. Light: everything else is loaded when one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of

if TYPE_CHECKING:
    from tilth.flows.query_output import Form

catalog_app = typer.Typer(no_args_is_help=True, help="See and query the datasets that runs have committed.")

Dataset = Annotated[
    str, typer.Argument(help="A dataset: observed.pairs, observed.pairs@2026.11.21.1, observed.pairs@golden.")
]


@catalog_app.command("ls")
def list_datasets(
    every: Annotated[bool, typer.Option("--all", "-a", help="Every version, not only the latest.")] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """List the datasets of the workspace: version, rows, when it was made, tags.

        tilth catalog ls
        tilth catalog ls --all --json
    """  # fmt: skip
    from tilth.flows.show import dataset_rows, print_datasets

    rows = dataset_rows(workspace_of(workspace), every)
    print_json(rows) if as_json else print_datasets(rows)


@catalog_app.command()
def show(name: Dataset, workspace: Workspace = None, as_json: Json = False) -> None:
    """Show a dataset: columns, versions, tags, what it was made from, licences, what its checks said.

        tilth catalog show observed.pairs
        tilth catalog show observed.pairs@golden --json
    """  # fmt: skip
    from tilth.flows.show import describe, print_description

    description = describe(workspace_of(workspace), name)
    print_json(description) if as_json else print_description(description)


@catalog_app.command()
def head(
    name: Dataset,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows.")] = 5,
    chat: Annotated[
        bool, typer.Option("--chat", help="As chats: of a pair, both replies side by side.")
    ] = False,
    split: Annotated[
        str | None, typer.Option("--split", help="Only these rows: train, validation or test.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option("--origin", help="Only pairs of this origin: observed_recovery.")
    ] = None,
    sample: Annotated[
        int | None, typer.Option("--sample", help="Not the first rows: some that this seed draws.")
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show rows of a dataset.

        tilth catalog head observed.pairs --chat
        tilth catalog head observed.pairs@golden -n 20 --sample 7 --origin observed_recovery --chat
    """  # fmt: skip
    from tilth.flows.catalog_show import Look, looked_at, print_chats
    from tilth.flows.show import print_records

    place = workspace_of(workspace)
    records = looked_at(place, Look(name, rows, split, origin, sample))
    if as_json:
        print_json(records)
    elif chat:
        print_chats(place, name, records)
    else:
        print_records(records)


@catalog_app.command()
def query(
    sql: Annotated[str, typer.Argument(help="SQL over datasets: select count(*) from observed.pairs")],
    form: Annotated[
        str | None, typer.Option("--format", "-f", help="table, json, csv or parquet; by the file's name.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .parquet, .csv or .json, written whole or not at all."),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option("--max-rows", min=0, help="At most so many rows; a table shows 100 by default."),
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Ask the catalog in SQL (DuckDB's); read-only, and nothing but the catalog can be read.

    Every dataset is there at every version and tag; those stand in double quotes. Results are streamed.

        tilth catalog query "select origin, count(*) from observed.pairs group by 1"
        tilth catalog query 'select count(*) from "observed.pairs@2026.11.21.1"'
        tilth catalog query 'from "observed.pairs@golden"' -o golden.parquet
    """  # fmt: skip
    from tilth.flows.query_output import Form, run_query

    asked = None if form is None else _form(form)
    run_query(workspace_of(workspace), sql, Form.json if as_json else asked, output, most)


def _form(name: str) -> Form:
    from tilth.flows.query_output import Form

    if name not in set(Form):
        raise typer.BadParameter(f"--format is one of {', '.join(Form)}")
    return Form(name)


@catalog_app.command()
def log(
    name: Dataset,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="A metric of the audits to follow; may be given many times."),
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show the versions of a dataset, newest first: rows, run, tags, what checks said, how metrics went.

        tilth catalog log observed.pairs
        tilth catalog log observed.unpaired --metric labelled_true_share --metric held_out_share
    """  # fmt: skip
    from tilth.flows.catalog_show import logged, print_log

    entries = logged(workspace_of(workspace), name, metric or [])
    print_json(entries) if as_json else print_log(name, entries)


@catalog_app.command()
def diff(
    name: Annotated[
        str,
        typer.Argument(
            help="The older: observed.pairs@2026.11.21.1; without a version, that before the latest."
        ),
    ],
    other: Annotated[
        str | None, typer.Argument(help="The newer: such a name, or its version or tag. Default: the latest.")
    ] = None,
    shown: Annotated[int, typer.Option("--show", min=0, help="How many ids of each kind.")] = 5,
    chat: Annotated[bool, typer.Option("--chat", help="Those rows as chats.")] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="A .parquet of all rows that differ: ids, kind, columns."),
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two versions: rows added, removed, changed, and labels that became others.

    A row is relabelled when it says otherwise about the same thing: chosen and rejected in each other's place, a reply
    that was good and is bad, a signal of another polarity.

        tilth catalog diff observed.pairs
        tilth catalog diff observed.pairs@2026.11.20.1 2026.11.21.1 --show 3 --chat
        tilth catalog diff observed.pairs@golden -o changes.parquet
    """
    from tilth.flows.catalog_show import diff_values, differences, print_diff, print_diff_chats, write_diff

    place = workspace_of(workspace)
    found = differences(place, name, other)
    if output:
        write_diff(found, output)
    if as_json:
        print_json(diff_values(found, shown))
        return
    print_diff(found, 0 if chat else shown)
    if chat:
        print_diff_chats(place, found, shown)


@catalog_app.command()
def lineage(
    row: Annotated[str, typer.Argument(help="The id of a row, or its first characters, at least 8.")],
    within: Annotated[
        str | None, typer.Option("--in", help="The dataset that it is in: observed.pairs@2026.11.21.1.")
    ] = None,
    fan_out: Annotated[int, typer.Option("--fan-out", min=1, help="How many rows to follow from each.")] = 5,
    text: Annotated[bool, typer.Option("--text", help="Also what users said, word for word.")] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show what a row was made from, up to the turn of the user, and what was made of it.

        tilth catalog lineage edadec84
        tilth catalog lineage edadec84 --in observed.pairs@2026.11.21.1 --text
    """  # fmt: skip
    from tilth.catalog import open_catalog
    from tilth.catalog.lineage import lineage as trace
    from tilth.flows.catalog_show import print_lineage

    with open_catalog(workspace_of(workspace), create=False) as catalog:
        found = trace(catalog, row, within, fan_out=fan_out, text=text)
    print_json(found.to_dict()) if as_json else print_lineage(found)
