"""`tilth evaluate`: the command. Light: everything else is loaded when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import (
    BaseUrls,
    Config,
    EngineName,
    Json,
    Judges,
    MaxCalls,
    MaxCost,
    MaxTokens,
    Model,
    RunnerName,
    Sets,
    Workspace,
    given_of,
    print_json,
)


def evaluate(
    dataset: Annotated[
        str, typer.Argument(help="An evaluation set in the catalog.")
    ] = "wildfeedback.evaluation",
    answers: Annotated[
        str, typer.Option("--answers", "-a", help="A table with id and completion: .parquet, .jsonl or .csv.")
    ] = "",
    policy: Annotated[
        str,
        typer.Option("--policy", help="Or the model that answers: a name at the engine, or in `engines`."),
    ] = "",
    against: Annotated[
        str, typer.Option("--against", help="A table of other answers. Default: the logged replies.")
    ] = "",
    against_model: Annotated[str, typer.Option("--against-model", help="Or the model that gives them.")] = "",
    no_checklist: Annotated[
        bool, typer.Option("--no-checklist", help="Do not show judges what the user wants.")
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score the items that have an answer.")
    ] = False,
    temperature: Annotated[float, typer.Option("--temperature", min=0, help="At which models answer.")] = 0.0,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A table with each item's verdict: .parquet or .jsonl.")
    ] = "",
    judge: Judges = None,
    engine: EngineName = None,
    model: Model = None,
    base_url: BaseUrls = None,
    config: Config = None,
    sets: Sets = None,
    workspace: Workspace = None,
    runner: RunnerName = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the calls. Asks nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Score a model's answers on the held-out evaluation set: judged in both orders, with each user's own checklist.

    A win against the logged replies says that judges prefer the answer to one its user was dissatisfied with. See
    docs/how-to/evaluate.md.

        tilth evaluate --answers mine.jsonl --judge LARGE --base-url http://localhost:8000/v1
        tilth evaluate --policy SMALL --judge LARGE --judge OTHER -o verdicts.parquet --base-url http://localhost:8000/v1
        tilth evaluate --answers mine.jsonl --against theirs.jsonl --judge LARGE --dry-run
    """
    from tilth.flows.conductor import Conductor
    from tilth.flows.evaluate import Errand, print_evaluation
    from tilth.flows.evaluate import evaluate as perform
    from tilth.flows.progress import Bars
    from tilth.flows.settings import load

    options = given_of(
        engine=given_of(kind=engine, model=model, base_urls=base_url),
        caps=given_of(max_calls=max_calls, max_tokens=max_tokens, max_cost=max_cost),
        runner=given_of(name=runner),
        workspace=workspace,
    )
    errand = Errand(
        dataset,
        answers,
        policy,
        against,
        against_model,
        tuple(judge or ()),
        not no_checklist,
        allow_missing,
        temperature,
        output,
        dry_run,
    )
    with Bars(enabled=not as_json) as bars:
        told = perform(load(config, options, sets or []), errand, Conductor(bars.update))
    print_json(told) if as_json else print_evaluation(told)
