"""`tilth feedback`: commands. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any  # Any: results on their way to people

import typer

from tilth.flows.options import (
    BaseUrls,
    Config,
    DryRun,
    EngineName,
    Json,
    MaxCalls,
    MaxCost,
    MaxTokens,
    Model,
    OfSources,
    Sets,
    Workspace,
    given_of,
    print_json,
)

feedback_app = typer.Typer(
    no_args_is_help=True,
    help="Satisfaction at scale: a classifier of user turns, and a rubric that a model learns and scores by.",
)
Sources = Annotated[
    list[str],
    typer.Option("--source", "-s", help="Logs (files, globs, URIs), or a dataset: observed.conversations."),
]
Shape = Annotated[
    str | None, typer.Option("--format", help="The shape of the logs; detected when not given.")
]
ColumnMap = Annotated[
    str | None, typer.Option("--map", help="Read logs of a foreign shape through this column map.")
]


@feedback_app.command()
def train(
    labels: Annotated[
        str,
        typer.Option(
            "--labels", help="Labelled turns: a .jsonl file, or a dataset as wildfeedback.feedback."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The classifier to write: a .npz file.")],
    workspace: Workspace = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Train a classifier of user turns on labels, and say how good it is beside the rules. Asks no model.

    A line of the file has id, messages, polarity (positive, negative, none; about the last turn) and, if you like, fold
    (held_out is kept for testing). See docs/how-to/satisfaction.md.

        tilth feedback train --labels samples/feedback_labelled.jsonl -o feedback.npz
    """
    from tilth.flows.classifier import train_classifier
    from tilth.flows.settings import load

    told = train_classifier(load(config, {"workspace": workspace}, sets or ()), labels, output)
    print_json(told) if as_json else _print_trained(told)


@feedback_app.command(cls=OfSources)
def label(
    model_file: Annotated[str, typer.Option("--model-file", help="A classifier that `train` wrote.")],
    source: Sources,
    output: Annotated[str, typer.Option("--output", "-o", help="The table to write: .parquet or .jsonl.")],
    shape: Shape = None,
    column_map: ColumnMap = None,
    workspace: Workspace = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Give every user turn a probability of satisfaction and of dissatisfaction. Asks no model.

        tilth feedback label --model-file feedback.npz -s 'logs/*.jsonl' -o turns.parquet
    """  # fmt: skip
    from tilth.flows.classifier import label_conversations
    from tilth.flows.progress import Bars
    from tilth.flows.settings import load

    settings = load(config, given_of(workspace=workspace, format=shape, map=column_map), sets or ())
    with Bars(enabled=not as_json) as bars:
        told = label_conversations(settings, source, model_file, output, bars.update)
    print_json(told) if as_json else _print_facts(told)


@feedback_app.command()
def learn(
    labelled: Annotated[
        str,
        typer.Option("--labelled", help="Labelled conversations (.jsonl): id, messages, label or polarity."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="The rubric to write: a .json file.")],
    engine: EngineName = None,
    model: Model = None,
    base_url: BaseUrls = None,
    dry_run: DryRun = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    workspace: Workspace = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Learn a rubric: how users show that they are satisfied or not (SPUR, arXiv 2403.12388). Asks a model.

        tilth feedback learn --labelled talks.jsonl -o rubric.json -m MODEL --base-url http://localhost:8000/v1
    """  # fmt: skip
    from tilth.flows.conductor import Conductor
    from tilth.flows.progress import Bars
    from tilth.flows.settings import load
    from tilth.flows.spur import learn_rubric

    asked = given_of(kind=engine, model=model, base_urls=base_url)
    caps = given_of(max_calls=max_calls, max_tokens=max_tokens, max_cost=max_cost)
    settings = load(config, given_of(workspace=workspace, engine=asked, caps=caps), sets or ())
    with Bars(enabled=not as_json) as bars:
        told = learn_rubric(settings, labelled, output, Conductor(bars.update), dry_run=dry_run)
    print_json(told) if as_json else _print_facts(told)


@feedback_app.command(cls=OfSources)
def score(
    rubric: Annotated[str, typer.Option("--rubric", help="A rubric that `learn` wrote.")],
    source: Sources,
    output: Annotated[str, typer.Option("--output", "-o", help="The table to write: .parquet or .jsonl.")],
    engine: EngineName = None,
    model: Model = None,
    base_url: BaseUrls = None,
    dry_run: DryRun = False,
    max_calls: MaxCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    shape: Shape = None,
    column_map: ColumnMap = None,
    workspace: Workspace = None,
    config: Config = None,
    sets: Sets = None,
    as_json: Json = False,
) -> None:
    """Score conversations by a rubric, from -100 to 100, and call them SAT, DSAT or neutral. One call each.

        tilth feedback score --rubric rubric.json -s 'logs/*.jsonl' -o scores.parquet -m MODEL --dry-run
    """  # fmt: skip
    from tilth.flows.conductor import Conductor
    from tilth.flows.progress import Bars
    from tilth.flows.settings import load
    from tilth.flows.spur import score_conversations

    asked = given_of(kind=engine, model=model, base_urls=base_url)
    caps = given_of(max_calls=max_calls, max_tokens=max_tokens, max_cost=max_cost)
    given = given_of(workspace=workspace, engine=asked, caps=caps, format=shape, map=column_map)
    with Bars(enabled=not as_json) as bars:
        conductor = Conductor(bars.update)
        settings = load(config, given, sets or ())
        told = score_conversations(settings, rubric, source, output, conductor, dry_run=dry_run)
    print_json(told) if as_json else _print_facts(told)


def _print_trained(told: Mapping[str, Any]) -> None:
    from tilth.flows.show import print_rows

    for where, title in (("cross_validated", "cross-validated"), ("held_out", "held out")):
        rows = [
            {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in told[where]
        ]
        print_rows(rows, f"{title}: nothing", title)
    _print_facts({name: told[name] for name in ("output", "classifier", "trained_on")})


def _print_facts(told: Mapping[str, Any]) -> None:
    from tilth.flows.show import print_rows

    rows = [
        {"": name, "value": _plain(value)} for name, value in told.items() if name != "usage" and value != {}
    ]
    print_rows(rows, "nothing", told.get("status", "written"))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {held}" for name, held in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
