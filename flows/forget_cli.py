"""`tilth catalog forget`. Light: everything else is loaded when the command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tilth.flows.options import Config, Json, Workspace, print_json


def forget(
    user_id: Annotated[
        str | None,
        typer.Option("--user-id", help="A user, as the logs call them; only a hash of it is kept."),
    ] = None,
    user_key: Annotated[
        str | None, typer.Option("--user-key", help="A user, as column user_key has them.")
    ] = None,
    conversation_id: Annotated[
        str | None, typer.Option("--conversation-id", help="One conversation, by its id.")
    ] = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove the versions that hold it too, and what runs have left.")
    ] = False,
    keep_answers: Annotated[
        bool, typer.Option("--keep-answers", help="With --purge: leave the cache of answers as it is.")
    ] = False,
    undo: Annotated[
        str | None, typer.Option("--undo", help="A receipt: let later runs read what it named again.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a purge.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the receipt that would be.")] = False,
    workspace: Workspace = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Take a user or a conversation out of every dataset, with every row that rests on them; print a receipt.

    New versions without them are made, and later runs leave them out. Earlier versions still hold them until --purge
    removes those for good. The same command again says that nothing is left to do. See docs/how-to/forget.md.

        tilth catalog forget --user-id ann@example.org --dry-run
        tilth catalog forget --user-key 0f3c… --purge --yes
        tilth catalog forget --conversation-id 9a41…
        tilth catalog forget --undo 5d0c2f6e8a7b1c34
    """
    from tilth.flows.forget import Request, print_receipt
    from tilth.flows.forget import forget as carry_out
    from tilth.flows.forget import undo as take_back
    from tilth.flows.settings import load

    settings = load(config, {"workspace": workspace})
    if undo is not None:
        told = take_back(settings.workspace.rstrip("/"), undo)
        print_json(told) if as_json else print_receipt(told)
        return
    request = Request(user_id, user_key, conversation_id, purge, keep_answers)
    if purge and not yes and not dry_run:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is there to ask: add --yes to purge, or --dry-run to look first")
        seen = carry_out(settings, request, dry_run=True)
        if not as_json:
            print_receipt(seen)
        typer.confirm("remove all of this for good?", abort=True, err=True)
    told = carry_out(settings, request, dry_run=dry_run)
    print_json(told) if as_json else print_receipt(told)
