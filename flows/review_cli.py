"""`tilth review`: commands. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of

review_app = typer.Typer(
    no_args_is_help=True,
    help="Let people look at what judges are least sure of, and take their verdicts back.",
)


@review_app.command("export")
def export_items(
    dataset: Annotated[
        str, typer.Argument(help="A dataset that judges had a part in, as wildfeedback.pairs.")
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The file to write: .jsonl, .csv or .json (Argilla).")
    ],
    share: Annotated[float, typer.Option("--share", min=0, max=1, help="How much of what was judged.")] = 0.2,
    count: Annotated[
        int | None, typer.Option("--n", "-n", min=1, help="How many items, instead of a share.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl, csv or argilla; else the file's name says.")
    ] = "",
    show_judges: Annotated[bool, typer.Option("--show-judges", help="Show people how judges voted.")] = False,
    decided: Annotated[
        bool, typer.Option("--decided", help="Only what judges decided: pairs are made of these.")
    ] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Write the pairs of replies that judges are least sure of, for people to compare.

    Fill in the column `verdict` (a, b, tie, or skip) and, where several people take part, `annotator`. Nothing in the
    file tells which reply judges preferred.

        tilth review export wildfeedback.pairs -o review.csv
        tilth review export wildfeedback.pairs -n 50 --format argilla -o records.json
    """
    from tilth.flows.review import Export, export, print_export

    asked = Export(dataset, output, share, count, form, show_judges, decided)
    told = export(workspace_of(workspace), asked)
    print_json(told) if as_json else print_export(told)


@review_app.command("import")
def import_verdicts(
    files: Annotated[list[str], typer.Argument(help="Filled-in files of one export.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset they were exported from.")],
    output: Annotated[
        str, typer.Option("--output", "-o", help="The gold verdicts: .jsonl or .parquet (FILE.gold.jsonl).")
    ] = "",
    apply: Annotated[
        bool, typer.Option("--apply", help="Say which pairs people turned down. Publishes nothing.")
    ] = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Publish the next version without them; they go to quarantine.")
    ] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Read people's verdicts back: a gold file for `tilth judge report`, and if you like the next version of the pairs.

        tilth review import review.csv --dataset wildfeedback.pairs
        tilth judge report wildfeedback.judgments --gold review.gold.jsonl
        tilth review import review.csv -d wildfeedback.pairs --apply
        tilth review import review.csv -d wildfeedback.pairs --commit
    """  # fmt: skip
    from tilth.flows.review import Import, print_import, take_in

    told = take_in(workspace_of(workspace), Import(files, dataset, output, apply, commit))
    print_json(told) if as_json else print_import(told)
