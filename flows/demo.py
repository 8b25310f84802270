"""`tilth demo`: the main job on the sample logs, then a short guided look at what it made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from tilth.flows.launch import launch
from tilth.flows.show import first_rows, print_record, print_result, print_rows, query_rows

DEFAULT_WORKSPACE = "./tilth-workspace"
_LOOKS = (
    (
        "What users said, by label. Every row names the turn it came from and quotes it word for word.",
        "select polarity, label, count(*) as turns from (select polarity, unnest(labels) as label "
        "from observed.feedback where method = 'rules') group by all order by turns desc limit 8",
    ),
    (
        "Preference pairs, by where the preference came from.",
        "select origin, count(*) as pairs, avg(margin) as mean_margin from observed.pairs group by 1 order by 1",
    ),
    (
        "What was set aside, and why. Nothing is lost: these rows are a table too.",
        "select stage, reason, count(*) as n from observed.quarantine group by all order by n desc limit 8",
    ),
)


def samples() -> Path:
    """The folder of sample logs: in the package when installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "samples" / "logs"
    return installed if installed.is_dir() else here.parent / "samples" / "logs"


def run_demo(workspace: str | None, as_json: bool, print_json: Callable[[object], None]) -> None:
    """Runs the demo and prints it, or the run's result as JSON."""
    started = time.perf_counter()
    place = workspace or DEFAULT_WORKSPACE
    sources = sorted(
        str(path) for path in samples().iterdir() if ".openai." in path.name or ".sharegpt." in path.name
    )
    sources += sorted(str(path) for path in samples().glob("*.oasst.jsonl"))
    result = launch("observed", None, {"sources": sources, "workspace": place}, (), quiet=as_json)
    if as_json:
        print_json(result)
        return
    print_result(result, workspace)
    _look_around(place)
    Console().print(f"\ndemo done in {time.perf_counter() - started:.1f} s; the datasets are in {place}")


def _look_around(place: str) -> None:
    console = Console(highlight=False)
    for text, sql in _LOOKS:
        console.print(f"\n[bold]{text}[/bold]")
        print_rows(query_rows(place, sql), "none")
    console.print("\n[bold]One pair: the reply that made the user content, over the one that did not.[/bold]")
    for record in _one_pair(place):
        print_record(record)


def _one_pair(place: str) -> list[dict[str, Any]]:
    columns = "prompt, rejected, chosen, origin, margin"
    wanted = f"select {columns} from observed.pairs where origin = 'observed_recovery' limit 1"
    return query_rows(place, wanted) or first_rows(place, "observed.pairs", 1)
