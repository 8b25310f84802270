"""What recipes over a dataset have in common: where they start, what they cost, how they go on, what leaves them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from integration.killing import killed_after, lost
from integration.reasons_world import STANDARD, Made, Released, calls, engine, observe, release
from loopback import Loopback, serve
from tilth.flows.cli import main
from tilth.flows.conductor import Conductor
from tilth.flows.export import export
from tilth.flows.recipes import RECIPES
from tilth.flows.result import Dataset, RunResult
from tilth.flows.run import run
from tilth.flows.settings import load
from tilth.schemas import ConfigError, NotFound, TilthError
from tilth.schemas.formats import FORMATS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("reasons"),
    pytest.mark.usefixtures("without_beam_or_gx"),
]

FIRST: Final[Mapping[str, Sequence[str]]] = {
    "rationales": [f"rationales-{kind}" for kind in ("general", "specific", "judgment", "option")],
    "rubrics": ["criteria-contrast", "criteria-model"],
    "orbit": ["orbit"],
    "judge_training": ["judge-hasty"],
}
"""What each recipe asks before it knows any answer."""
IN_FLIGHT: Final = 4


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    with serve(script="sensible") as one:
        yield one


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    return release(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("recipe", STANDARD)
def test_every_table_is_committed_and_passes_its_audit(
    recipe: str, released: Released, server: Loopback
) -> None:
    """All tables of the recipe in one release that names its parent; audited again, no critical check fails."""
    made = released.standard(recipe, server).made
    assert made.result.status == "committed"
    assert {one.name for one in made.result.datasets} == {
        f"{recipe}.{name}" for name in RECIPES[recipe].lineage
    }
    assert all(one.rows > 0 for one in made.result.datasets)
    parent = f"observed.pairs@{released.observed.version('pairs').version}"
    for name, report in made.audits().items():
        assert report.failed_critical == (), name
        assert any(check.success for check in report.checks)
        assert json.loads(made.version(name.partition(".")[2]).properties["tilth.parents"]) == [parent]
    assert [(one.source, one.rows_in, one.rows_quarantined) for one in made.result.sources] == [
        (parent, released.table("pairs").height, 0)
    ]


@pytest.mark.parametrize("recipe", STANDARD)
def test_a_dry_run_names_the_calls_of_the_first_round(
    recipe: str, released: Released, server: Loopback
) -> None:
    """It asks nothing; what depends on no answer is exact, call for call, and of the rest it says that it guesses."""
    told = released.standard(recipe, server)
    assert told.received == 0
    exact = {one["purpose"]: one["calls"] for one in told.forecast["asked"] if one["known"] == "exact"}
    asked = calls(told.made)
    assert exact == {purpose: asked[purpose] for purpose in FIRST[recipe]}
    assert set(asked) == {one["purpose"] for one in told.forecast["asked"]}
    guessed = {one["purpose"]: one["calls"] for one in told.forecast["asked"] if one["known"] == "estimate"}
    assert all(guessed[purpose] >= count for purpose, count in asked.items() if purpose in guessed)


@pytest.mark.parametrize("recipe", STANDARD)
def test_the_same_command_again_does_nothing(recipe: str, released: Released, server: Loopback) -> None:
    """It names what was committed and asks nobody, also where the parent's version is spelled out."""
    first = released.standard(recipe, server).made
    before = server.stats()["received"]
    version = f"observed.pairs@{released.observed.version('pairs').version}"
    for options in ({}, {"dataset": version}):
        again = released.run(recipe, server, options, **STANDARD[recipe])
        assert again.result.status == "unchanged"
        assert again.result.datasets == first.result.datasets
    assert server.stats()["received"] == before


def test_a_new_version_of_the_parent_is_another_start(tmp_path: Path) -> None:
    """The latest version is meant, and the run is known by it; the earlier one, when named, is the earlier run."""
    released = Released(tmp_path, observe(tmp_path))
    old, new = released.observed.version("pairs"), observe(tmp_path, seed=1).version("pairs")
    names = [f"{one.name}@{one.version}" for one in (old, new)]
    runs = [released.run("rubrics", None, {"dataset": name}) for name in (*names, "observed.pairs", names[0])]
    assert [one.result.status for one in runs] == ["committed", "committed", "unchanged", "unchanged"]
    assert [one.result.sources[0].source for one in runs] == [*names, names[1], names[0]]


# Errors


ASKED: Final = {"engine": {"kind": "openai", "model": "m", "base_urls": ["http://127.0.0.1:9/v1"]}}
WRONG: Final[Mapping[str, tuple[str, Mapping[str, Any], type[TilthError], str]]] = {
    "no dataset": ("rationales", {"dataset": None}, ConfigError, "--from observed.pairs"),
    "another table": ("rubrics", {"dataset": "observed.conversations"}, ConfigError, "FAMILY.pairs"),
    "logs too": ("rationales", {"sources": ["log.jsonl"]}, ConfigError, "leave out --source"),
    "a dataset for logs": ("observed", {"sources": ["log.jsonl"]}, ConfigError, "leave out --from"),
    "unknown dataset": ("rationales", {"dataset": "observed.nothing"}, NotFound, "tilth catalog ls"),
    "unknown version": (
        "rationales",
        {"dataset": "observed.pairs@1999.01.01.1"},
        NotFound,
        "tilth catalog ls",
    ),
    "no seeds": ("orbit", ASKED, ConfigError, "--set orbit.seeds=FILE"),
    "missing seeds": ("orbit", {**ASKED, "orbit": {"seeds": "nowhere.jsonl"}}, NotFound, "nowhere.jsonl"),
    "orbit without a model": ("orbit", {"orbit": {"seeds": "nowhere.jsonl"}}, ConfigError, "--model"),
    "judges without a model": ("judge_training", {}, ConfigError, "--model"),
    "a policy without a model": ("rubrics", {"rubrics": {"policy": "small"}}, ConfigError, "--model"),
    "a judge without a model": (
        "rationales",
        {"rationales": {"judging": {"judges": ["other"]}}},
        ConfigError,
        "--model",
    ),
    "an unknown kind": (
        "rationales",
        {"rationales": {"kinds": ["poetic"]}},
        ConfigError,
        "general, specific",
    ),
    "an unknown source": (
        "rubrics",
        {"rubrics": {"sources": ["dreams"]}},
        ConfigError,
        "constraints, complaints",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_run_says_what_to_do(case: str, released: Released) -> None:
    """Errors name what was found, what is wanted or what to do next; nothing is committed."""
    recipe, given, kind, told = WRONG[case]
    options = {"dataset": "observed.pairs", "workspace": str(released.workspace), **given}
    with pytest.raises(kind) as caught:
        run(recipe, load(options=options), Conductor())
    assert told in str(caught.value)
    assert caught.value.exit_code == (2 if kind is ConfigError else 1)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["rationales"], 2, "add --from, for example --from observed.pairs"),
        (["observed", "--from", "observed.pairs"], 2, "leave out --from"),
        (["rubrics", "--from", "observed.nothing"], 1, "observed.nothing"),
        (["rationales", "--from", "observed.pairs", "--policy", "small"], 2, "leave out --policy"),
    ],
)
def test_the_command_line_ends_with_the_code_of_the_error(
    words: Sequence[str],
    code: int,
    told: str,
    released: Released,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Usage ends with 2, what is not there with 1, each without a traceback."""
    monkeypatch.setattr(sys, "argv", ["tilth", "run", *words, "-w", str(released.workspace)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert told in said
    assert "Traceback" not in said


# Export


SOURCES: Final = {"rubrics": "rubrics", "rationales": "rationales", "pairs": "judge_training"}


@pytest.mark.parametrize(
    ("name", "table"),
    [(name, table) for name, form in FORMATS.items() for table in form.of if table in SOURCES],
)
def test_an_export_loads_where_trainers_load_it(
    name: str, table: str, released: Released, server: Loopback, tmp_path: Path
) -> None:
    """Every format, of a release made from another one, is a parquet file that `datasets` reads back whole."""
    datasets = pytest.importorskip("datasets")
    made = released.standard(SOURCES[table], server).made
    version = made.version(table)
    output = str(tmp_path / "rows.parquet")
    told = export(str(released.workspace), f"{version.name}@{version.version}", name, output, None)
    rows = datasets.load_dataset(
        "parquet", data_files=output, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.num_rows == told["rows"] > 0
    assert rows.column_names == told["columns"]
    chats = {"prompt", "messages", "context"} & set(rows.column_names)
    assert all(turns[-1]["role"] == "user" for chat in chats for turns in rows[chat])
    if "split" in rows.column_names:
        assert set(rows["split"]) == {"train", "validation", "test"}
        part = export(str(released.workspace), f"{version.name}@{version.version}", name, output, "test")
        assert part["rows"] == sum(split == "test" for split in rows["split"])


# Killed


def _command(server: Loopback, workspace: Path) -> list[str]:
    asked = [
        "--from",
        "observed.pairs",
        "--base-url",
        server.url,
        "--model",
        "writer-2",
        "--judge",
        "one",
        "--judge",
        "two",
    ]
    own = ["--set", "rationales.kinds=[specific]", "--set", f"worker.window.size={IN_FLIGHT}"]
    return [
        sys.executable,
        "-m",
        "tilth.flows.cli",
        "run",
        "rationales",
        *asked,
        *own,
        "-w",
        str(workspace),
        "--json",
    ]


def test_a_run_that_is_killed_goes_on_where_it_stopped(
    released: Released, server: Loopback, tmp_path: Path
) -> None:
    """Killed while the first judge is asked: the writer is not asked again, and the tables are the undisturbed ones."""
    sections = {"kinds": ["specific"], "judging": {"judges": ["one", "two"]}}
    whole = released.run("rationales", server, {"engine": engine(server, "writer-2")}, **sections)
    asked = calls(whole)
    observe(tmp_path)
    with serve(script="sensible", log=tmp_path / "log", latency_s=0.05, slots=IN_FLIGHT) as slow:
        wanted = asked["rationales-specific"] + asked["recover-one"] // 2
        at_s = killed_after(wanted, slow, _command(slow, tmp_path))
        done = subprocess.run(
            _command(slow, tmp_path), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        received, may_be_lost = slow.stats()["received"], lost(slow, at_s)
    result = json.loads(done.stdout)
    again = {name: used["calls"] for name, used in result["usage"]["purposes"].items() if used["calls"]}
    assert result["status"] == "committed"
    assert set(again) == {"recover-one", "recover-two"}
    assert again["recover-two"] == asked["recover-two"]
    assert received - sum(asked.values()) <= may_be_lost
    assert again["recover-one"] <= asked["recover-one"] - asked["recover-one"] // 2 + may_be_lost
    told: dict[str, Any] = {**result, "datasets": [Dataset(**one) for one in result["datasets"]]}
    resumed = Made(tmp_path, RunResult(**told))
    for name in RECIPES["rationales"].lineage:
        assert resumed.table(name).equals(whole.table(name)), name
    assert "specific" in set(whole.table("rationales")["kind"])
