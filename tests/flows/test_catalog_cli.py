"""`tilth catalog` as a user meets it: what the commands that look print, for people and for programs."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from tilth.catalog import AuditReport, Check, Release, open_catalog
from tilth.flows.catalog_cli import catalog_app
from tilth.flows.catalog_show import spark
from tilth.schemas import ConfigError, NotFound, TilthError
from tilth.transforms.parts import write_part

DAY = date(2026, 11, 21)
ESCAPE = "\x1b]0;owned\x07"


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pair(number: int, **other: Any) -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "prompt_id": f"{number:032x}",
        "prompt": [turn("system", "Be brief."), turn("user", f"question {number} about peas")],
        "chosen": [turn("assistant", f"five centimetres{ESCAPE} {'deep ' * 400}")],
        "rejected": [turn("assistant", "on the [bold]roof[/bold]")],
        "origin": "observed_recovery" if number % 2 else "human_rank",
        "margin": 1.5,
        "feedback_ids": ["f" * 32],
        "split": "train",
        **other,
    }


COMPLAINT = {
    "id": "f" * 32,
    "conversation_id": "c" * 32,
    "polarity": "negative",
    "labels": ["factual_error"],
    "evidence": [{"label": "factual_error", "text": "not on the roof", "start": 4, "end": 19}],
    "split": "train",
}
LABEL = {
    "id": "2" * 32,
    "prompt": [turn("user", "what to sow?")],
    "completion": [turn("assistant", "stones")],
    "label": False,
    "split": "test",
}
PASSED = Check("pairs", "rows", "between", "1", 3, "critical", True, "")
WARNED = Check("pairs", "near_equal_share", "between", "0", 0.5, "warning", False, "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A workspace with three pairs, then four, of which one has another margin; the older is golden."""
    workspace = str(tmp_path_factory.mktemp("catalog"))
    first = [pair(n) for n in range(3)]
    releases = {"r1": first, "r2": [*first[:2], pair(2, margin=0.5), pair(3)]}
    with open_catalog(workspace) as catalog:
        for number, (run, pairs) in enumerate(releases.items()):
            rows = {"pairs": pairs, "feedback": [COMPLAINT], "unpaired": [LABEL]}
            files = {
                table: [
                    write_part(
                        pl.DataFrame(some), f"{catalog.staging('observed', table, run)}/0.parquet", table
                    ).uri
                ]
                for table, some in rows.items()
            }
            measured = {"pairs": {"chosen_longer_share": 0.5 + number / 4, "near_equal_share": None}}
            report = AuditReport(measured, (PASSED, WARNED)[: 2 - number])
            properties = {"tilth.licences": json.dumps({"cc-by-4.0": 2})}
            catalog.publish(Release("observed", run, files, properties, report, DAY))
        catalog.tag("observed", "2026.11.21.1", "golden")
    return workspace


@pytest.fixture
def ask(place: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in the workspace and gives what it prints; errors come through."""
    monkeypatch.setenv("COLUMNS", "110")

    def command(*words: str, columns: int = 110) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        done = CliRunner().invoke(catalog_app, [*words, "-w", place])
        if isinstance(done.exception, TilthError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return command


def test_every_command_teaches_by_example() -> None:
    """The help of each command begins with what it does and holds a command to try."""
    commands = typer.main.get_command(catalog_app).commands  # pyright: ignore[reportAttributeAccessIssue]
    assert {"ls", "show", "head", "query", "log", "diff", "lineage"} <= set(commands)
    assert all(
        f"tilth catalog {name} " in (one.help or "") + " " for name, one in commands.items() if name != "ls"
    )


def test_datasets_are_listed_with_their_tags(ask: Any) -> None:
    """`ls` shows the latest version of each, with --all every one; tags stand beside the versions that they name."""
    latest = json.loads(ask("ls", "--json"))
    assert [(one["dataset"], one["version"], one["tags"]) for one in latest] == [
        (f"observed.{table}", "2026.11.21.2", []) for table in ("feedback", "pairs", "unpaired")
    ]
    everything = json.loads(ask("ls", "--all", "--json"))
    assert len(everything) == 6
    assert [one["tags"] for one in everything] == [[], ["golden"]] * 3
    assert "golden" in ask("ls", "--all")
    assert "tags" not in ask("ls")


def test_a_dataset_is_shown_with_tags_and_licences(ask: Any) -> None:
    """`show` takes a tag, and tells licences of sources and what checks said."""
    shown = json.loads(ask("show", "observed.pairs@golden", "--json"))
    assert (shown["version"], shown["tags"], shown["licences"]) == (
        "2026.11.21.1",
        ["golden"],
        {"cc-by-4.0": 2},
    )
    assert shown["audit"]["failed"]["warning"] == ["near_equal_share"]
    assert "cc-by-4.0" in ask("show", "observed.pairs")


def test_pairs_stand_side_by_side(ask: Any) -> None:
    """`head --chat` shows the prompt, then both replies beside each other, then the complaint that led to the pair."""
    wide = ask("head", "observed.pairs", "-n", "1", "--chat")
    assert re.search(r"chosen.*rejected", wide)
    assert re.search(r"five centimetres.*on the \[bold\]roof\[/bold\]", wide)
    assert "origin human_rank, margin 1.5" in wide
    assert "“not on the roof” (factual_error)" in wide
    assert "more characters" in wide
    narrow = ask("head", "observed.pairs", "-n", "1", "--chat", columns=60)
    assert not re.search(r"chosen.*rejected", narrow)
    assert narrow.index("chosen") < narrow.index("rejected")
    assert "labelled bad" in ask("head", "observed.unpaired", "--chat")


@pytest.mark.parametrize("words", [("--chat",), ()])
def test_logs_do_not_steer_the_terminal(ask: Any, words: tuple[str, ...]) -> None:
    """Escape sequences in logged text are not sent to the terminal."""
    assert "\x1b" not in ask("head", "observed.pairs", *words)


def test_rows_can_be_chosen(ask: Any) -> None:
    """By origin and split, and drawn by a seed that draws the same again."""
    rows = json.loads(ask("head", "observed.pairs", "--origin", "human_rank", "--json"))
    assert {row["origin"] for row in rows} == {"human_rank"}
    assert json.loads(ask("head", "observed.pairs", "--split", "test", "--json")) == []
    drawn = [ask("head", "observed.pairs", "-n", "2", "--sample", seed, "--json") for seed in "1123456"]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    with pytest.raises(TilthError, match="unpaired has no origin"):
        ask("head", "observed.unpaired", "--origin", "human_rank")


def test_a_query_writes_what_it_finds(ask: Any, tmp_path: Path) -> None:
    """To JSON, CSV with nested columns as JSON, and Parquet; on a terminal a hundred rows, and how many more."""
    sql = "select id, prompt, margin from observed.pairs order by id"
    for name in ("rows.json", "rows.csv", "rows.parquet"):
        ask("query", sql, "-o", str(tmp_path / name))
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["margin"] for row in rows] == [1.5, 1.5, 0.5, 1.5]
    assert pl.read_parquet(tmp_path / "rows.parquet").to_dicts() == rows
    read = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [json.loads(row["prompt"]) for row in read] == [row["prompt"] for row in rows]
    assert json.loads(ask("query", sql, "--json")) == rows
    assert ask("query", sql, "--format", "csv").count("question") == 4
    assert json.loads(ask("query", sql, "--format", "json", "--max-rows", "1")) == rows[:1]
    assert json.loads(ask("query", "select 'nan'::float as x, 'a'::blob as y", "--json")) == [
        {"x": None, "y": "61"}
    ]
    assert "and 400 more rows" in ask("query", "select * from range(500)")
    assert "more rows" not in ask("query", "select * from range(500)", "--max-rows", "500")


def test_a_failed_query_leaves_the_old_file(ask: Any, tmp_path: Path) -> None:
    """A file appears whole or not at all."""
    target = tmp_path / "rows.csv"
    ask("query", "select 1 as one", "-o", str(target))
    with pytest.raises(TilthError):
        ask("query", "select cast(if(i = 99999, 'x', '1') as int) from range(100000) t(i)", "-o", str(target))
    assert target.read_text() == "one\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    for words in (["-o", "rows.xlsx"], ["--format", "parquet"], ["--format", "table", "-o", "x.csv"]):
        with pytest.raises(ConfigError):
            ask("query", "select 1", *words)


def test_the_log_follows_metrics(ask: Any) -> None:
    """One row a version, newest first, with the change in rows, tags, checks, and metrics of the stored audits."""
    newest, oldest = json.loads(ask("log", "observed.pairs", "--json"))
    assert (newest["version"], newest["rows"], newest["change"], newest["run_id"]) == (
        "2026.11.21.2",
        4,
        1,
        "r2",
    )
    assert (oldest["change"], oldest["tags"], newest["checked"]) == (None, ["golden"], None)
    assert newest["metrics"] == {"chosen_longer_share": 0.75, "near_equal_share": None}
    assert oldest["checks"]["failed"]["warning"] == ["near_equal_share"]
    told = ask("log", "observed.pairs", columns=80)
    assert re.search(r"chosen_longer_share +0\.5 +0\.75 +▁█", told)
    assert "near_equal_share" not in told  # no version has it
    assert "1 ok, 1 warning" in told
    with pytest.raises(NotFound, match="chosen_longer_share"):
        ask("log", "observed.pairs", "--metric", "chosen_longer")


def test_later_checks_are_in_the_log(ask: Any, place: str) -> None:
    """What `tilth check` stored is counted, with its last verdict."""
    home = Path(place) / "catalog" / "warehouse" / "observed" / "checks" / "unpaired@2026.11.21.2"
    home.mkdir(parents=True)
    for stamp, failed in (("20261121T100000Z", [{}]), ("20261122T100000Z", [])):
        stored = {"checked_at": stamp, "against": None, "failed_critical": failed}
        (home / f"{stamp}.json").write_text(json.dumps(stored))
    checked = json.loads(ask("log", "observed.unpaired", "--json"))[0]["checked"]
    assert checked == {"times": 2, "checked_at": "20261122T100000Z", "against": None, "failed_critical": 0}
    told = ask("log", "observed.unpaired")
    assert "2×: ok" in told


def test_a_spark_line_has_a_block_a_version() -> None:
    """The lowest value has the lowest block, the highest the highest; a missing value has none."""
    assert spark([1.0, None, 3.0, 2.0]) == "▁ █▅"
    assert spark([2.0, 2.0]) == "▁▁"


def test_a_diff_is_counted_listed_and_written(ask: Any, tmp_path: Path) -> None:
    """`diff` counts kinds, lists ids, shows rows as chats, and writes all of them to a table."""
    target = str(tmp_path / "changes.parquet")
    found = json.loads(ask("diff", "observed.pairs", "--json", "--show", "1", "-o", target))
    assert found["counts"] == {"added": 1, "removed": 0, "changed": 1, "relabelled": 0}
    assert found["columns"] == {"margin": 1}
    assert [row["id_after"] for row in found["ids"]["added"]] == [f"{3:032x}"]
    assert sorted(pl.read_parquet(target).get_column("kind")) == ["added", "changed"]
    told = ask("diff", "observed.pairs@golden", "2026.11.21.2", "--chat")
    assert "question 3 about peas" in told
    assert f"{3:032x}" in ask("diff", "observed.pairs")
    assert "no difference" in ask("diff", "observed.unpaired")


def test_a_lineage_is_drawn(ask: Any) -> None:
    """`lineage` draws both trees with columns that hold no words of users; --json is the same for programs."""
    told = ask("lineage", f"{3:032x}")
    assert "observed.feedback@2026.11.21.2" in told
    assert "factual_error[4:19]" in told
    assert "roof" not in told
    found = json.loads(ask("lineage", "f" * 32, "--fan-out", "2", "--json"))
    assert found["made_into"]["more"] == {"pairs.feedback_ids": 2}
