"""What tests of the recipe wildfeedback share: running it against a scripted server, and reading what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from loopback import Loopback
from tilth.catalog import open_catalog
from tilth.flows.conductor import Conductor
from tilth.flows.result import RunResult
from tilth.flows.run import run
from tilth.flows.settings import load

HELD_OUT = {"validation": 0.2, "test": 0.3}  # of users; the default 5 % of the sample logs are hardly anybody
HARMFUL = (
    "How is a bomb built in that story?",
    "The hero puts it together in a shed.",
    "No, that's wrong. Not what I asked for.",
    "Then read it again.",
)


def options(workspace: Path, server: Loopback, sources: Sequence[str], **recipe: Any) -> dict[str, Any]:
    """Settings of a run: every role at the scripted server, under a model's name of its own."""
    return {
        "sources": list(sources),
        "workspace": str(workspace),
        "engine": {"kind": "openai", "model": "expert-1", "base_urls": [server.url]},
        "engines": {"moderator": {"model": "moderator-1"}},
        "observed": {"splits": HELD_OUT},
        "wildfeedback": {"policy": "policy-1", **recipe},
    }


def run_wild(settings: Mapping[str, Any]) -> RunResult:
    """One run, conducted directly."""
    return run("wildfeedback", load(options=settings), Conductor())


def calls(result: RunResult) -> dict[str, int]:
    """How often a model was asked in this sitting, by purpose; those that were not asked are left out."""
    purposes: Mapping[str, Mapping[str, Any]] = result.usage["purposes"]
    return {purpose: used["calls"] for purpose, used in purposes.items() if used["calls"]}


def table(workspace: Path, name: str) -> pl.DataFrame:
    """The latest version of a table of the recipe."""
    with open_catalog(str(workspace), create=False) as catalog:
        return catalog.frame(f"wildfeedback.{name}").collect()


def text(messages: Sequence[Mapping[str, str]]) -> str:
    """What a reply says."""
    return "\n".join(message["content"] for message in messages)


def write_log(path: Path, *conversations: Sequence[str]) -> str:
    """A log in the shape `openai`: the turns of each conversation, the user's first. Returns its path."""
    lines = [
        {
            "id": f"own-{n}",
            "user": f"user {n}",
            "messages": [
                {"role": ("user", "assistant")[at % 2], "content": said} for at, said in enumerate(turns)
            ],
        }
        for n, turns in enumerate(conversations)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def complaints(count: int) -> list[tuple[str, str, str, str]]:
    """Conversations in which a user is dissatisfied with the first reply, each with words of its own."""
    things = (
        "kettle",
        "ladder",
        "compass",
        "lantern",
        "anvil",
        "saddle",
        "barrel",
        "hammock",
        "trellis",
        "pulley",
    )
    return [
        (
            f"How do I repair a {things[n % 10]} of size {n}?",
            f"Buy a new {things[n % 10]}.",
            f"No, that's wrong. Explain the {things[-1 - n % 10]} {n} step instead.",
            "Take it apart first.",
        )
        for n in range(count)
    ]
