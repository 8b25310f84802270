"""Options that several commands share, and what all of them do with them. Light: `tilth --help` loads it."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any  # Any: values on their way to settings and to JSON

import typer
from typer.core import TyperCommand

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


RunnerName = Annotated[
    str | None, typer.Option("--runner", help="local, processes, dask, or the name of a Beam runner.")
]
MaxCalls = Annotated[
    int | None,
    typer.Option("--max-calls", min=0, help="Stop before more calls than this, over all sittings."),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", min=0, help="Stop at so many tokens of prompts and answers, over all sittings."
    ),
]
MaxCost = Annotated[
    float | None, typer.Option("--max-cost", min=0, help="Stop at this cost, by the prices in the settings.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be read, asked and spent. Asks nothing.")
]
EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine", help="openai (any OpenAI-compatible server, vllm serve too) or vllm (in this process)."
    ),
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="The model's name, or its folder.")]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        help="The model that is to be trained: a name at the engine, or in `engines` of the settings.",
    ),
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge", help="A judge, as NAME or NAME=WEIGHT; several make a panel. Default: the model."
    ),
]
BaseUrls = Annotated[
    list[str] | None,
    typer.Option("--base-url", help="A server, as http://host:8000/v1; several are used as a pool."),
]


class OfSources(TyperCommand):
    """A command with `--source`: knows what a pattern that is not in quotes becomes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the words. Words that are left over are, nearly always, the files of a pattern."""
        ctx.allow_extra_args = True
        super().parse_args(ctx, args)
        if ctx.args:
            ctx.fail(
                f"Got {len(ctx.args)} unexpected words, as {ctx.args[0]}. Is --source a pattern? It stands in quotes, "
                "as 'logs/*.jsonl'; the shell makes one word for each file of it otherwise."
            )
        return ctx.args


def given_of(**options: Any) -> dict[str, Any]:
    """The options that were given: the others leave room for the environment and the settings file."""
    return {name: value for name, value in options.items() if value is not None and value not in ([], {})}


def workspace_of(given: str | None) -> str:
    """The workspace that is meant: the option, the environment, the settings file, the default."""
    from tilth.flows.settings import load

    return load(options={"workspace": given}).workspace


def print_json(value: object) -> None:
    """Writes a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
