"""Schedules: what is one, what the file holds after an edit, when runs are due; the sample for teams."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from tilth.flows.schedule_cli import schedule_app
from tilth.flows.schedules import EPOCH, Schedule, edited, schedules_of
from tilth.flows.up import _alone, at_work, find_server, home_of
from tilth.schemas import BadInput, ConfigError, TilthError

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 21, 22, 7, 3, tzinfo=UTC)


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(schedule_app, list(arguments))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


# What a schedule is


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({}, "either"),
        ({"cron": "0 3 * * *", "every": "5m"}, "either"),
        ({"cron": "@daily"}, "five fields"),
        ({"cron": "0 3 * * * *"}, "five fields"),
        ({"cron": "0 3 L * *"}, "five fields"),
        ({"cron": "61 3 * * *"}, "minute"),
        ({"cron": "0 0 31 2 *"}, "day"),
        ({"cron": "0 0 */2 * 1"}, "different days"),
        ({"every": "soon"}, "age"),
        ({"every": "0s"}, "one second"),
        ({"every": "5m", "timezone": "UTC"}, "timezone"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "IANA"),
        ({"every": "5m", "settings": {"user_salt": "s"}}, "secret"),
        ({"every": "5m", "settings": {"engine": {"api_key": "s"}}}, "secret"),
        ({"every": "5m", "settings": {"cache_url": "postgresql://me:pw@host/db"}}, "secret"),
        ({"every": "5m", "settings": {"sources": ["s3://me:pw@host/x"]}}, "secret"),
        ({"every": "5m", "settings": {"schedules": {}}}, "schedules"),
        ({"every": "5m", "recipes": "observed"}, "recipes"),
    ],
)
def test_what_is_no_schedule(values: dict[str, Any], word: str) -> None:
    """What cannot be a schedule, or would put a secret into the server's database, is refused by name."""
    with pytest.raises(ValidationError, match=word):
        Schedule.model_validate({"recipe": "observed", **values})


def test_runs_read_what_is_new_unless_told_otherwise() -> None:
    """A scheduled run is incremental; its own settings may say otherwise."""
    assert Schedule(recipe="observed", every="5m").options == {"incremental": True}
    told = Schedule(recipe="observed", every="5m", settings={"incremental": False, "sources": ["a"]})
    assert told.options == {"incremental": False, "sources": ["a"]}


_FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "1,4", "2-6/2"])


@pytest.mark.slow  # Prefect is imported
@settings(deadline=None)
@given(
    minute=_FIELD,
    hour=_FIELD,
    day=_FIELD,
    weekday=st.sampled_from(["*", "1", "MON-FRI", "sun", "7"]),
    minutes=st.integers(0, 600_000),
)
def test_cron_is_read_as_prefect_reads_it(
    minute: str, hour: str, day: str, weekday: str, minutes: int
) -> None:
    """The next times of every cron that is accepted are those at which Prefect's server starts the run."""
    from prefect._vendor.croniter import croniter

    text = f"{minute} {hour} {day} * {weekday}"
    try:
        schedule = Schedule(recipe="observed", cron=text)
    except ValidationError:
        assert day.startswith("*/")  # the one case that programs read in different ways
        return
    start = EPOCH + timedelta(minutes=minutes)
    theirs = croniter(text, start)
    assert schedule.after(start, 3) == [theirs.get_next(datetime) for _ in range(3)]


def test_an_interval_does_not_shift_when_up_is_started_again() -> None:
    """`every` counts from a fixed moment, whenever it is asked."""
    schedule = Schedule(recipe="observed", every="15m")
    assert schedule.after(NOW, 2) == [
        NOW.replace(minute=15, second=0),
        NOW.replace(minute=30, second=0),
    ]
    assert schedule.after(NOW.replace(minute=15, second=0))[0] == NOW.replace(minute=30, second=0)


def test_times_are_those_of_the_zone() -> None:
    """Three at night in Berlin stays three at night when clocks change."""
    schedule = Schedule(recipe="observed", cron="0 3 * * *", timezone="Europe/Berlin")
    before = datetime(2026, 10, 23, 12, tzinfo=UTC)
    assert [time.astimezone(ZoneInfo("Europe/Berlin")).hour for time in schedule.after(before, 4)] == [3] * 4
    assert [time.astimezone(UTC).hour for time in schedule.after(before, 3)] == [1, 2, 2]
    assert Schedule(recipe="observed", cron="0 3 * * *", paused=True).after(before) == []


# The file

TEXT = """\
# ours
workspace: ./w  # beside the logs
sources:
    - 'logs/*.jsonl'   # by day
observed: {ingest: {max_chars: 5}}
"""


def test_an_edit_leaves_the_rest_of_the_file(folder: Path) -> None:
    """Adding and removing a schedule gives back the file that was, comments and quotes and all."""
    file = folder / "tilth.yaml"
    file.write_text(TEXT)
    file.chmod(0o600)
    with edited(file) as schedules:
        schedules["nightly"] = {"recipe": "observed", "every": "5m"}
    assert file.read_text().startswith(TEXT)
    assert yaml.safe_load(file.read_text())["schedules"] == {"nightly": {"recipe": "observed", "every": "5m"}}
    assert file.stat().st_mode & 0o777 == 0o600
    with edited(file) as schedules:
        del schedules["nightly"]
    assert file.read_text() == TEXT
    assert [path.name for path in folder.iterdir()] == ["tilth.yaml"]


def test_a_file_of_comments_keeps_them(folder: Path) -> None:
    """What holds no key yet loses nothing."""
    file = folder / "tilth.yaml"
    file.write_text("# nothing yet\n")
    with edited(file) as schedules:
        schedules["a"] = {"recipe": "observed"}
    assert file.read_text().startswith("# nothing yet\nschedules:")


@pytest.mark.parametrize("text", ["a: [", "- a\n", "schedules: 3\n"])
def test_a_file_that_is_something_else_is_left_alone(folder: Path, text: str) -> None:
    """An edit of what is no settings file is refused, and the file stays."""
    file = folder / "tilth.yaml"
    file.write_text(text)
    with pytest.raises(BadInput), edited(file) as schedules:
        schedules["a"] = {}
    assert file.read_text() == text


def test_a_failed_edit_changes_nothing(folder: Path) -> None:
    """An error in the middle leaves the file, and the next edit is not kept waiting."""
    file = folder / "tilth.yaml"
    file.write_text(TEXT)
    with pytest.raises(ZeroDivisionError), edited(file) as schedules:
        schedules["a"] = 1 / 0
    assert file.read_text() == TEXT
    with edited(file, dry_run=True) as schedules:
        schedules["a"] = {}
    assert file.read_text() == TEXT


# The commands


def test_a_schedule_from_adding_to_removing(folder: Path) -> None:
    """add makes the file, ls shows the next time, resume undoes pause, remove prints what stood there."""
    added = _run("add", "observed", "--every", "15m", "-s", "logs/*.jsonl", "--set", "observed.seed=7")
    assert added.exit_code == 0, added.output
    wanted = {
        "recipe": "observed",
        "every": "15m",
        "settings": {"sources": ["logs/*.jsonl"], "observed": {"seed": 7}},
    }
    file = folder / "tilth.yaml"
    assert yaml.safe_load(file.read_text()) == {"schedules": {"observed": wanted}}
    assert schedules_of(file)["observed"].interval == timedelta(minutes=15)
    before = file.read_text()
    assert _run("pause", "observed").exit_code == 0
    (row,) = json.loads(_run("ls", "--json").stdout)
    assert (row["next"], row["state"]) == ("paused", None)
    assert _run("resume", "observed").exit_code == 0
    assert file.read_text() == before
    removed = _run("remove", "observed", "--yes")
    assert yaml.safe_load(removed.stdout) == {"schedules": {"observed": wanted}}
    assert "observed" not in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("observd", "--every", "5m", "-s", "a"), "no such recipe"),
        (("observed", "--every", "5m"), "nothing to read"),
        (("rubrics", "--every", "5m"), "nothing to read"),
        (("observed", "--every", "5m", "-s", "a", "--set", "observed.sed=1"), "unknown setting"),
        (("observed", "--every", "5m", "-s", "a", "--set", "user_salt=x"), "secrets"),
        (("observed", "--cron", "0 3 * *", "-s", "a"), "five fields"),
        (("observed", "--every", "5m", "-s", "a", "--name", "Été"), "cannot be called so"),
    ],
)
def test_a_mistake_shows_when_it_is_made(folder: Path, arguments: tuple[str, ...], word: str) -> None:
    """What a run could not begin with is refused by `add`, which then writes nothing."""
    done = _run("add", *arguments)
    assert isinstance(done.exception, TilthError)
    assert word in str(done.exception)
    assert not (folder / "tilth.yaml").exists()


def test_only_saying_writes_nothing(folder: Path) -> None:
    """--dry-run prints the block; the file is as it was, or not there."""
    done = _run("add", "observed", "--every", "5m", "-s", "a", "--dry-run")
    assert yaml.safe_load(done.stdout)["schedules"]["observed"]["every"] == "5m"
    assert not (folder / "tilth.yaml").exists()


def test_a_name_is_taken_once(folder: Path) -> None:
    """A second schedule of the same name is refused, and the first stays."""
    assert _run("add", "observed", "--every", "5m", "-s", "a").exit_code == 0
    done = _run("add", "observed", "--every", "6m", "-s", "a")
    assert isinstance(done.exception, BadInput)
    assert schedules_of(folder / "tilth.yaml")["observed"].every == "5m"


# Who is at work


def test_one_up_a_workspace(tmp_path: Path) -> None:
    """A second `tilth up` is told which one is at work; when that one is gone, nothing is in the way."""
    with _alone(home_of(str(tmp_path))) as record:
        record({"pid": 7, "url": "http://127.0.0.1:1/api"})
        assert at_work(str(tmp_path)) == {"pid": 7, "url": "http://127.0.0.1:1/api"}
        with pytest.raises(TilthError, match="at work") as caught, _alone(home_of(str(tmp_path))):
            pass
        assert "pid 7" in str(caught.value)
    assert at_work(str(tmp_path)) is None
    with _alone(home_of(str(tmp_path))):
        assert at_work(str(tmp_path)) == {}


def test_a_workspace_elsewhere_has_no_up() -> None:
    """A workspace on an object store has no place for the server's database; the error leads to the page for teams."""
    with pytest.raises(ConfigError, match="workspace") as caught:
        home_of("s3://bucket/tilth")
    assert "teams.md" in str(caught.value)


def test_a_server_that_was_named_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """PREFECT_API_URL without an answer is an error: a private server would hide it."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(TilthError, match="PREFECT_API_URL"):
        find_server(4299)


# For teams


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_sample_for_teams_fits_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's own loader reads prefect.yaml; entrypoints are the flow, and take the parameters and settings given."""
    from prefect.cli.deploy._config import _load_deploy_configs_and_actions
    from prefect.flows import load_flow_from_entrypoint
    from rich.console import Console

    from tilth.flows.recipes import RECIPES
    from tilth.flows.settings import known_keys

    monkeypatch.setattr(Console, "print", lambda _, said, **__: pytest.fail(f"Prefect says {said}"))
    deployments, _ = _load_deploy_configs_and_actions(ROOT / "prefect.yaml", console=Console())
    assert {one["name"] for one in deployments} == {"nightly", "rubrics"}
    for one in deployments:
        flow = load_flow_from_entrypoint(one["entrypoint"])
        inspect.signature(flow.fn).bind(**one["parameters"])
        assert one["parameters"]["recipe"] in RECIPES
        assert set(one["parameters"]["options"]) <= set(known_keys())
        assert one["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
        assert one["schedules"]
        assert one["work_pool"]["name"] == "tilth"
