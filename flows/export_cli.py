"""`tilth export`. Light: `tilth --help` loads it."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of


def export(
    name: Annotated[
        str, typer.Argument(help="A dataset, as observed.pairs or observed.pairs@2026.11.21.1.")
    ] = "",
    format_name: Annotated[
        str, typer.Option("--format", "-f", help="What it is for; --list names them.")
    ] = "",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A .parquet or .jsonl, or a folder for one file a split; named after the dataset by default.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Only these rows: train, validation or test.")
    ] = None,
    list_formats: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Write a dataset in the columns that a trainer reads; say what was left out, and why.

        tilth export observed.pairs --format trl -o data/        # data/train.parquet and one for each other split
        tilth export observed.unpaired --format kto -o kto.parquet --split train
        tilth export rubrics.rubrics --format grpo-rubric -o rubrics.jsonl
        tilth export --list
    """  # fmt: skip
    from tilth.flows.export import export as write
    from tilth.flows.export import formats, print_export
    from tilth.flows.show import print_rows

    if list_formats:
        print_json(formats()) if as_json else print_rows(formats(), "none")
        return
    if not name or not format_name:
        raise typer.BadParameter("name a dataset and a --format; --list names the formats")
    told = write(workspace_of(workspace), name, format_name, output, split)
    print_json(told) if as_json else print_export(told)
