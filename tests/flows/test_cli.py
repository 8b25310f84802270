"""The command line as a user meets it: a process, what it prints, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from warm import warm_tilth

LOGS = Path(__file__).resolve().parents[2] / "samples" / "logs"
TREES = str(LOGS / "community.oasst.jsonl")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cli")]


def tilth(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILTH_", "PREFECT_"))}
    command = [str(warm_tilth()), *words]
    env = {**kept, "COLUMNS": "100", **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def read(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    assert read(tilth(made, "run", "observed", "-s", TREES, "--json"))["status"] == "committed"
    return made


def test_the_result_of_a_run_is_json(folder: Path) -> None:
    """--json prints the result and nothing else: ids, counts, datasets, seconds; again, nothing is done."""
    result = read(tilth(folder, "run", "observed", "-s", TREES, "--json"))
    assert {"run_id", "rows_in", "rows_quarantined", "datasets", "seconds"} <= set(result)
    assert (result["status"], result["seconds"]) == ("unchanged", {})
    assert {"name", "version", "rows", "snapshot_id"} == set(result["datasets"][0])
    assert [d["name"].partition(".")[0] for d in result["datasets"]] == ["observed"] * 7
    assert "TILTH_USER_SALT" in result["warnings"][0]


@pytest.mark.parametrize(
    "words",
    [
        ("catalog", "query", "select count(*) from observed.pairs", "--json"),
        ("check", "observed.pairs", "--json"),
        ("catalog", "head", "observed.pairs", "--json"),
    ],
    ids=" ".join,
)
def test_nothing_is_said_beside_the_result(folder: Path, words: tuple[str, ...]) -> None:
    """A command that is started anew and ends as programs do leaves standard error empty; libraries speak there too."""
    done = subprocess.run(
        [sys.executable, "-m", "tilth.flows.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)


def test_every_view_speaks_json(folder: Path) -> None:
    """ls, show, head, query, check and inspect print JSON that a program can use."""
    assert len(read(tilth(folder, "catalog", "ls", "--json"))) == 7
    version = read(tilth(folder, "catalog", "show", "observed.pairs", "--json"))["version"]
    rows = read(tilth(folder, "catalog", "head", f"observed.pairs@{version}", "-n", "2", "--json"))
    assert len(rows) == 2
    assert rows[0]["prompt"][-1]["role"] == "user"
    sql = "select origin, count(*) as n from observed.pairs group by 1 order by 1"
    origins = [row["origin"] for row in read(tilth(folder, "catalog", "query", sql, "--json"))]
    assert "human_rank" in origins
    checks = read(tilth(folder, "check", "observed.pairs", "--json"))["checks"]
    assert {"column", "observed", "wanted", "severity", "success"} <= set(checks[0])
    (found,) = read(tilth(folder, "sources", "inspect", TREES, "--json"))
    assert (found["shape"], len(found["rows"])) == ("oasst", 3)
    assert found["quarantined"] == {"orphan_message": 1, "deleted_message": 1, "nul_character": 1}


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["run", "observed"], 2, "no source given"),
        (["run", "observed", "-s", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (["run", "observd", "-s", TREES], 2, "observd"),
        (["run", "observed", "-s", TREES, "--format", "opnai"], 2, "openai"),
        (
            ["run", "observed", "-s", TREES, "--set", "observed.pairs.min_rnk_gap=2"],
            2,
            "observed.pairs.min_rank_gap",
        ),
        (
            ["run", "observed", "-s", TREES, "--runner", "NoSuchRunner", "--set", "observed.seed=9"],
            2,
            "NoSuchRunner",
        ),
        (["catalog", "show", "observed.pears"], 1, "observed.pairs"),
        (["catalog", "show", "observed.pairs@1999.01.01.1"], 1, "1999.01.01.1"),
        (["catalog", "query", "select * from observed.pears"], 1, "observed.pairs"),
        (["catalog", "query", "select * from read_text('/etc/hostname')"], 1, "catalog"),
        (["catalog", "ls", "-w", "nowhere"], 1, "tilth demo"),
        (["sources", "inspect", "nowhere-*.jsonl"], 1, "nowhere-*.jsonl"),
    ],
)
def test_errors_teach_and_have_their_exit_code(folder: Path, words: list[str], code: int, told: str) -> None:
    """A mistake gets a message that names the thing and what to do, without a traceback."""
    done = tilth(folder, *words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_json_for_programs(folder: Path) -> None:
    """With --json an error is JSON on standard output too."""
    done = tilth(folder, "run", "observed", "-s", "nowhere.jsonl", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "NotFound"


def test_a_run_says_how_it_is_conducted_and_what_to_try_next(folder: Path) -> None:
    """Without a Prefect API the run is direct and says so; the summary ends with commands to try."""
    done = tilth(folder, "run", "observed", "-s", TREES)
    assert "running directly" in done.stderr
    assert "tilth check observed.pairs" in done.stdout


def test_settings_come_from_all_three_places(tmp_path: Path) -> None:
    """The file names the source, the environment the workspace, the command line a setting."""
    (tmp_path / "tilth.yaml").write_text(f"sources: [{TREES}]\nobserved: {{seed: 1}}\n")
    again = ["run", "observed", "--json", "--set", "observed.splits.test=0.2"]
    result = read(tilth(tmp_path, *again, TILTH_WORKSPACE="elsewhere"))
    assert result["status"] == "committed"
    assert (tmp_path / "elsewhere" / "catalog").is_dir()
    shown = read(tilth(tmp_path, "catalog", "show", "observed.pairs", "--json", TILTH_WORKSPACE="elsewhere"))
    assert (shown["made_from"]["config"]["seed"], shown["made_from"]["config"]["splits"]["test"]) == (1, 0.2)


def test_no_secret_and_no_user_text_in_what_is_recorded(tmp_path: Path) -> None:
    """The salt is nowhere in the workspace; no sentence of a user is in manifests, summaries, audits or output."""
    secret = "correct-horse-battery"
    done = tilth(
        tmp_path, "run", "observed", "-s", TREES, "--set", "keep_stages=true", TILTH_USER_SALT=secret
    )
    assert done.returncode == 0
    assert "note:" not in done.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(secret.encode() not in path.read_bytes() for path in files)
    said = [row["text"] for line in Path(TREES).read_bytes().splitlines() if (row := _row(line))]
    told = "".join(path.read_text() for path in files if path.suffix == ".json") + done.stdout + done.stderr
    assert not [text for text in said if len(text) > 25 and text[:25] in told]


def _row(line: bytes) -> dict[str, Any] | None:
    row = json.loads(line)
    return row if row["text"].strip() else None


def test_the_demo_runs_and_guides(tmp_path: Path) -> None:
    """`tilth demo` makes all six tables from the samples and ends with a look at them."""
    done = tilth(tmp_path, "demo")
    assert done.returncode == 0, done.stderr
    assert "What users said" in done.stdout
    assert "One pair" in done.stdout
    assert read(tilth(tmp_path, "catalog", "ls", "--json"))[0]["rows"] > 150


@pytest.mark.parametrize(
    "words",
    [["run", "observed", "-s"], ["schedule", "add", "observed", "--every", "1h", "--source"]],
    ids=["run", "schedule"],
)
def test_a_pattern_without_quotes_is_explained(folder: Path, words: list[str]) -> None:
    """The shell makes several words of it; the program says so, and runs nothing over the first file alone."""
    done = tilth(folder, *words, "logs/a.jsonl", "logs/b.jsonl", "logs/c.jsonl")
    assert done.returncode == 2
    assert "2 unexpected words, as logs/b.jsonl" in done.stderr
    assert "stands in quotes" in done.stderr


@pytest.mark.parametrize(
    "words", [[], ["run"], ["catalog"], ["catalog", "query"], ["sources", "inspect"], ["check"]]
)
def test_help_teaches(folder: Path, words: list[str]) -> None:
    """Every command explains itself."""
    done = tilth(folder, *words, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 25
