"""What the command line shows: plain rows first, tables for people second."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any  # Any: cells of tables

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from tilth.catalog import Version

Row = Mapping[str, Any]
_CELL_CHARS = 100
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TURNS_SHOWN = 4
_UNBROKEN = ("dataset", "version", "created_at", "run")  # columns whose values are read, or copied, as one
_USED = {
    "calls": "calls",
    "hits": "answered by the cache",
    "shared": "answered with an equal request",
    "retries": "calls after a failed one",
    "reasked": "calls after an answer that did not fit",
    "prompt_tokens": "prompt tokens",
    "completion_tokens": "answer tokens",
}
_COUNTED = {  # what is worth counting in the table that a recipe is run for
    "pairs": "select origin, count(*) from {} group by 1",
    "rationales": "select kind, count(*) from {} group by 1",
    "rubrics": "select count(*), avg(len(criteria)), avg(separation) from {}",
}


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
            whole = name in _UNBROKEN
            table.add_column(name, justify="right" if number else "left", overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*(_cell(value) for name, value in row.items() if name not in hide))
    _console().print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = printable(
        json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    )
    return escape(text if len(text) <= _CELL_CHARS else text[: _CELL_CHARS - 1] + "…")


def printable(text: str) -> str:
    """Text without what a terminal obeys: logs hold escape sequences."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


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
    print_counts(result["quarantined"], "set aside, in source rows", "reason")
    print_counts(result["dropped"], "candidates for pairs and labels that were not used", "reason")
    print_counts(result["passed_over"], "conversations not mined (rules read English)", "language")
    _print_models(result)
    for warning in result["warnings"]:
        console.print(f"[yellow]note:[/yellow] {escape(warning)}")
    name, count = _worth_a_look(result["datasets"])
    looks = (
        f"tilth catalog head {name}",
        f'tilth catalog query "{count.format(name)}"',
        f"tilth check {name}",
    )
    for word, command in zip(("next:", "", ""), looks, strict=True):
        option = f" -w {workspace}" if workspace else ""
        console.print(f"{word:<6}{escape(command + option)}", soft_wrap=True)


def _worth_a_look(datasets: Sequence[Row]) -> tuple[str, str]:
    """The dataset that a recipe is run for: the one of its own name, else its pairs; and what to count in it."""
    recipe = datasets[0]["name"].partition(".")[0]
    table = recipe if recipe in _COUNTED else "pairs"
    return f"{recipe}.{table}", _COUNTED[table]


def _print_models(result: Row) -> None:
    """What models were asked for, and what the cascade saved them."""
    if not result["usage"]:
        return
    names = ("calls", "hits", "prompt_tokens", "completion_tokens")
    purposes = [
        {"purpose": purpose, "model": used["model"], **{name: used[name] for name in names}}
        for purpose, used in result["usage"]["purposes"].items()
    ]
    print_rows(purposes, "nothing in this sitting", "what models were asked in this sitting")
    cascade = result["notes"].get("cascade", {})
    if turns := cascade.get("turns"):
        settled = turns - cascade.get("asked", 0)
        spared = cascade.get("conversations_without_call", 0)
        said = f"{settled:,} of {turns:,} turns were settled without a model, {spared:,} of"
        _console().print(f"{said} {cascade['conversations']:,} conversations needed no call for labels")


def print_counts(counts: Mapping[str, int], title: str, key: str) -> None:
    """Prints counts as a table, most of the time of reasons; nothing when there are none."""
    if counts:
        print_rows([{key: name, "count": count} for name, count in counts.items()], "", title)


def print_preview(seen: Row) -> None:
    """What `tilth run --dry-run` says."""
    print_rows(seen["sources"], "no source", "what would be read")
    console = _console()
    if not seen["asked"]:
        console.print(f"recipe {seen['recipe']}: no model is asked, nothing to pay")
        return
    print_rows(seen["asked"], "", "what models would be asked; tokens of answers at most")
    cost = "no prices set" if seen["cost_most"] is None else f"cost at most {seen['cost_most']:,}"
    console.print(f"{seen['calls']:,} calls, {seen['prompt_tokens']:,} tokens of prompts; {cost}")
    console.print("estimates rest on the logs alone: what is asked later depends on what models answer first")
    if seen["stops_at"]:
        console.print(f"[yellow]note:[/yellow] {seen['stops_at']} might stop this run before its end")


def print_answers(result: Row) -> None:
    """The summary that ends `tilth ask`: rows, what was used, what was set aside and why."""
    console = _console()
    rows = f"{result['rows_in']:,} rows" + (
        f" x {result['samples']} samples" if result["samples"] > 1 else ""
    )
    done = "nothing to do, all is answered" if result["status"] == "unchanged" else "written"
    console.print(f"[bold]run {result['run_id'][:12]}[/bold]: {done}")
    console.print(f"{rows}: {result['rows_out']:,} answered, {result['rows_quarantined']:,} set aside")
    console.print(f"output: {escape(result['output'])}", soft_wrap=True)
    print_counts(result["quarantined"], "set aside", "reason")
    if result["quarantine"]:
        again = "ask again with --retry-failed"
        console.print(f"they are in {escape(result['quarantine'])}; {again}", soft_wrap=True)
    print_usage(result["usage"])


def print_usage(usage: Row) -> None:
    """What was used, in this sitting and over all of the run's."""
    rows = [
        {"": word, "this sitting": usage["sitting"][name], "the run": usage["run"][name]}
        for name, word in _USED.items()
    ]
    costs = {span: usage[name]["cost"] for span, name in (("this sitting", "sitting"), ("the run", "run"))}
    said = {span: "no prices set" if cost is None else cost for span, cost in costs.items()}
    print_rows([*rows, {"": "cost", **said}], "", f"what {escape(usage['model'])} was asked")
    sitting = usage["sitting"]
    if sitting["calls"]:
        flow = (
            f"{sitting['tokens_per_s']:,.0f} tokens/s, {sitting['mean_in_flight']:.1f} in flight on average"
        )
        _console().print(f"{flow}, {sitting['seconds']:.1f} s")


def print_forecast(seen: Row) -> None:
    """What `tilth ask --dry-run` says."""
    if seen["status"] != "forecast":
        print_answers(seen)
        return
    console = _console()
    console.print(f"[bold]run {seen['run_id'][:12]}[/bold]: nothing was asked; this is what it would take")
    counts = {
        "rows": seen["rows_in"],
        "rows that the prompt does not fit": seen["rows_unfit"],
        "requests finished before": seen["finished"],
        "requests": seen["requests"],
        "answered by the cache": seen["hits"],
        "answered with an equal request": seen["shared"],
        "calls": seen["calls"],
        "prompt tokens": seen["prompt_tokens"],
    }
    rows = [{"": name, "count": count} for name, count in counts.items()]
    print_rows(rows, "", f"what {escape(seen['model'])} would be asked")
    words = {
        "answer tokens": _range(seen, "completion_tokens", "no answer of this model in the cache"),
        "cost": _range(seen, "cost", "expected cost unknown") if _priced(seen) else "no prices set",
        "seconds": _range(seen, "seconds", "") if seen["tokens_per_s"] else "not measured yet",
    }
    print_rows([{"": name, "expected": text} for name, text in words.items()], "")
    exact = "exact" if seen["exact"] else "an estimate"
    console.print(f"prompt tokens are {exact}: {escape(seen['counted_by'])}")
    if seen["stops_at"]:
        console.print(f"[yellow]note:[/yellow] {seen['stops_at']} would stop this run before its end")


def _priced(seen: Row) -> bool:
    return seen["cost_most"] is not None


def _range(seen: Row, name: str, unknown: str) -> str:
    expected, most = seen[f"{name}_expected"], seen[f"{name}_most"]
    if expected is None:
        return f"at most {most:,}" + (f" ({unknown})" if unknown else "")
    return f"about {expected:,}, at most {most:,}"


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
        print_counts(one["quarantined"], "would be set aside", "reason")


def dataset_rows(workspace: str, every: bool = False) -> list[dict[str, Any]]:
    """The latest version of each dataset, or every version, newest first."""
    from tilth.catalog import open_catalog

    with open_catalog(workspace, create=False) as catalog:
        return [
            _version_row(version, catalog.tags(version.family))
            for name in catalog.datasets()
            for version in (catalog.versions(name) if every else [catalog.resolve(name)])
        ]


def _version_row(version: Version, tags: Mapping[str, str]) -> dict[str, Any]:
    return {
        "dataset": version.name,
        "version": version.version,
        "rows": version.rows,
        "snapshot_id": version.snapshot_id,
        "created_at": version.created_at.strftime("%Y-%m-%d %H:%M:%S"),
        "tags": [tag for tag, label in tags.items() if label == version.version],
    }


def describe(workspace: str, name: str) -> dict[str, Any]:
    """A dataset's columns, versions, and what its latest or named version was made from."""
    from tilth.catalog import open_catalog
    from tilth.schemas import TABLES

    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(name)
        tags = catalog.tags(version.family)
        versions = [_version_row(each, tags) for each in catalog.versions(version.name)]
    recorded = {key.removeprefix("tilth."): value for key, value in version.properties.items()}
    return {
        **_version_row(version, tags),
        "columns": {field.name: str(field.type) for field in TABLES[version.table]},
        "versions": versions,
        "made_from": {
            key: _plain(recorded[key])
            for key in ("run_id", "summary", "config", "parents", "protocol", "elo", "factors", "retrieval")
            if key in recorded
        },
        "sources": _sources(recorded.get("sources_uri")),
        "licences": _plain(recorded.get("licences")),
        "lineage": (_plain(recorded.get("lineage")) or {}).get(version.table, []),
        "audit": _plain(recorded.get("audit")),
    }


def _sources(uri: str | None) -> int | None:
    """How many files of logs a version was made from; null where it does not say."""
    if uri is None:
        return None
    import fsspec

    fs, path = fsspec.core.url_to_fs(uri)
    return len(json.loads(fs.cat_file(path))) if fs.exists(path) else None


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
    print_rows(_tagged(description["versions"]), "", "versions", hide=["dataset", "snapshot_id"])
    made_from = description["made_from"]
    console.print(f"run: {made_from.get('run_id')}")
    if description["lineage"]:
        console.print(f"made from: {', '.join(description['lineage'])}")
    print_rows(made_from.get("summary", {}).get("sources", []), "", "sources")
    if factors := made_from.get("factors"):
        print_rows(factors, "", "how far measured factors go with the label")
    if elo := made_from.get("elo"):
        print_rows(elo, "", "policies by their matches: Elo with its 95 % interval")
    if licences := description["licences"]:
        print_counts(licences, f"licences of {description['sources'] or 'its'} source files", "licence")
    console.print(f"audit: {_cell(description['audit'])}")


def _tagged(versions: Sequence[Row]) -> list[Row]:
    """Versions for a table on a screen: a column of tags only where there are any."""
    some = any(version["tags"] for version in versions)
    return [
        {**version, "tags": ", ".join(version["tags"])} if some else _untagged(version)
        for version in versions
    ]


def _untagged(version: Row) -> Row:
    return {name: value for name, value in version.items() if name != "tags"}


def print_datasets(rows: Sequence[Row]) -> None:
    """Prints datasets for people."""
    print_rows(_tagged(rows), "no datasets yet: tilth demo makes some", hide=["snapshot_id"])


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
    lists = {name: value for name, value in record.items() if _is_chat(value) or _is_rubric(value)}
    rest = {name: value for name, value in record.items() if name not in lists and value not in (None, [])}
    console.rule(style="dim")
    for name, value in rest.items():
        _print_line(console, name, _line(value))
    for name, items in lists.items():
        for item in items:
            if "weight" in item:
                _print_whole(console, name, _criterion(item))
            else:
                _print_line(console, name, _message(item))


def _message(message: Row) -> str:
    said = _line(message["content"]) or "(calls a tool)"
    return f"[bold]{escape(message['role'])}[/bold]: {said}"


def _criterion(criterion: Row) -> str:
    """A criterion for people: what it weighs, who checks it, what it says, how it does."""
    kind = criterion["kind"].replace("_", " ")
    measured = {"met by": criterion["pass_rate"], "discriminates": criterion["discrimination"]}
    found = ", ".join(f"{name} {value:.2f}" for name, value in measured.items() if value is not None)
    said = f"[bold]{criterion['weight']:+.2f}[/bold] {kind}, {criterion['check']}: {_whole(criterion['description'])}"
    return f"{said} ({found})" if found else said


def _print_line(console: Console, name: str, text: str) -> None:
    console.print(f"[dim]{name:>16}[/dim]  {text}", no_wrap=True, overflow="ellipsis", crop=False)


def _print_whole(console: Console, name: str, text: str) -> None:
    """As `_print_line`, but in as many lines as it takes."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(justify="right", width=16, style="dim")
    grid.add_column(overflow="fold")
    grid.add_row(name, text)
    console.print(grid)


def _line(value: Any) -> str:
    return " ".join(_cell(value).split())


def _whole(text: str) -> str:
    return escape(" ".join(printable(text).split()))


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _is_rubric(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "weight" in value[0]


def query_rows(workspace: str, sql: str) -> list[dict[str, Any]]:
    """The rows that a query gives."""
    from tilth.catalog import open_catalog, query

    return query(open_catalog(workspace, create=False), sql).to_pylist()
