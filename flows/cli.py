"""The command line. Every command imports what it needs when it runs, so that `tilth --help` is instant."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Any  # Any: options on their way to settings

import typer

from tilth.flows.catalog_cli import catalog_app
from tilth.flows.check_cli import check
from tilth.flows.doctor_cli import doctor
from tilth.flows.evaluate_cli import evaluate
from tilth.flows.export_cli import export
from tilth.flows.feedback_cli import feedback_app
from tilth.flows.forget_cli import forget
from tilth.flows.judge_cli import judge_app
from tilth.flows.manage_cli import collect, drop, init, rename, restore, rollback, tag, untag
from tilth.flows.options import (
    BaseUrls,
    Config,
    DryRun,
    EngineName,
    Json,
    Judges,
    MaxCalls,
    MaxCost,
    MaxTokens,
    Model,
    OfSources,
    Policies,
    RunnerName,
    Sets,
    Workspace,
    given_of,
    print_json,
)
from tilth.flows.publish_cli import publish
from tilth.flows.report_cli import report
from tilth.flows.review_cli import review_app
from tilth.flows.rubrics_cli import rubrics_app
from tilth.flows.schedule_cli import flow_app, schedule_app, up

app = typer.Typer(
    name="tilth",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Turn conversation logs into alignment datasets that can be trusted.\n\n"
    "Start with [bold]tilth demo[/bold]; then [bold]tilth run observed --source my-logs.jsonl[/bold].\n\n"
    "Then look ([bold]tilth catalog[/bold]), check, report, export, publish; [bold]tilth schedule[/bold] for nights."
    "\n\n"
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 data quality checks failed, 75 a cap was reached: run again.",
)
sources_app = typer.Typer(no_args_is_help=True, help="Look at conversation logs before using them.")
app.add_typer(sources_app, name="sources")
app.add_typer(catalog_app, name="catalog")
cache_app = typer.Typer(no_args_is_help=True, help="See and prune the answers that models have given.")
app.add_typer(cache_app, name="cache")
app.add_typer(feedback_app, name="feedback")
app.add_typer(judge_app, name="judge")
app.add_typer(review_app, name="review")
app.add_typer(rubrics_app, name="rubrics")
app.add_typer(schedule_app, name="schedule")
app.add_typer(flow_app, name="flow")


class Recipe(StrEnum):
    """What `tilth run` can make."""

    observed = "observed"
    wildfeedback = "wildfeedback"
    ultrafeedback = "ultrafeedback"
    rationales = "rationales"
    rubrics = "rubrics"
    orbit = "orbit"
    judge_training = "judge_training"


@app.command(cls=OfSources)
def run(
    recipe: Annotated[
        Recipe,
        typer.Argument(
            help="Over logs (--source): observed: feedback, pairs, labels, rationales and rubrics, no model. "
            "wildfeedback: pairs by replies of models, judged in both orders, and an evaluation set. "
            "ultrafeedback: several replies to logged prompts, rated aspect by aspect. "
            "Over a dataset (--from): rationales: why the chosen reply is better. "
            "rubrics: what a good reply must do. orbit: rubrics from a few that experts wrote. "
            "judge_training: right judgments over wrong ones."
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", "-s", help="A file, glob, folder or any fsspec URI; may be given many times."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--from", help="A dataset of the catalog, as observed.pairs or observed.pairs@2026.11.21.1."
        ),
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--format", help="The shape of the sources; detected when not given.")
    ] = None,
    column_map: Annotated[
        str | None, typer.Option("--map", help="A YAML column map, for a shape that Tilth does not know.")
    ] = None,
    incremental: Annotated[
        bool,
        typer.Option("--incremental", help="Read only files that runs over these sources have not read."),
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--licence", help="The licence of the sources, as cc-by-4.0 or proprietary.")
    ] = None,
    engine: EngineName = None,
    model: Model = None,
    base_url: BaseUrls = None,
    policy: Policies = None,
    judge: Judges = None,
    config: Config = None,
    sets: Sets = None,
    workspace: Workspace = None,
    runner: RunnerName = None,
    dry_run: DryRun = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    as_json: Json = False,
) -> None:
    """Run a recipe over conversation logs, or over a dataset, and commit what it makes to the catalog.

    The same command again does no work and makes no new version. A run that was killed goes on where it stopped.

        tilth run observed --source 'logs/*.jsonl'
        tilth run observed --source 'logs/*.jsonl' --incremental --licence proprietary
        tilth run observed --source hf://datasets/allenai/WildChat-1M --format wildchat
        tilth run observed --source calls.json --map calls.yaml --json
        tilth run wildfeedback -s 'logs/*.jsonl' --base-url http://gpu:8000/v1 -m LARGE --policy SMALL --judge OTHER
        tilth run rubrics --from observed.pairs
        tilth run rationales --from observed.pairs --base-url http://localhost:8000/v1 -m LARGE --judge OTHER
    """
    from tilth.flows.launch import launch, preview
    from tilth.flows.show import print_preview, print_result

    caps = given_of(max_calls=max_calls, max_tokens=max_tokens, max_cost=max_cost)
    options = given_of(
        sources=source,
        dataset=dataset,
        format=shape,
        map=column_map,
        incremental=incremental or None,
        licence=licence,
        workspace=workspace,
        runner=given_of(name=runner),
        engine=given_of(kind=engine, model=model, base_urls=base_url),
        caps=caps,
    )
    if own := _own(recipe, policy or [], judge):
        options[recipe.value] = own
    if dry_run:
        seen = preview(recipe.value, config, options, sets or [], quiet=as_json)
        print_json(seen) if as_json else print_preview(seen)
        return
    result = launch(recipe.value, config, options, sets or [], quiet=as_json)
    print_json(result) if as_json else print_result(result, workspace)


def _own(recipe: Recipe, policies: list[str], judges: list[str] | None) -> dict[str, Any]:
    """What `--policy` and `--judge` say in the recipe's own section."""
    if recipe is Recipe.observed and (policies or judges):
        raise typer.BadParameter("the recipe observed asks no model: leave out --policy and --judge")
    if recipe in (Recipe.rationales, Recipe.judge_training) and policies:
        raise typer.BadParameter(f"the recipe {recipe.value} has no policy: leave out --policy")
    if recipe is Recipe.ultrafeedback:
        return given_of(policies=policies, judging=given_of(judges=judges))
    if len(policies) > 1:
        raise typer.BadParameter(f"{recipe.value} has one policy; ultrafeedback takes several")
    return given_of(policy=policies[0] if policies else None, judging=given_of(judges=judges))


@app.command()
def ask(
    input: Annotated[str, typer.Option("--input", "-i", help="A table: .parquet, .jsonl or .csv.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="The table to write: .parquet or .jsonl.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="A template: 'Name the language of {{ text }}'.")
    ] = None,
    prompt_file: Annotated[str | None, typer.Option("--prompt-file", help="A file with a template.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="A template of the system message.")] = None,
    schema: Annotated[
        str | None, typer.Option("--schema", help="A JSON Schema file that every answer fits.")
    ] = None,
    choices: Annotated[
        str | None, typer.Option("--choices", help="Every answer is one of these: yes,no.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="How probable each choice was, where the engine tells.")
    ] = False,
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="Answers per row.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0)] = None,
    answer_tokens: Annotated[
        int | None, typer.Option("--answer-tokens", min=1, help="The longest answer, in tokens (1024).")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws the samples.")] = None,
    key: Annotated[
        str | None, typer.Option("--key", help="A column that names rows; else their content does.")
    ] = None,
    engine: EngineName = None,
    model: Model = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Of the model's weights.")] = None,
    base_url: BaseUrls = None,
    config: Config = None,
    sets: Sets = None,
    workspace: Workspace = None,
    runner: RunnerName = None,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    dry_run: DryRun = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again about rows that were set aside.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a model about each row of a table; write the table with the answers.

    The same command again asks nothing twice: it goes on where it was stopped, or says that all is done. Rows without
    an answer stand in OUTPUT's .quarantine.parquet, with the reason. See docs/how-to/workers.md.

        tilth ask -i rows.parquet -o out.parquet -p 'Summarise: {{ text }}' -m MODEL --base-url http://localhost:8000/v1
        tilth ask -i rows.jsonl -p 'Is it spam? {{ text }}' --choices yes,no --engine vllm -m ./model --dry-run
    """
    from tilth.flows.launch import launch_ask
    from tilth.flows.show import print_answers, print_forecast

    asked = given_of(
        prompt=prompt,
        system=system,
        choices=[choice.strip() for choice in choices.split(",")] if choices else None,
        probabilities=probabilities or None,
        samples=samples,
        temperature=temperature,
        answer_tokens=answer_tokens,
        seed=seed,
        key=key,
    )
    options = given_of(
        ask=asked,
        engine=given_of(kind=engine, model=model, revision=revision, base_urls=base_url),
        caps=given_of(max_calls=max_calls, max_tokens=max_tokens, max_cost=max_cost),
        runner=given_of(name=runner),
        workspace=workspace,
    )
    errand = given_of(input=input, output=output, prompt_file=prompt_file, schema_file=schema)
    told = launch_ask(
        {**errand, "dry_run": dry_run, "retry_failed": retry_failed},
        config,
        options,
        sets or [],
        quiet=as_json,
    )
    if as_json:
        print_json(told)
    else:
        (print_forecast if told["status"] == "forecast" else print_answers)(told)


@app.command()
def demo(workspace: Workspace = None, as_json: Json = False) -> None:
    """Run the main job on the sample logs that ship with Tilth, then look at what it made.

    Needs no key, no GPU, no model and no network.
    """
    from tilth.flows.demo import run_demo

    run_demo(workspace, as_json, print_json)


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
        print_json(found)
    else:
        print_inspections(found)


@cache_app.command()
def stats(workspace: Workspace = None, config: Config = None, as_json: Json = False) -> None:
    """Show how many answers the cache holds, how large they are, and of which models."""
    from tilth.flows.cache import cache_stats, print_cache_stats
    from tilth.flows.settings import load

    found = cache_stats(load(config, {"workspace": workspace}).answers_url())
    print_json(found) if as_json else print_cache_stats(found)


@cache_app.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="Answers not used for so long: 12h, 30d.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only answers of this model.")] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", help="Keep so much, of what was used last: 10GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    workspace: Workspace = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Remove answers from the cache for good; they will be asked for again when they are needed."""
    from tilth.flows.cache import cache_prune, print_cache_prune
    from tilth.flows.settings import load

    url = load(config, {"workspace": workspace}).answers_url()
    pruned = cache_prune(url, older_than, model, max_size, dry_run)
    print_json(pruned) if as_json else print_cache_prune(pruned)


for command in (check, evaluate, export, report, publish, up, doctor):
    app.command()(command)
for command in (init, tag, untag, rollback, rename, drop, restore, forget, collect):
    catalog_app.command()(command)


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
            print_json({"error": type(error).__name__, "message": str(error)})
        typer.secho(f"error: {error}", err=True, fg="red" if sys.stderr.isatty() else None)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
