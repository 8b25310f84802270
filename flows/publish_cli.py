"""The command `tilth publish`. Light: what it needs is imported when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of


def publish(
    name: Annotated[
        str,
        typer.Argument(
            help="A family or one dataset of it: observed, observed.pairs, with @VERSION or @TAG."
        ),
    ],
    repo: Annotated[
        str | None, typer.Option("--repo", help="A dataset repository of the Hub, as org/name.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="A folder instead: a path, or s3://bucket/prefix, any fsspec URI."),
    ] = None,
    private: Annotated[
        bool,
        typer.Option(
            "--private", help="Only your own people can read the target; a new repository is private."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show files, rows, card and what forbids it; contact nothing.")
    ] = False,
    tables: Annotated[
        list[str] | None,
        typer.Option("--tables", help="Only these, as pairs,unpaired. Conversations only when named here."),
    ] = None,
    drop_pii: Annotated[
        bool, typer.Option("--drop-pii", help="Leave out rows with personal data; the card says how many.")
    ] = False,
    allow_failed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-failed", help="A critical check that may fail, by its metric; the card says so."
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--licence", help="Of the sources that declare none: cc-by-4.0, mit, internal."),
    ] = None,
    qualified: Annotated[
        bool,
        typer.Option(
            "--qualified", help="Name configs observed.pairs, so that families can share a repository."
        ),
    ] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Publish a version to the Hugging Face Hub, or to a folder: one commit and one tag, or nothing.

    Refused when the audit is not green, when rows hold personal data, or when a source's licence forbids it. The same
    command again sends nothing twice and never moves a tag. Log in with `hf auth login`. See docs/how-to/publish.md.

        tilth publish observed --repo org/garden --dry-run
        tilth publish observed.pairs@2026.11.21.1 --repo org/garden --private
        tilth publish observed --to s3://bucket/datasets --tables pairs,unpaired --drop-pii
    """  # fmt: skip
    if (repo is None) == (to is None):
        raise typer.BadParameter("name a --repo of the Hub, or a folder with --to")
    from tilth.catalog.publishing import Choice
    from tilth.flows.publish import print_publish
    from tilth.flows.publish import publish as send

    choice = Choice(
        tables=_names(tables),
        private=private,
        drop_pii=drop_pii,
        allow_failed=_names(allow_failed),
        licence=licence,
        qualified=qualified,
    )
    told = send(workspace_of(workspace), name, choice, repo=repo, to=to, dry_run=dry_run, quiet=as_json)
    print_json(told) if as_json else print_publish(told)


def _names(given: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for item in given or [] for name in item.split(",") if name.strip())
