"""`tilth catalog`: commands that look after versions. Light: everything else is loaded when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

from tilth.flows.options import Json, Workspace, print_json, workspace_of

Only = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Family = Annotated[str, typer.Argument(help="A family of datasets, as observed.")]


def init(
    database: Annotated[
        str,
        typer.Option(
            "--database", help="An SQLAlchemy URL without a password: postgresql+psycopg://user@host/db."
        ),
    ],
    warehouse: Annotated[
        str | None,
        typer.Option("--warehouse", help="Where tables are kept, any fsspec URI; in the workspace."),
    ] = None,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Say once where a new workspace keeps its catalog: for several machines, or a workspace on an object store.

    Without this, the catalog is an SQLite file in the workspace. A password comes from PGPASSWORD or ~/.pgpass.

        tilth catalog init -w s3://bucket/tilth --database postgresql+psycopg://tilth@db/tilth
    """
    from tilth.catalog import place_catalog
    from tilth.flows.manage import print_told

    told = place_catalog(workspace_of(workspace), database, warehouse)
    print_json(told) if as_json else print_told(told, f"the catalog is kept in {database}", workspace)


def tag(
    name: Annotated[str, typer.Argument(help="A version, as observed@2026.11.21.1; without one the newest.")],
    tag: Annotated[str, typer.Argument(help="A name of your own, as golden.")],
    move: Annotated[bool, typer.Option("--move", help="Take the tag from the version that has it.")] = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Give a version a name of your own, in all tables of its family; it then resolves like a version.

        tilth catalog tag observed golden
        tilth catalog head observed.pairs@golden
        tilth catalog tag observed@2026.11.21.2 golden --move
    """  # fmt: skip
    from tilth.flows import manage

    told = manage.tag(workspace_of(workspace), name, tag, move)
    moved = f", which was {told['before']}" if told["before"] not in (None, told["version"]) else ""
    said = f"{told['family']}@{tag} is {told['version']}{moved}"
    print_json(told) if as_json else manage.print_told(told, said, workspace)


def untag(
    family: Family,
    tag: Annotated[str, typer.Argument(help="The tag.")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Take a tag away; the version stays.

        tilth catalog untag observed golden
    """  # fmt: skip
    from tilth.flows import manage

    told = manage.untag(workspace_of(workspace), family, tag)
    said = f"{family}@{tag} is no more; it was {told['version']}, which stays"
    print_json(told) if as_json else manage.print_told(told, said, workspace)


def rollback(
    family: Family,
    version: Annotated[str, typer.Argument(help="The version, or tag, to go back to.")],
    dry_run: Only = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Make an old version the newest again: a new version with the same files. Nothing is moved or lost.

    All tables of the family are in the new version; those that the old one did not have are empty in it.

        tilth catalog rollback observed 2026.11.21.1
        tilth catalog rollback observed golden --dry-run
    """
    from tilth.flows import manage

    told = manage.rollback(workspace_of(workspace), family, version, dry_run)
    if as_json:
        print_json(told)
    elif dry_run:
        manage.print_datasets(told["datasets"], f"would be published again, after {told['from']}")
    elif not told["undo"]:
        manage.print_told(
            told, f"nothing to do: {family}@{told['version']} is the newest and holds this", workspace
        )
    else:
        manage.print_datasets(told["datasets"], f"{family}@{told['to']} is the newest again")
        manage.print_told(told, f"versions after {told['to']} are still there", workspace)


def rename(
    old: Family,
    new: Annotated[str, typer.Argument(help="Its new name: lower case letters, digits, underscores.")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Give a family of datasets another name, with all versions and tags.

    Files stay where they are, and versions that were made from it still find it by the old name.

        tilth catalog rename observed support_2026
    """
    from tilth.flows import manage

    told = manage.rename(workspace_of(workspace), old, new)
    print_json(told) if as_json else manage.print_told(told, f"{old} is {new} now", workspace)


def drop(
    name: Annotated[str, typer.Argument(help="A family, or one version of it: observed@2026.11.21.1.")],
    force: Annotated[bool, typer.Option("--force", help="Also versions with tags; the tags go.")] = False,
    dry_run: Only = False,
    yes: Yes = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Hide a version in all its tables, or a whole family. `collect` deletes it a day later.

    tilth catalog drop observed@2026.11.21.1
    tilth catalog drop observed --dry-run
    tilth catalog restore observed@2026.11.21.1
    """
    from tilth.flows import manage

    root = workspace_of(workspace)
    seen = manage.about_to_drop(root, name)
    if as_json and dry_run:
        print_json(seen)
    elif not as_json:
        manage.print_datasets(seen["datasets"], "would be hidden" if dry_run else "to be hidden")
    if dry_run:
        return
    manage.sure(f"drop {name}", yes)
    told = manage.drop(root, name, force)
    said = f"dropped {', '.join(told['versions'])} of {told['family']}"
    print_json(told) if as_json else manage.print_told(told, said, workspace)


def restore(
    name: Annotated[str, typer.Argument(help="A family, or one version of it: observed@2026.11.21.1.")],
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Show a dropped version again, or all dropped versions of a family, while `collect` has not deleted them.

    tilth catalog restore observed@2026.11.21.1
    tilth catalog restore observed
    """
    from tilth.flows import manage

    told = manage.restore(workspace_of(workspace), name)
    said = f"restored {', '.join(told['versions'])} of {told['family']}"
    print_json(told) if as_json else manage.print_told(told, said, workspace)


def collect(
    older_than: Annotated[str, typer.Option("--older-than", help="Only what is older: 12h, 1d, 4w.")] = "1d",
    dry_run: Only = False,
    workspace: Workspace = None,
    as_json: Json = False,
) -> None:
    """Delete for good what nothing needs: dropped versions, files of no version, directories of runs that are over.

    What a version holds, what a live run uses and what a schedule goes on from is never deleted.

        tilth catalog collect --dry-run
        tilth catalog collect --older-than 7d
    """
    from tilth.flows import manage

    told = manage.collected(workspace_of(workspace), older_than, dry_run)
    print_json(told) if as_json else manage.print_collected(told)
