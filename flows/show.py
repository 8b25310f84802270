"""What the command line shows: plain rows first, tables for people second."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any  # Any: cells of tables

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = Mapping[str, Any]
_CELL_CHARS = 100
_TURNS_SHOWN = 4
_NEXT = (
    "tilth catalog head observed.pairs",
    'tilth catalog query "select origin, count(*) from observed.pairs group by 1"',
    "tilth check observed.pairs",
)


def _console() -> Console:
    return Console(highlight=False)


def print_rows(rows: Sequence[Row], nothing: str, title: str | None = None, hide: Sequence[str] = ()) -> None:
    """Prints rows as a table without the columns of `hide`, or `nothing` when there are none."""
    if not rows:
        _console().print(nothing)
        return
    if title:
        _console().print(f"[bold]{title}[/bold]")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, value in rows[0].items():
        if name not in hide:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for name, value in row.items() if name not in hide))
    _console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = (
        json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    )
    return escape(text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…")


def print_result(result: Row, workspace: str | None) -> None:
    """The summary that ends every run: what came in, what came out, what was set aside and why, what to try next."""
    console = _console()
    verb = "already committed, nothing to do" if result["status"] == "unchanged" else "committed"
    taken = sum(result["seconds"].values())
    console.print(
        f"[bold]run {result['run_id'][:12]}[/bold]: {verb}" + (f" in {taken:.1f} s" if taken else "")
    )
    print_rows(result["sources"], "no source rows", "what came in")
    datasets = [
        {"dataset": d["name"], "version": d["version"], "rows": d["rows"]} for d in result["datasets"]
    ]
    print_rows(datasets, "nothing", "what came out")
    _print_counts(result["quarantined"], "set aside, in source rows", "reason")
    _print_counts(result["dropped"], "candidates for pairs and labels that were not used", "reason")
    _print_counts(result["passed_over"], "conversations not mined (rules read English)", "language")
    for warning in result["warnings"]:
        console.print(f"[yellow]note:[/yellow] {escape(warning)}")
    for word, command in zip(("next:", "", ""), _NEXT, strict=True):
        option = f" -w {workspace}" if workspace else ""
        console.print(f"{word:<6}{escape(command + option)}", soft_wrap=True)


def _print_counts(counts: Mapping[str, int], title: str, key: str) -> None:
    if counts:
        print_rows([{key: name, "count": count} for name, count in counts.items()], "", title)


def inspections(uris: Sequence[str], shape: str | None, column_map: str | None) -> list[dict[str, Any]]:
    """What `tilth sources inspect` reports, one entry a file."""
    from tilth.transforms.ingest import expand, inspect

    return [inspect(file, shape, column_map).to_dict() for file in expand(uris)]


def print_inspections(found: Sequence[Row]) -> None:
    """Prints inspections for people: the shape, how sure and why, three conversations, what would be set aside."""
    console = _console()
    for one in found:
        console.print(f"[bold]{escape(one['uri'])}[/bold]: {one['shape']}, {one['confidence']:.0%} sure")
        for reason in one["reasons"]:
            console.print(f"  {escape(reason)}")
        for record in one["rows"]:
            print_record({**record, "messages": record["messages"][:_TURNS_SHOWN]})
            if len(record["messages"]) > _TURNS_SHOWN:
                console.print(f"[dim]{'':>16}  … {len(record['messages']) - _TURNS_SHOWN} more turns[/dim]")
        console.rule(style="dim")
        console.print(f"read {one['rows_read']} rows: {one['conversations']} conversations")
        _print_counts(one["quarantined"], "would be set aside", "reason")


def dataset_rows(workspace: str) -> list[dict[str, Any]]:
    """The latest version of each dataset."""
    from tilth.catalog import open_catalog

    catalog = open_catalog(workspace, create=False)
    return [_version_row(catalog.resolve(name)) for name in catalog.datasets()]


def _version_row(version: Any) -> dict[str, Any]:
    return {
        "dataset": version.name,
        "version": version.version,
        "rows": version.rows,
        "snapshot_id": version.snapshot_id,
        "created_at": version.created_at.strftime("%Y-%m-%d %H:%M:%S"),
    }


def describe(workspace: str, name: str) -> dict[str, Any]:
    """A dataset's columns, versions, and what its latest or named version was made from."""
    from tilth.catalog import open_catalog
    from tilth.schemas import TABLES

    catalog = open_catalog(workspace, create=False)
    version = catalog.resolve(name)
    table = version.name.rpartition(".")[2]
    recorded = {key.removeprefix("tilth."): value for key, value in version.properties.items()}
    return {
        **_version_row(version),
        "columns": {field.name: str(field.type) for field in TABLES[table]},
        "versions": [_version_row(each) for each in catalog.versions(version.name)],
        "made_from": {
            key: _plain(recorded[key])
            for key in ("run_id", "summary", "config", "parents")
            if key in recorded
        },
        "audit": _plain(recorded.get("audit")),
    }


def _plain(text: str | None) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def print_description(description: Row) -> None:
    """Prints a description for people."""
    console = _console()
    console.print(
        f"[bold]{description['dataset']}@{description['version']}[/bold]: {description['rows']} rows"
    )
    print_rows(
        [{"column": name, "type": kind} for name, kind in description["columns"].items()], "", "columns"
    )
    print_rows(description["versions"], "", "versions", hide=["dataset", "snapshot_id"])
    made_from = description["made_from"]
    console.print(f"run: {made_from.get('run_id')}")
    print_rows(made_from.get("summary", {}).get("sources", []), "", "sources")
    console.print(f"audit: {_cell(description['audit'])}")


def first_rows(workspace: str, name: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a dataset as plain values."""
    from tilth.catalog import open_catalog

    return open_catalog(workspace, create=False).head(name, count).to_dicts()


def print_records(records: Sequence[Row]) -> None:
    """Prints rows one after another, messages as a chat."""
    if not records:
        _console().print("no rows")
    for record in records:
        print_record(record)


def print_record(record: Row) -> None:
    """Prints one row: short values first, then messages, one line a turn."""
    console = _console()
    chats = {name: value for name, value in record.items() if _is_chat(value)}
    rest = {name: value for name, value in record.items() if name not in chats and value not in (None, [])}
    console.rule(style="dim")
    for name, value in rest.items():
        _print_line(console, name, _line(value))
    for name, messages in chats.items():
        for message in messages:
            said = _line(message["content"]) or "(calls a tool)"
            _print_line(console, name, f"[bold]{escape(message['role'])}[/bold]: {said}")


def _print_line(console: Console, name: str, text: str) -> None:
    console.print(f"[dim]{name:>16}[/dim]  {text}", no_wrap=True, overflow="ellipsis", crop=False)


def _line(value: Any) -> str:
    return " ".join(_cell(value).split())


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def query_rows(workspace: str, sql: str) -> list[dict[str, Any]]:
    """The rows that a query gives."""
    from tilth.catalog import open_catalog, query

    return query(open_catalog(workspace, create=False), sql).to_pylist()


def recheck(workspace: str, name: str) -> dict[str, Any]:
    """The audit of one committed version, run again."""
    from tilth.catalog import audit_version, open_catalog

    catalog = open_catalog(workspace, create=False)
    report = audit_version(catalog, name)
    version = catalog.resolve(name)
    return {"dataset": version.name, "version": version.version, **report.to_dict(), "checks": report.rows()}


def _verdict(check: Row) -> str:
    failed = {"critical": "FAILED", "warning": "warning", "info": "note"}[check["severity"]]
    return {True: "ok", False: failed, None: "skipped"}[check["success"]]


def print_report(report: Row) -> None:
    """Prints every expectation with what was observed, failures first and with the reason for the check."""
    console = _console()
    rows = [
        {
            "": _verdict(check),
            "check": check["column"],
            "observed": check["observed"],
            "wanted": check["wanted"],
            "severity": check["severity"],
        }
        for check in report["checks"]
    ]
    print_rows(rows, "no expectations", f"{report['dataset']}@{report['version']}")
    for check in report["checks"]:
        if check["success"] is False:
            console.print(f"{check['column']} ({check['severity']}): {escape(check['why'])}")
    failed = report["failed_critical"]
    console.print(
        "[red]failed[/red]: a critical check failed"
        if failed
        else "[green]passed[/green]: no critical check failed"
    )
