"""`tilth rubrics`: commands. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tilth.flows.options import Json, print_json

rubrics_app = typer.Typer(no_args_is_help=True, help="Score replies by rubrics, and check texts by programs.")


class RuleName(StrEnum):
    """How met criteria become a score; the formulas are in docs/reference/rubrics.md."""

    healthbench = "healthbench"
    weighted = "weighted"
    normalised = "normalised"
    orbit = "orbit"


@rubrics_app.callback()
def rubrics() -> None:
    """Score replies by rubrics, and check texts by programs."""


@rubrics_app.command("score")
def score_verdicts(
    rubrics: Annotated[
        str,
        typer.Option(
            "--rubrics",
            help="Rubrics: .jsonl or .parquet, as Tilth, HealthBench, RaR or RubricHub write them.",
        ),
    ],
    verdicts: Annotated[
        str,
        typer.Option(
            "--verdicts",
            help="Verdicts: .jsonl, .parquet or .csv; not needed where they stand beside the rubrics.",
        ),
    ] = "",
    rule: Annotated[
        RuleName, typer.Option("--rule", help="How met criteria become a score.")
    ] = RuleName.healthbench,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Score what was graded; else a reply with a missing verdict has no score."
        ),
    ] = False,
    tags: Annotated[bool, typer.Option("--tags", help="Score tags too.")] = False,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Write the score of each reply: .jsonl or .parquet.")
    ] = "",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Draws the resamples of the bootstrap error.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Score recorded verdicts by their rubrics. Asks no model.

    A verdict is a row with prompt_id, criterion (its id, its place from 0, or its text) and met (true or false);
    response_id and judge where there are several. Most judges decide. With weights w, and b = 1 for what is met:

        healthbench  sum(w b) / sum of the positive w; a mistake has a negative w
        weighted     sum(w b) / sum(w), where avoiding a mistake counts as a virtue (Rubrics as Rewards)
        normalised   sum(w b) / sum(|w|) (open-instruct)
        orbit        sum(w b)

    Forms of files and all formulas: docs/reference/rubrics.md.

        tilth rubrics score --rubrics healthbench.jsonl --verdicts verdicts.jsonl --tags
        tilth rubrics score --rubrics graded.jsonl --rule weighted -o scores.parquet
    """
    from tilth.flows.rubrics import Scoring, print_scores, score

    asked = Scoring(rubrics, verdicts, rule.value, partial=partial, tags=tags, output=output, seed=seed)
    found = score(asked)
    print_json(found) if as_json else print_scores(found)


@rubrics_app.command("verifiers")
def list_verifiers(as_json: Json = False) -> None:
    """List the programs that can check a criterion, with the form of their values.

    tilth rubrics verifiers
    """
    from tilth.flows.rubrics import print_verifiers
    from tilth.transforms.rubrics.verifiers import library

    print_json(library()) if as_json else print_verifiers(library())


@rubrics_app.command("check")
def check_text(
    program: Annotated[
        str, typer.Option("--program", help="NAME=VALUE, as max_words=100, or the program's JSON.")
    ],
    file: Annotated[str, typer.Argument(help="The text; - for standard input.")],
    as_json: Json = False,
) -> None:
    """Say whether a text passes a program: exit code 0 where it does, 1 where it does not, or cannot be told.

    tilth rubrics check --program max_words=100 reply.txt
    """
    from tilth.flows.rubrics import check

    met = check(program, file)
    words = {True: "met", False: "not met", None: "cannot be told"}
    print_json({"met": met}) if as_json else typer.echo(words[met])
    raise typer.Exit(0 if met else 1)
