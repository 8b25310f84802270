"""`tilth publish`: a release of the catalog on the Hub or in a folder. Thin: the catalog decides what is published."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any  # Any: JSON values

import tilth
from tilth.catalog import Catalog, open_catalog
from tilth.catalog.publishing import Bundle, Choice, Folder, Hub, plan, remember, write
from tilth.schemas import ChecksFailed, TilthError

Target = Hub | Folder


def publish(
    workspace: str,
    name: str,
    choice: Choice,
    *,
    repo: str | None = None,
    to: str | None = None,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Publishes `name`, `family[@version]` or `family.table[@version]`, to a repository of the Hub or below a URI.

    With `dry_run` nothing is contacted; what would be published, and what forbids it, is told. Raises `ChecksFailed` or
    `ConfigError`, naming all that forbids to publish; see `Hub.publish` and `Folder.publish` for the rest.
    """
    target = _target(choice, repo, to)
    with (
        open_catalog(workspace, create=False) as catalog,
        tempfile.TemporaryDirectory(prefix="tilth-") as folder,
    ):
        bundle = write(plan(catalog, name, choice), Path(folder))
        if dry_run:
            return _foretold(bundle, target)
        refuse(bundle.refusals())
        return _sent(catalog, bundle, target, quiet=quiet)


def _target(choice: Choice, repo: str | None, to: str | None) -> Target:
    if repo is not None:
        return Hub(repo, choice.private, tilth.__version__)
    return Folder(to or "", tilth.__version__)


def refuse(refusals: list[TilthError]) -> None:
    """Raises what forbids to publish: the one error, or one that names them all."""
    if len(refusals) == 1:
        raise refusals[0]
    if refusals:
        what = f"{len(refusals)} things forbid to publish"
        raise ChecksFailed(what, found="\n".join(f"- {one}" for one in refusals), do="see to all of them")


def _sent(catalog: Catalog, bundle: Bundle, target: Target, *, quiet: bool) -> dict[str, Any]:
    with _Bar(enabled=not quiet) as bar:
        published = target.publish(bundle, bar.update)
    remember(catalog, bundle.plan, published)
    return {**asdict(published), "load": _load(bundle, target), "undo": _undo(target, published.reference)}


def _foretold(bundle: Bundle, target: Target) -> dict[str, Any]:
    configs = [
        {
            "config": config.name,
            "rows": config.rows,
            "size_bytes": config.size_bytes,
            "left_out": config.left_out,
            "personal": {kind: rows for kind, rows in config.personal.items() if rows} or None,
        }
        for config in bundle.configs
    ]
    files = [{"path": one.path, "rows": one.rows, "size_bytes": one.size_bytes} for one in bundle.shards]
    terms = bundle.plan.terms.licence
    return {
        "status": "would be published",
        "name": bundle.plan.name,
        "version": bundle.plan.label,
        "reference": target.place(bundle) if isinstance(target, Folder) else bundle.plan.tag,
        "digest": bundle.digest,
        "licence": terms.id if terms else None,
        "configs": configs,
        "files": files,
        "refusals": [str(error) for error in bundle.refusals()],
        "card": target.card(bundle).readme(),
    }


def _load(bundle: Bundle, target: Target) -> list[str]:
    card = target.card(bundle)
    opening = [f"folder = {target.place(bundle)!r}"] if isinstance(target, Folder) else []
    return [*opening, *(card.loads(config) for config in bundle.configs)]


def _undo(target: Target, reference: str) -> str:
    if isinstance(target, Folder):
        return f"remove the folder {reference}"
    return (
        f"hf repo tag delete {target.repo} {reference} --repo-type dataset; then revert the commit on the Hub"
    )


def print_publish(told: Mapping[str, Any]) -> None:
    """Says what was published, or would be."""
    from rich.console import Console
    from rich.markup import escape

    from tilth.flows.show import print_rows

    console = Console(highlight=False)
    if told["status"] == "would be published":
        print_rows(
            told["configs"],
            "nothing",
            f"{told['name']}@{told['version']}, {told['licence']}: would be published",
        )
        print_rows(told["files"], "no files")
        console.print(escape(told["card"]), soft_wrap=True)
        for refusal in told["refusals"]:
            console.print(f"[red]refused[/red]: {escape(refusal)}")
        return
    keys = ("name", "version", "target", "reference", "commit", "files", "size_bytes", "left_out")
    print_rows([{"": key, "what": told[key]} for key in keys if told[key] is not None], "", told["status"])
    for line in told["load"]:
        console.print(escape(line), soft_wrap=True)
    console.print(f"[dim]to undo: {escape(told['undo'])}[/dim]", soft_wrap=True)


class _Bar:
    """A bar of bytes on standard error; silent unless a person is looking."""

    def __init__(self, *, enabled: bool) -> None:
        from huggingface_hub.utils import disable_progress_bars
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        disable_progress_bars()  # the client's own, one a file
        console = Console(stderr=True)
        columns = (TextColumn("upload"), BarColumn(bar_width=20), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, disable=not (enabled and console.is_terminal))
        self._task = self._progress.add_task("upload", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, done: int, total: int) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=done, total=total)
