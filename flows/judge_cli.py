"""`tilth judge`: commands. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of

judge_app = typer.Typer(no_args_is_help=True, help="See how far judges can be trusted.")


class Rule(StrEnum):
    """How the two orders become one verdict."""

    both_orders = "both_orders"
    mean = "mean"


class VerdictOf(StrEnum):
    """Whose verdict a table holds."""

    canonical = "canonical"
    shown = "shown"


@judge_app.callback()
def judges() -> None:
    """See how far judges can be trusted."""


@judge_app.command("report")
def report_on_judges(
    dataset: Annotated[
        str, typer.Argument(help="Judgments of the catalog, as wildfeedback.judgments; or --verdicts.")
    ] = "",
    verdicts: Annotated[
        str, typer.Option("--verdicts", help="A table of verdicts in both orders: .parquet, .jsonl or .csv.")
    ] = "",
    gold: Annotated[
        str,
        typer.Option(
            "--gold", help="What people said: a table with item_id and gold (win, loss or tie of a)."
        ),
    ] = "",
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="What the table calls a column: --map item_id=question_id; may be repeated."
        ),
    ] = None,
    verdict_of: Annotated[
        VerdictOf,
        typer.Option(
            "--verdict-of", help="Whether verdicts name reply a or b (canonical) or the place (shown)."
        ),
    ] = VerdictOf.canonical,
    rule: Annotated[
        Rule | None, typer.Option("--rule", help="A side wins in both orders, or by its mean score.")
    ] = None,
    tie_margin: Annotated[
        float | None,
        typer.Option("--tie-margin", min=0, help="Mean scores that differ by no more are a tie."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="The whole panel and its weights: large=2,small=1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Draws random orders and folds.")] = 0,
    plot: Annotated[
        str | None, typer.Option("--plot", help="A picture to write: .png, .svg or .pdf.")
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Report on judges: verdicts, position and length bias, noise, agreement with people and with each other.

    Every share has its 95 % interval; what cannot be known from the votes is blank. Columns and formulas:
    docs/reference/verdicts.md.

        tilth judge report wildfeedback.judgments --plot judges.png
        tilth judge report wildfeedback.judgments --gold review.gold.jsonl --rule mean --tie-margin 0.5
        tilth judge report --verdicts votes.csv --verdict-of shown --weights large=2,small=1 --json
        tilth judge report --verdicts labels.csv --map human=HumanJudgement --map judges=GPT-4,Contains
    """
    from tilth.flows.judge import Asked, judge_report, print_judge_report

    if plot:
        from tilth.flows.judge_plot import check_form

        check_form(plot)
    asked = Asked(
        dataset=dataset,
        verdicts=verdicts,
        gold=gold,
        columns=tuple(columns or ()),
        verdict_of=verdict_of.value,
        rule=rule.value if rule else None,
        tie_margin=tie_margin,
        weights=weights,
        seed=seed,
    )
    found = judge_report(asked, workspace_of(workspace) if dataset else "")
    print_json(found) if as_json else print_judge_report(found)
    if plot:
        from tilth.flows.judge_plot import plot_report

        plot_report(found, plot)
