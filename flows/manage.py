"""What the commands that look after the catalog do: each says what it did and how to undo it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any  # Any: values on their way to JSON

from tilth.catalog import Catalog, Version, collect, open_catalog
from tilth.catalog.names import is_label, parse_release
from tilth.flows.cache import parse_age, say_size
from tilth.flows.locks import is_live
from tilth.flows.show import print_rows
from tilth.schemas import BadInput, NotFound

Told = dict[str, Any]


def _opened(workspace: str) -> Catalog:
    return open_catalog(workspace, create=False)


def _label(catalog: Catalog, family: str, wanted: str | None) -> str:
    """The version that a version, a tag or nothing means: nothing means the newest of the family."""
    names = [name for name in catalog.datasets() if name.partition(".")[0] == family]
    if not names:
        raise NotFound(f"no family {family}", do="see them all with `tilth catalog ls`")
    if wanted is None:
        labels = [catalog.resolve(name).version for name in names]
        return max(labels, key=lambda label: [int(part) for part in label.split(".")])
    return wanted if is_label(wanted) else catalog.tags(family).get(wanted, wanted)


def _versions(catalog: Catalog, family: str, label: str | None) -> list[Version]:
    """The datasets of a version, or of all versions of a family."""
    names = [name for name in catalog.datasets() if name.partition(".")[0] == family]
    found = [one for name in names for one in catalog.versions(name) if label in (None, one.version)]
    if not found:
        raise NotFound(
            f"no version {family}@{label}", do=f"see them all with `tilth catalog show {names[0]}`"
        )
    return found


def _rows(versions: Sequence[Version]) -> list[Told]:
    return [{"dataset": one.name, "version": one.version, "rows": one.rows} for one in versions]


def tag(workspace: str, name: str, tag: str, move: bool) -> Told:
    """Lets a tag stand for a version, in all tables of its family."""
    family, wanted = parse_release(name)
    with _opened(workspace) as catalog:
        label = _label(catalog, family, wanted)
        before = catalog.tag(family, label, tag, move=move)
    undo = [f"tilth catalog untag {family} {tag}"]
    if before and before != label:
        undo = [f"tilth catalog tag {family}@{before} {tag} --move"]
    return {"family": family, "tag": tag, "version": label, "before": before, "undo": undo}


def untag(workspace: str, family: str, tag: str) -> Told:
    """Takes a tag away."""
    with _opened(workspace) as catalog:
        label = catalog.untag(family, tag)
    return {"family": family, "tag": tag, "version": label, "undo": [_tagging(family, label, tag)]}


def _tagging(family: str, label: str, tag: str) -> str:
    return f"tilth catalog tag {family}@{label} {tag}"


def rollback(workspace: str, family: str, version: str, dry_run: bool) -> Told:
    """Publishes what a version held as the newest version."""
    with _opened(workspace) as catalog:
        label, newest = _label(catalog, family, version), _label(catalog, family, None)
        held = _versions(catalog, family, label)
        told: Told = {"family": family, "to": label, "from": newest}
        if dry_run:
            return {**told, "version": None, "datasets": _rows(held), "undo": []}
        made = catalog.rollback(family, label)
    new = made[0].version
    undo = [] if new == newest else [f"tilth catalog drop {family}@{new}"]
    return {**told, "version": new, "datasets": _rows(made), "undo": undo}


def rename(workspace: str, old: str, new: str) -> Told:
    """Gives a family another name."""
    with _opened(workspace) as catalog:
        catalog.rename(old, new)
        names = [name for name in catalog.datasets() if name.partition(".")[0] == new]
    return {"family": new, "was": old, "datasets": names, "undo": [f"tilth catalog rename {new} {old}"]}


def about_to_drop(workspace: str, name: str) -> Told:
    """What `drop` would hide."""
    family, wanted = parse_release(name)
    with _opened(workspace) as catalog:
        label = _label(catalog, family, wanted)
        found = _versions(catalog, family, label if wanted else None)
        tags = _tags(catalog, family, {one.version for one in found})
    return {"family": family, "datasets": _rows(found), "tags": tags}


def _tags(catalog: Catalog, family: str, labels: Collection[str]) -> dict[str, str]:
    return {tag: label for tag, label in catalog.tags(family).items() if label in labels}


def drop(workspace: str, name: str, force: bool) -> Told:
    """Hides a version, or all versions of a family."""
    family, wanted = parse_release(name)
    with _opened(workspace) as catalog:
        label = None if wanted is None else _label(catalog, family, wanted)
        tags = catalog.tags(family)
        labels = catalog.drop(family, label, force=force)
    tagged = [_tagging(family, one, tag) for tag, one in tags.items() if one in labels]
    undo = [f"tilth catalog restore {family}@{one}" for one in labels]
    return {"family": family, "versions": labels, "undo": undo + tagged}


def restore(workspace: str, name: str) -> Told:
    """Shows dropped versions again."""
    family, label = parse_release(name)
    with _opened(workspace) as catalog:
        labels = catalog.restore(family, label)
    undo = [f"tilth catalog drop {family}@{one}" for one in labels]
    return {"family": family, "versions": labels, "undo": undo}


def collected(workspace: str, older_than: str, dry_run: bool) -> Told:
    """Deletes what nothing needs any more."""
    grace = timedelta(seconds=parse_age(older_than))
    with _opened(workspace) as catalog:
        found = collect(catalog, workspace, grace=grace, dry_run=dry_run, live=is_live)
    counts = {kind: count._asdict() for kind, count in found.counts.items()}
    return {**asdict(found), "counts": counts, "older_than": older_than}


def sure(question: str, yes: bool) -> None:
    """Asks on a terminal unless `yes`; raises `BadInput` where the answer is no, or nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(question, found="nobody to ask", wanted="--yes")
    import typer

    typer.confirm(f"{question}?", abort=True, err=True)


def print_told(told: Told, said: str, workspace: str | None) -> None:
    """Prints what was done, and the commands that undo it, each on a line of its own."""
    option = f" -w {workspace}" if workspace else ""
    undo = [f"{'undo:' if not number else '':<6}{one}{option}" for number, one in enumerate(told["undo"])]
    sys.stdout.write("\n".join([said, *undo]) + "\n")


def print_datasets(rows: Sequence[Told], title: str) -> None:
    """Prints datasets with their versions and rows."""
    print_rows(rows, "nothing", title)


def print_collected(told: Told) -> None:
    """Prints what was deleted, by kind."""
    verb = "would delete" if told["dry_run"] else "deleted"
    for version in told["versions"]:
        print_rows([], f"{'would expire' if told['dry_run'] else 'expired'} {version}, which was dropped")
    rows = [
        {"what": kind, "files": count["files"], "size": say_size(count["size_bytes"])}
        for kind, count in told["counts"].items()
    ]
    nothing = f"nothing to delete that is older than {told['older_than']}"
    print_rows(rows, nothing, f"{verb}, for good" if rows else None)
