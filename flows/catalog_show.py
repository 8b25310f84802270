"""What `tilth catalog` shows of rows and versions: chats side by side, histories, differences, lineages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final  # Any: cells of rows, JSON values

import polars as pl
from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tilth.catalog import Catalog, Version, open_catalog, releases_behind
from tilth.catalog.parts import scan
from tilth.flows.show import print_counts, print_record, print_rows, printable
from tilth.schemas import TABLES, BadInput

if TYPE_CHECKING:
    from tilth.catalog.diff import Diff
    from tilth.catalog.lineage import Lineage, Node

Row = Mapping[str, Any]
SIDE_BY_SIDE: Final = 80  # columns of a terminal from which two replies stand beside each other
_MESSAGE_CHARS: Final = 1_500
_BARS: Final = "▁▂▃▄▅▆▇█"
_COLOURS: Final = {"system": "magenta", "user": "cyan", "assistant": "green", "tool": "yellow"}
_HEADS: Final = (
    "origin",
    "margin",
    "label",
    "weight",
    "role",
    "model",
    "method",
    "split",
)  # what heads a chat


def _console() -> Console:
    return Console(highlight=False)


# Rows.


@dataclass(frozen=True, slots=True)
class Look:
    """Which rows `head` shows.

    Args:
        name: the dataset.
        rows: how many.
        split: only of this split.
        origin: only of this origin.
        sample: a seed: instead of the first rows, some that it draws; the same each time.
    """

    name: str
    rows: int = 5
    split: str | None = None
    origin: str | None = None
    sample: int | None = None


def looked_at(workspace: str, look: Look) -> list[dict[str, Any]]:
    """The rows that are asked for, as plain values. Raises `BadInput` for a table without such a column."""
    with open_catalog(workspace, create=False) as catalog:
        version = catalog.resolve(look.name)
        return _rows(version, look).to_dicts()


def _rows(version: Version, look: Look) -> pl.DataFrame:
    frame = scan(version.table, version.files)
    for column, value in (("split", look.split), ("origin", look.origin)):
        if value is not None:
            _refuse_without(version.table, column)
            frame = frame.filter(pl.col(column) == value)
    if look.sample is None:
        return frame.head(look.rows).collect()
    drawn = frame.select("id", drawn=pl.col("id").hash(look.sample)).bottom_k(look.rows, by="drawn")
    ids = drawn.collect(engine="streaming").sort("drawn").get_column("id")
    return frame.filter(pl.col("id").is_in(ids.implode())).collect(engine="streaming").sort("id")


def _refuse_without(table: str, column: str) -> None:
    if column not in TABLES[table].names:
        having = ", ".join(name for name, schema in TABLES.items() if column in schema.names)
        raise BadInput(f"table {table} has no {column}", wanted=f"one of {having}")


def print_chats(workspace: str, name: str, records: Sequence[Row]) -> None:
    """Prints rows as chats: of pairs both replies, side by side where there is room."""
    with open_catalog(workspace, create=False) as catalog:
        complaints = _complaints(catalog, catalog.resolve(name), records)
    console = _console()
    if not records:
        console.print("no rows")
    for record in records:
        if not _chats(record):
            print_record(record)
            continue
        console.rule(_heading(record), style="dim", align="left")
        for part in _chat(record, console.width):
            console.print(part)
        for one in record.get("feedback_ids") or []:
            if one in complaints:
                console.print(f"[yellow]complaint[/yellow] {complaints[one]}")


def _chats(record: Row) -> list[str]:
    """The columns of messages, in order."""
    names = ("messages", "prompt", "completion", "reference", "chosen", "rejected")
    return [name for name in names if record.get(name)]


def _heading(record: Row) -> str:
    said = [f"{name} {_short(record[name])}" for name in _HEADS if record.get(name) is not None]
    return f"[bold]{record['id'][:12]}[/bold]  {escape(', '.join(said))}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else printable(str(value))


def _chat(record: Row, width: int) -> Iterator[Group | Table | Panel]:
    columns = _chats(record)
    if not {"chosen", "rejected"} <= set(columns):
        for name in columns:
            title = None if name in ("messages", "prompt") else f"[bold]{_title(name, record)}[/bold]"
            yield _panel(record[name], title, "dim") if title else _turns(record[name])
        return
    yield _turns(record["prompt"])
    sides = [_panel(record[side], f"[bold]{side}[/bold]", colour) for side, colour in _SIDES]
    if width < SIDE_BY_SIDE:
        yield from sides
        return
    grid = Table.grid(expand=True)
    for _ in sides:
        grid.add_column(ratio=1)
    grid.add_row(*sides)
    yield grid


_SIDES: Final = (("chosen", "green"), ("rejected", "red"))


def _title(name: str, record: Row) -> str:
    label = record.get("label")
    return name if label is None else f"{name}, labelled {'good' if label else 'bad'}"


def _panel(messages: Sequence[Row], title: str | None, colour: str) -> Panel:
    return Panel(_turns(messages), title=title, title_align="left", border_style=colour)


def _turns(messages: Sequence[Row]) -> Group:
    return Group(*(_turn(message) for message in messages))


def _turn(message: Row) -> Text:
    role, content = str(message["role"]), printable(message["content"] or "(calls a tool)")
    more = len(content) - _MESSAGE_CHARS
    said = Text(f"{role}: ", style=f"bold {_COLOURS.get(role, 'dim')}")
    said.append(content[:_MESSAGE_CHARS], style="not bold default")
    if more > 0:
        said.append(f" … {more:,} more characters", style="not bold dim")
    return said


def _complaints(catalog: Catalog, version: Version, records: Sequence[Row]) -> dict[str, str]:
    """What users complained of, word for word, with the labels, by the id of the signal."""
    wanted = {one for record in records for one in record.get("feedback_ids") or []}
    uris = [uri for files in releases_behind(catalog, version) for uri in files.get("feedback", ())]
    if not wanted or not uris:
        return {}
    negative = (pl.col("polarity") == "negative") & pl.col("id").is_in(list(wanted))
    rows = (
        scan("feedback", uris).filter(negative).select("id", "labels", "evidence").collect(engine="streaming")
    )
    return {row["id"]: _complaint(row) for row in rows.iter_rows(named=True)}


def _complaint(signal: Row) -> str:
    quotes = dict.fromkeys(f"“{printable(one['text'])}”" for one in signal["evidence"] or [])
    return escape(f"{' … '.join(quotes)} ({', '.join(signal['labels'] or [])})".strip())


# Versions.


def logged(workspace: str, name: str, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The versions of a dataset, newest first, as `tilth.catalog.history` tells them."""
    from tilth.catalog.history import history

    with open_catalog(workspace, create=False) as catalog:
        return history(catalog, name, metrics)


def print_log(name: str, entries: Sequence[Row]) -> None:
    """Prints versions for people: one line each, and then for each metric how it went, oldest first."""
    several = len(entries) > 1
    tagged = any(entry["tags"] for entry in entries)
    checked = any(entry["checked"] for entry in entries)
    rows = [
        {
            "version": entry["version"],
            "made at": entry["created_at"][11:16],  # the version names the day
            "rows": entry["rows"],
            **({"change": "" if entry["change"] is None else f"{entry['change']:+,}"} if several else {}),
            "run": (entry["run_id"] or "")[:8],
            **({"tags": ", ".join(entry["tags"])} if tagged else {}),
            "checks": _checks(entry["checks"]),
            **({"again": _checked(entry["checked"])} if checked else {}),
        }
        for entry in entries
    ]
    print_rows(rows, "no versions", name)
    went = [
        {
            "metric": metric,
            **({"first": values[0]} if several else {}),
            "last": values[-1],
            "all": spark(values),
        }
        for metric, values in _series(entries)
    ]
    if went:
        print_rows(went, "")


def _series(entries: Sequence[Row]) -> Iterator[tuple[str, list[float | None]]]:
    """The metrics that any version has, each with its values, oldest first."""
    for metric in entries[0]["metrics"] if entries else ():
        values = [entry["metrics"][metric] for entry in reversed(entries)]
        if any(value is not None for value in values):
            yield metric, values


def _checks(summary: Row | None) -> str:
    if summary is None:
        return ""
    failed = [f"{len(names)} {severity}" for severity, names in summary["failed"].items() if names]
    return f"{summary['passed']} ok" + "".join(f", {one}" for one in failed)


def _checked(checked: Row | None) -> str:
    if checked is None:
        return ""
    verdict = f"{checked['failed_critical']} critical" if checked["failed_critical"] else "ok"
    return f"{checked['times']}×: {verdict}"


def spark(values: Sequence[float | None]) -> str:
    """One block a value, from the lowest to the highest; a blank for none.

    >>> spark([0.0, 0.5, None, 1.0])
    '▁▅ █'
    """
    known = [value for value in values if value is not None]
    low, high = min(known, default=0), max(known, default=0)
    span = (high - low) or 1
    last = len(_BARS) - 1
    return "".join(
        " " if value is None else _BARS[int((value - low) / span * last + 0.5)] for value in values
    )


# Differences.


def differences(workspace: str, name: str, other: str | None) -> Diff:
    """What differs between two versions; see `tilth.catalog.diff.diff`."""
    from tilth.catalog.diff import diff

    with open_catalog(workspace, create=False) as catalog:
        return diff(catalog, name, other)


def diff_values(found: Diff, shown: int) -> dict[str, Any]:
    """A diff as JSON values, with up to `shown` ids of each kind."""
    return {
        "before": found.before,
        "after": found.after,
        "rows_before": found.rows_before,
        "rows_after": found.rows_after,
        "counts": found.counts(),
        "groups": found.groups(),
        "columns": found.columns(),
        "reasons": found.reasons(),
        "ids": found.ids(shown),
    }


def write_diff(found: Diff, output: str) -> None:
    """Writes all rows that differ, with kind, ids, columns and reason. Raises `ConfigError` for another form."""
    from tilth.transforms.inference.tables import TableWriter

    with TableWriter(output) as out:
        out.write(found.rows)


def print_diff(found: Diff, shown: int) -> None:
    """Prints a diff for people: counts, where, why, and `shown` ids of each kind."""
    console = _console()
    console.print(f"[bold]{found.before}[/bold], {found.rows_before:,} rows")
    console.print(f"[bold]{found.after}[/bold], {found.rows_after:,} rows")
    if found.rows.is_empty():
        console.print("no difference: the same rows with the same values")
        return
    print_counts(found.counts(), "", "rows")
    print_rows(found.groups(), "", "by split and origin")
    print_counts(found.columns(), "changed rows, by what changed", "column")
    print_counts(found.reasons(), "removed rows that the newer release set aside", "reason")
    for kind, rows in found.ids(shown).items():
        for row in rows:
            console.print(f"{kind}  {_ids(row)}", soft_wrap=True)


def _ids(row: Row) -> str:
    ids = dict.fromkeys(row[name] for name in ("id_before", "id_after") if row[name] is not None)
    return "  ".join(filter(None, [" -> ".join(ids), ", ".join(row["columns"] or ()), row["reason"]]))


def print_diff_chats(workspace: str, found: Diff, shown: int) -> None:
    """Prints examples of each kind as chats: what there is now; of removed rows, what there was."""
    for kind, rows in found.ids(shown).items():
        column, name = ("id_before", found.before) if kind == "removed" else ("id_after", found.after)
        ids = [row[column] for row in rows]
        if not ids:
            continue
        with open_catalog(workspace, create=False) as catalog:
            records = catalog.frame(name).filter(pl.col("id").is_in(ids)).collect().to_dicts()
        _console().print(f"\n[bold]{kind}[/bold], from {name}")
        print_chats(workspace, name, records)


# Lineages.


def print_lineage(found: Lineage) -> None:
    """Prints both trees."""
    console = _console()
    for word, tree in (("made from", found.made_from), ("made into", found.made_into)):
        console.print(f"[bold]{word}[/bold]")
        console.print(_branch(tree) if tree.next else f"nothing, as far as the catalog knows: {_node(tree)}")
    if found.also_in:
        console.print(f"also in {', '.join(found.also_in)}")


def _branch(node: Node, at: Tree | None = None) -> Tree:
    here = Tree(_node(node)) if at is None else at.add(_node(node))
    for one in node.next:
        _branch(one, here)
    for via, count in node.more.items():
        here.add(f"[dim]and {count:,} more by {via}[/dim]")
    return here


def _node(node: Node) -> str:
    where = node.dataset or f"{node.table}, not found in these releases"
    facts = ", ".join(f"{name} {_fact(value)}" for name, value in node.facts.items())
    said = f"\n[yellow]“{escape(printable(node.text))}”[/yellow]" if node.text is not None else ""
    return (
        f"[bold]{where}[/bold] {node.id}\n{escape(facts)}{said}"
        if facts
        else f"[bold]{where}[/bold] {node.id}"
    )


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_fact(item) for item in value) or "none"
    if isinstance(value, dict):
        if value.keys() == {"label", "start", "end"}:
            return f"{value['label']}[{value['start']}:{value['end']}]"
        return " ".join(f"{name}={_short(item)}" for name, item in value.items())
    return _short(value)
